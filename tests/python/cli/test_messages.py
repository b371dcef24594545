"""What the commands say of models, windows and configurations that they do not take: one line each."""

import json
import shutil

import pytest

from amber_ext import OutstandingSparseConfig, quantize_, save_quantized
from amber_ext.models import load_model


def the_line(result):
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("amber-ext:")]
    assert result.returncode == 1 and "Traceback" not in result.stderr and not result.stdout
    return line


@pytest.fixture(scope="module")
def quantized_folder(tiny_model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    loaded = load_model(str(tiny_model_folder))
    quantize_(loaded.model, OutstandingSparseConfig(direction="none"))
    save_quantized(loaded.model, folder, loaded.tokenizer)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["sensitivity", "{model}"],
        ["plan", "{model}", "--skip", "1"],
        ["plan", "{model}", "--cost", "0.8"],
        ["eval", "{model}", "--out", "{out}", "--text", "{text}", "--tokens", "64"],
        ["quantize", "{model}", "--out", "{out}"],
    ],
)
def test_quantised_models(run, quantized_folder, data, tmp_path, command):
    names = {"model": quantized_folder, "out": tmp_path / "out", "text": data / "text.txt"}
    line = the_line(run(*(part.format(**names) for part in command)))
    assert line.startswith(
        "amber-ext: model: LlamaForCausalLM is quantised ('model.layers.0.self_attn.q_proj'"
    )


@pytest.mark.parametrize("window", [1, 0, -3])
@pytest.mark.parametrize(
    "command", ["ppl", "sensitivity", "plan --skip 1", "eval --out o", "quantize --out o"]
)
def test_windows(run, tmp_path, monkeypatch, command, window):
    monkeypatch.chdir(tmp_path)
    # Before the model, which is not there, is looked for.
    line = the_line(run(*command.split(), "no/such/model", "--window", window))
    assert line == f"amber-ext: window: {window} is not allowed; at least 2 tokens are needed"


@pytest.mark.parametrize("size", [0, 4, 100, -100])
def test_truncated_weights(run, tiny_model_folder, tmp_path, size):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:size])
    line = the_line(run("ppl", folder))
    assert line.startswith(f"amber-ext: model: {str(folder)!r} cannot be loaded: ")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\3\0\0\0" + b"\1" * 16, b"text"])
def test_damaged_gguf_files(run, tmp_path, content):
    (tmp_path / "model.gguf").write_bytes(content)
    line = the_line(run("ppl", tmp_path / "model.gguf"))
    assert line.startswith(f"amber-ext: model: {str(tmp_path / 'model.gguf')!r} cannot be loaded: ")


@pytest.mark.parametrize(
    "norm, command, message",
    [
        ("model.norm", "plan --cost 0.8", "model: LlamaForCausalLM predicts NaN or Inf for these batches; "),
        (
            "model.layers.1.input_layernorm",
            "sensitivity",
            "batches: the output of the layer 'model.layers.1.",
        ),
        (
            "model.layers.1.input_layernorm",
            "plan --skip 1",
            "batches: the output of the layer 'model.layers.1.",
        ),
    ],
)
def test_a_model_that_computes_nan(run, tiny_model_folder, data, tmp_path, norm, command, message):
    loaded = load_model(str(tiny_model_folder))
    loaded.model.get_submodule(norm).weight.data.fill_(float("nan"))
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    loaded.model.save_pretrained(folder)
    line = the_line(run(*command.split(), folder, "--text", data / "text.txt", "--window", 64))
    assert line.startswith(f"amber-ext: {message}")


def test_a_damaged_tokenizer_of_a_quantised_model(run, quantized_folder, tmp_path):
    folder = shutil.copytree(quantized_folder, tmp_path / "model")
    (folder / "tokenizer.json").write_text("{")
    assert "cannot be loaded" in the_line(run("ppl", folder))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\xff\xfe{}", "is not UTF-8"),
        (json.dumps({"targets": 3}).encode(), "is not allowed: targets: 3 is not allowed; it must be a list"),
        (json.dumps({"skip_layers": {"q_proj": 3}}).encode(), "it must be a list of layer numbers"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_configuration_files(run, tiny_model_folder, tmp_path, content, message):
    (tmp_path / "c.json").write_bytes(content)
    line = the_line(run("ppl", tiny_model_folder, "--config", tmp_path / "c.json"))
    assert line.startswith(f"amber-ext: path: {str(tmp_path / 'c.json')!r} ") and message in line
