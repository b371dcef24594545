"""`amber-ext tune`: the table, the JSON, and the line where there is no GPU."""

import json
from types import SimpleNamespace

import pytest
import torch
from helpers_tuning import FakeBench, fake_layer
from typer.testing import CliRunner

from amber_ext.cli import app
from amber_ext.cli import tune as command
from amber_ext.tuning import tune as tuning


@pytest.fixture
def tuned(gpu, monkeypatch):
    """Runs the command on one layer of a fake GPU; one kernel wins with many tokens, the other is wrong."""
    times = {"masked_dense": 2.0, "dense": 1.5}
    model = torch.nn.ModuleDict({"q_proj": fake_layer(), "k_proj": fake_layer(4096)})
    model.to = lambda *_: model
    bench = FakeBench(
        lambda name, tokens: times.get(name, 1.0 if tokens > 100 else 3.0),
        lambda kernel, tokens: "3 of 8 values are wrong" if kernel == "sm90_b" else None,
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(command, "load", lambda _: SimpleNamespace(model=model))
    monkeypatch.setattr(tuning, "DeviceBench", lambda: bench)
    return lambda *options: CliRunner().invoke(app, ["tune", "MODEL", *options], env={"COLUMNS": "120"})


def test_the_table_says_what_was_won_and_lost(tuned):
    result = tuned("--tokens", "64", "--tokens", "4096")
    assert result.exit_code == 0
    lines = [line.split("│")[1:-1] for line in result.output.splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["4096", "2048", "2:4", "bfloat16", "64", "masked_dense", "0.75x lost"],
        ["4096", "2048", "2:4", "bfloat16", "4096", "sm90_a", "1.50x won"],
        ["1024", "2048", "2:4", "bfloat16", "64", "masked_dense", "0.75x lost"],
        ["1024", "2048", "2:4", "bfloat16", "4096", "sm90_a", "1.50x won"],
    ]
    assert "sm90_b is not used for [4096, 2048] 2:4 bfloat16: 3 of 8 values are wrong" in result.output
    assert "kept in " in result.output and "tuning_nvidia_h100_80gb_hbm3.json" in result.output.replace(
        "\n", ""
    )


def test_json(tuned):
    result = tuned("--tokens", "64", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert [entry["out_features"] for entry in data["entries"]] == [4096, 1024] and data["left_out"] == []


def test_without_a_gpu_it_says_so():
    result = CliRunner().invoke(app, ["tune", "MODEL"])
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "device: torch finds no CUDA GPU; tune measures on one"
