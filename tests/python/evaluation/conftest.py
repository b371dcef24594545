"""Fixtures of `amber-ext eval`."""

import shutil

import pytest


@pytest.fixture
def model_folder(tiny_model_folder, tmp_path):
    """A copy, to change."""
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


@pytest.fixture
def arguments(model_folder, data, tmp_path):
    """Of a command that takes a second: perplexities on a short text."""
    text = data / "text.txt"
    return [
        "eval", model_folder, "--out", tmp_path / "out", "--text", text, "--tokens", 120, "--window", 64,
        "--calibration", text, "--calibration-tokens", 64, "--patterns", "2:4",
    ]  # fmt: skip
