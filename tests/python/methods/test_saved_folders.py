"""Saving and loading quantised models: bit for bit, in a fresh process, and never from damaged files."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import tiny_llama_config

from amber_ext import OutstandingSparseConfig, load_quantized, quantize_, save_quantized
from amber_ext.models import load_model

IDS = torch.arange(3, 43)[None]
CONFIG = OutstandingSparseConfig(
    pattern="8:16", rescale="variance", unquantized={"q_proj": (0,), "o_proj": "all"}
)
WEIGHTS = "model.safetensors"
GENERATION = "generation_config.json"
LAYER = "model.layers.1.mlp.up_proj"
CHANGED = "config.json' is not the one that was saved"

KINDS = {"plain": {}, "tied-biased": {"tie_word_embeddings": True, "attention_bias": True}}


def small_quantized(fields):
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama_config(**fields)).eval()
    quantize_(model, CONFIG, [IDS])
    return model


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def quantized(request):
    return small_quantized(request.param)


def test_round_trip_is_bit_for_bit(quantized, tmp_path):
    save_quantized(quantized, tmp_path)
    loaded = load_quantized(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded(IDS).logits, quantized(IDS).logits)
    one = quantized.generate(IDS, max_new_tokens=6, do_sample=False)
    assert torch.equal(loaded.generate(IDS, max_new_tokens=6, do_sample=False), one)
    assert [str(m) for m in loaded.modules()] == [str(m) for m in quantized.modules()]
    save_quantized(loaded, tmp_path / "again")
    for name in (WEIGHTS, "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_logits(tmp_path):
    for name, fields in KINDS.items():
        model = small_quantized(fields)
        save_quantized(model, tmp_path / name)
        torch.save(model(IDS).logits, tmp_path / name / "logits.pt")
    script = (
        "import sys, torch, amber_ext\n"
        "for folder in sys.argv[1:]:\n"
        "    model = amber_ext.load_quantized(folder)\n"
        "    want = torch.load(folder + '/logits.pt')\n"
        "    assert torch.equal(model(torch.arange(3, 43)[None]).logits, want)\n"
        "    print('the same logits')\n"
    )
    command = [sys.executable, "-c", script, *(str(tmp_path / name) for name in KINDS)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("the same logits") == len(KINDS) == 2


def test_load_model_takes_the_folder(quantized, tmp_path, tiny_model_folder):
    tokenizer = load_model(str(tiny_model_folder)).tokenizer
    save_quantized(quantized, tmp_path, tokenizer)
    loaded = load_model(str(tmp_path))
    assert torch.equal(loaded.model(IDS).logits, quantized(IDS).logits)
    assert loaded.tokenizer("a b").input_ids == tokenizer("a b").input_ids


def test_transformers_loads_it_too(quantized, tmp_path):
    from transformers import AutoModelForCausalLM

    save_quantized(quantized, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(IDS).logits, quantized(IDS).logits)
    assert loaded.config.quantization_config.config == CONFIG


def test_what_is_saved_is_the_model_as_it_is_now(quantized, tmp_path):
    with torch.no_grad():
        quantized.model.norm.weight.mul_(2)
    save_quantized(quantized, tmp_path)
    assert torch.equal(load_quantized(tmp_path)(IDS).logits, quantized(IDS).logits)


def truncate(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def rewrite_config(change):
    """A damage: ``change`` edits the fields of config.json."""

    def apply(folder):
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def rewrite_manifest(change):
    """A damage: ``change`` edits the quantization_config in config.json."""
    return rewrite_config(lambda config: change(config["quantization_config"]))


def rewrite_tensors(change):
    """A damage: ``change`` edits the tensors, by name."""

    def apply(folder):
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def flip(name):
    """A damage: one bit of this tensor."""

    def change(tensors):
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1).view(torch.uint8)[5] ^= 1

    return rewrite_tensors(change)


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "cannot be loaded"),
        (flip(f"{LAYER}.weight"), f"layer '{LAYER}': its tensors are not those that were saved"),
        (flip(f"{LAYER}.weight_scale"), f"layer '{LAYER}': its tensors are not those that were saved"),
        (flip("model.layers.0.self_attn.o_proj.weight"), "its tensors are not those that were saved"),
        (flip("model.norm.weight"), "layer 'model.norm': its tensors are not those that were saved"),
        (flip("model.embed_tokens.weight"), "layer '(lm_head|model.embed_tokens)': its tensors"),
        (
            rewrite_tensors(lambda t: t.pop(f"{LAYER}.weight_scale")),
            "its tensors are not those that were saved",
        ),
        (
            rewrite_tensors(lambda t: t.pop("model.embed_tokens.weight")),
            "layer '(lm_head|model.embed_tokens)': its tensors",
        ),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "holds no model that save_quantized wrote"),
        (lambda folder: (folder / "config.json").write_text("{"), "holds no model that save_quantized wrote"),
        (rewrite_manifest(lambda m: m.update(layers=[], config_sha256=None)), "it has no 'layers'"),
        (
            rewrite_manifest(lambda m: m.update(checksums={}, config_sha256=None)),
            "its tensors are not those that were saved",
        ),
        (rewrite_manifest(lambda m: m["layers"][LAYER].update(pattern="2:4")), CHANGED),
        (rewrite_manifest(lambda m: m["layers"][LAYER].update(rescale="variance")), CHANGED),
        (rewrite_manifest(lambda m: m["config"].update(pattern="2:4")), CHANGED),
        (rewrite_manifest(lambda m: m.pop("checksums")), CHANGED),
        (rewrite_config(lambda c: c.update(rms_norm_eps=1e-3)), CHANGED),
        (rewrite_config(lambda c: c.update(new_field=1)), CHANGED),
        (rewrite_config(lambda c: c.pop("eos_token_id")), CHANGED),
        (lambda folder: (folder / GENERATION).unlink(), "generation_config.json"),
        (lambda folder: (folder / GENERATION).write_text('{"eos'), "generation_config.json"),
        (rewrite_manifest(lambda m: m["layers"][LAYER].update(out_features=96)), "cannot be loaded"),
        (rewrite_manifest(lambda m: m["layers"].update(x=m["layers"].pop(LAYER))), "cannot be loaded"),
        (rewrite_manifest(lambda m: m["layers"].pop(LAYER)), "cannot be loaded"),
    ],
)
def test_damaged_folders_are_refused(quantized, tmp_path, damage, message):
    save_quantized(quantized, tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=f"folder: .*{message}") as error:
        load_quantized(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_tensors_of_another_dtype_are_not_taken_silently(quantized, tmp_path):
    save_quantized(quantized, tmp_path)
    rewrite_config(lambda c: c.update(dtype="bfloat16"))(tmp_path)
    rewrite_manifest(lambda m: m.update(config_sha256=None))(tmp_path)
    with pytest.raises(ValueError, match="in another dtype than it was saved in"):
        load_quantized(tmp_path)


def test_config_json_may_be_written_in_another_way(quantized, tmp_path):
    save_quantized(quantized, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(dict(reversed(config.items()))))
    assert torch.equal(load_quantized(tmp_path)(IDS).logits, quantized(IDS).logits)


def test_folders_without_a_checksum_of_config_json(quantized, tmp_path):
    """Written by 0.2.0 before it was released: one dtype a tensor, no class looked at."""
    save_quantized(quantized, tmp_path)
    rewrite_manifest(
        lambda m: m.update(checksums={k: " ".join(v.split()[:2]) for k, v in m["checksums"].items()})
    )(tmp_path)
    rewrite_manifest(lambda m: m.pop("config_sha256"))(tmp_path)
    rewrite_config(lambda c: c.pop("architectures"))(tmp_path)
    assert torch.equal(load_quantized(tmp_path)(IDS).logits, quantized(IDS).logits)
    flip("model.norm.weight")(tmp_path)
    with pytest.raises(ValueError, match="layer 'model.norm': its tensors are not those that were saved"):
        load_quantized(tmp_path)
