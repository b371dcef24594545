"""The GPU's benchmark as far as a CPU can run it: rows come one by one, what fails is said, and the table takes them."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def layers(monkeypatch):
    """`benchmarks/gpu/layers.py` on the CPU, where each variant runs once and takes 1 ms."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS / "gpu"), str(BENCHMARKS), *sys.path])
    import layers
    import timing
    import variants

    def times(variants, copies, replay):
        found = {}
        for name, variant in variants.items():
            try:
                variant(copies - 1)
                found[name] = {"median": 1.0, "p10": 1.0, "p90": 1.0}
            except (RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
                found[name] = str(error)
        return found

    monkeypatch.setattr(layers, "times", times)
    monkeypatch.setattr(layers, "Inputs", lambda *sizes: variants.Inputs(*sizes, device="cpu"))
    monkeypatch.setattr(layers, "device_facts", lambda: {"name": "NVIDIA Test 1", "arch": 90})
    monkeypatch.setattr(layers, "copy_bandwidth", lambda: 1.0)
    monkeypatch.setattr(layers, "SHAPES", (("llama gate", 64, 128),))
    yield layers
    for module in (layers, timing, variants):
        sys.modules.pop(module.__name__)


def test_rows_and_table(layers, tmp_path, monkeypatch):
    layers.main(tmp_path, [16, 1024])
    (path,) = tmp_path.iterdir()
    assert path.name == "gpu_test_1.jsonl"
    run, *rows = map(json.loads, path.read_text().splitlines())
    assert run["copy_gb_per_s"] == 1.0
    assert [(row["kind"], row["tokens"], row["replayed"]) for row in rows[:2]] == [
        ("layer", 16, True),
        ("layer", 1024, False),
    ]
    assert {row["kind"] for row in rows[2:]} == {"patterns"}
    # What needs no GPU ran; of the others it says why.
    assert {"cublas", "int8_product", "int8_dense_linear"} <= {*rows[0]["ms"]}
    assert "cutlass" in rows[0]["failed"]["amber_linear"]
    assert "cusparselt_gemm" in rows[0]["failed"]

    from gpu import table

    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "ROOT", tmp_path)
    assert "| llama gate | 16 | 1.000 ms | did not run | 1.00× | did not run |" in table.gpu()


def test_a_row_that_fails_is_written_and_the_others_follow(layers, tmp_path, monkeypatch):
    original = layers.measure

    def measure(kind, name, n, k, tokens):
        if tokens == 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(kind, name, n, k, tokens)

    monkeypatch.setattr(layers, "measure", measure)
    layers.main(tmp_path, [16, 1024])
    _, failed, row, *_ = map(json.loads, (tmp_path / "gpu_test_1.jsonl").read_text().splitlines())
    assert (failed["kind"], failed["why"]) == ("failed", "CUDA out of memory")
    assert row["tokens"] == 1024
