"""`amber-ext plan`: allocators, and what to leave unquantised."""

import json
import re

import pytest

from amber_ext import OutstandingSparseConfig


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(" ".join("abcdefghij" * 40))
    return path


@pytest.mark.parametrize("allocator", ["teal", "acttail"])
def test_other_allocators(run, tiny_model_folder, text_file, allocator):
    options = [
        "--text",
        text_file,
        "--tokens",
        128,
        "--window",
        64,
        "--cost",
        "0.75",
        "--allocator",
        allocator,
    ]
    result = run("plan", tiny_model_folder, *options, "--json")
    assert result.returncode == 0, result.stderr
    planned = json.loads(result.stdout)
    assert 0.5 <= planned["cost"] <= 0.75 and planned["predicted_loss"] is None
    assert "Loss on the text" in run("plan", tiny_model_folder, *options).stdout


def test_what_to_leave_unquantised(run, tiny_model_folder, text_file, tmp_path):
    out = tmp_path / "config.json"
    options = ["--text", text_file, "--tokens", 128, "--window", 64, "--out", out]
    result = run("plan", tiny_model_folder, *options, "--quantization-loss", "0", "--skip", 1)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^down_proj left unquantised in layers 0, 1, 2, 3$", result.stdout, re.MULTILINE)
    planned = OutstandingSparseConfig.load(out)
    assert planned.unquantized["q_proj"] == (0, 1, 2, 3) and len(planned.skip_layers["q_proj"]) == 1
    assert planned.rescale == "variance"
    result = run("plan", tiny_model_folder, *options, "--quantization-loss", "9", "--json")
    assert result.returncode == 0 and OutstandingSparseConfig.load(out) == OutstandingSparseConfig()
    result = run("quantize", tiny_model_folder, "--config", out, "--out", tmp_path / "model")
    assert result.returncode == 0, result.stderr
