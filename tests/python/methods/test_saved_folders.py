"""Saving and loading quantised models: bit for bit, in a fresh process, and never from damaged files."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from helpers import tiny_llama_config

from amber_ext import OutstandingSparseConfig, load_quantized, quantize_, save_quantized
from amber_ext.methods.legacy_checkpoint import MANIFEST, WEIGHTS
from amber_ext.models import load_model

IDS = torch.arange(3, 43)[None]


@pytest.fixture(
    params=[{}, {"tie_word_embeddings": True, "attention_bias": True}], ids=["plain", "tied-biased"]
)
def quantized(request):
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama_config(**request.param)).eval()
    config = OutstandingSparseConfig(
        pattern="8:16", rescale="variance", unquantized={"q_proj": (0,), "o_proj": "all"}
    )
    quantize_(model, config, [IDS])
    return model


def test_round_trip_is_bit_for_bit(quantized, tmp_path):
    save_quantized(quantized, tmp_path)
    loaded = load_quantized(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded(IDS).logits, quantized(IDS).logits)
    one = quantized.generate(IDS, max_new_tokens=6, do_sample=False)
    assert torch.equal(loaded.generate(IDS, max_new_tokens=6, do_sample=False), one)
    assert [str(m) for m in loaded.modules()] == [str(m) for m in quantized.modules()]
    save_quantized(loaded, tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / WEIGHTS).read_bytes()


def test_a_fresh_process_gives_the_same_logits(quantized, tmp_path):
    save_quantized(quantized, tmp_path)
    torch.save(quantized(IDS).logits, tmp_path / "logits.pt")
    script = (
        "import sys, torch, amber_ext\n"
        "model = amber_ext.load_quantized(sys.argv[1])\n"
        "want = torch.load(sys.argv[1] + '/logits.pt')\n"
        "assert torch.equal(model(torch.arange(3, 43)[None]).logits, want)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_load_model_takes_the_folder(quantized, tmp_path, tiny_model_folder):
    tokenizer = load_model(str(tiny_model_folder)).tokenizer
    save_quantized(quantized, tmp_path, tokenizer)
    loaded = load_model(str(tmp_path))
    assert torch.equal(loaded.model(IDS).logits, quantized(IDS).logits)
    assert loaded.tokenizer("a b").input_ids == tokenizer("a b").input_ids


def test_transformers_does_not_take_it_for_an_ordinary_model(quantized, tmp_path):
    from transformers import AutoModelForCausalLM

    save_quantized(quantized, tmp_path)
    with pytest.raises(OSError, match="no file named"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def truncate(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def flip_one_bit(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-50] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def edit(**changes):
    def apply(folder):
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return apply


def shrink_a_layer(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["layers"]["model.layers.1.mlp.up_proj"]["out_features"] = 96
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rename_a_layer(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["layers"]["model.layers.9.mlp.up_proj"] = manifest["layers"].pop("model.layers.1.mlp.up_proj")
    (folder / MANIFEST).write_text(json.dumps(manifest))


def add_a_tensor(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "model.extra": torch.ones(1)}, folder / WEIGHTS)
    edit(weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())(folder)


def drop_a_layer(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["layers"]["model.layers.1.mlp.up_proj"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "is truncated or was changed"),
        (flip_one_bit, "is truncated or was changed"),
        (lambda folder: (folder / WEIGHTS).unlink(), "amber_ext.safetensors' is missing"),
        (lambda folder: (folder / MANIFEST).unlink(), "amber_ext.json' is missing"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "has format 'list'"),
        (edit(format=99), "has format 99; this version reads 1"),
        (edit(layers=[]), "has no valid 'layers'"),
        (shrink_a_layer, "cannot be loaded: .*size mismatch"),
        (rename_a_layer, "cannot be loaded"),
        (add_a_tensor, "does not fit its config.json: model.extra"),
        (drop_a_layer, "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be loaded"),
    ],
)
def test_damaged_folders_are_refused(quantized, tmp_path, damage, message):
    save_quantized(quantized, tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=f"folder: .*{message}"):
        load_quantized(tmp_path)


def test_only_quantised_models_are_saved(tiny_llama, tmp_path):
    with pytest.raises(ValueError, match="model: it has no quantised layers; call quantize_ first"):
        save_quantized(tiny_llama, tmp_path)
