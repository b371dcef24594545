"""Fixtures of `amber-ext eval`."""

import shutil

import pytest


@pytest.fixture
def model_folder(tiny_model_folder, tmp_path):
    """A copy, to change."""
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


@pytest.fixture
def arguments(model_folder, data, tmp_path):
    return [
        *("eval", model_folder, "--out", tmp_path / "out", "--text", data / "text.txt", "--tokens", 120),
        *(
            "--window",
            64,
            "--calibration",
            data / "text.txt",
            "--calibration-tokens",
            64,
            "--patterns",
            "2:4",
        ),
    ]
