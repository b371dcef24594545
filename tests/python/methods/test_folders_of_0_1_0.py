"""Folders that version 0.1.0 wrote still load, and damaged ones are refused."""

import hashlib
import json
import shutil

import pytest
import torch
from helpers import SAVED_BY_0_1_0

from amber_ext import load_quantized, save_quantized


@pytest.mark.parametrize("name", ["save_quantized", "save_pretrained_quantized", "save_pretrained_pruned"])
def test_folders_of_0_1_0_load(name, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = SAVED_BY_0_1_0 / name
    ids = torch.arange(3, 35)[None]
    if name == "save_quantized":
        model = load_quantized(folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        # Computed on another processor: sums in another order may round an 8-bit value the other way.
        torch.testing.assert_close(model(ids).logits, torch.load(folder / "logits.pt"), rtol=0.02, atol=0.02)
        if name != "save_pretrained_pruned":
            save_quantized(model, tmp_path)
            assert torch.equal(load_quantized(tmp_path)(ids).logits, model(ids).logits)


def edit(**changes):
    def apply(folder):
        manifest = json.loads((folder / "amber_ext.json").read_text())
        (folder / "amber_ext.json").write_text(json.dumps({**manifest, **changes}))

    return apply


def edit_layers(change):
    def apply(folder):
        manifest = json.loads((folder / "amber_ext.json").read_text())
        change(manifest["layers"])
        edit(layers=manifest["layers"])(folder)

    return apply


OLD_WEIGHTS, OLD_LAYER = "amber_ext.safetensors", "model.layers.0.mlp.up_proj"


def flip_one_bit(folder):
    data = bytearray((folder / OLD_WEIGHTS).read_bytes())
    data[-50] ^= 1
    (folder / OLD_WEIGHTS).write_bytes(data)


def add_a_tensor(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / OLD_WEIGHTS)
    save_file({**tensors, "model.extra": torch.ones(1)}, folder / OLD_WEIGHTS)
    edit(weights_sha256=hashlib.sha256((folder / OLD_WEIGHTS).read_bytes()).hexdigest())(folder)


@pytest.mark.parametrize(
    "damage, message",
    [
        (flip_one_bit, "is truncated or was changed"),
        (lambda folder: (folder / OLD_WEIGHTS).unlink(), "amber_ext.safetensors' is missing"),
        (lambda folder: (folder / "amber_ext.json").unlink(), "holds no model that save_quantized wrote"),
        (lambda folder: (folder / "amber_ext.json").write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / "amber_ext.json").write_text("[]"), "has format 'list'"),
        (edit(format=99), "has format 99; this version reads 1"),
        (edit(layers=[]), "has no valid 'layers'"),
        (
            edit_layers(lambda layers: layers[OLD_LAYER].update(out_features=96)),
            "cannot be loaded: .*size mismatch",
        ),
        (edit_layers(lambda layers: layers.update({"model.x": layers.pop(OLD_LAYER)})), "cannot be loaded"),
        (edit_layers(lambda layers: layers.pop(OLD_LAYER)), "cannot be loaded"),
        (add_a_tensor, "do not fit its config.json: model.extra"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be loaded"),
    ],
)
def test_damaged_folders_of_0_1_0_are_refused(tmp_path, damage, message):
    folder = tmp_path / "folder"
    shutil.copytree(SAVED_BY_0_1_0 / "save_quantized", folder)
    damage(folder)
    with pytest.raises(ValueError, match=f"folder: .*{message}"):
        load_quantized(folder)
