"""Layers on a fake GPU, and a bench that says what it is told."""

import json
from collections import Counter

import torch

from amber_ext import AmberLinear
from amber_ext.ops import library, sparse_gemms
from amber_ext.ops.choice import devices, measured, products
from amber_ext.ops.sparse_gemms import SparseGemm

GEMMS = tuple(
    SparseGemm(f"sm90_{name}", 90, (90,), "16-bit", "bfloat16", (128, 256, 128), 16, 32, None, 8, False)
    for name in "ab"
)


class FakeBench:
    """Times and checks are functions of kernel and tokens; what was asked is counted."""

    def __init__(self, times=lambda kernel, tokens: 1.0, check=lambda kernel, tokens: None):
        self.time, self.wrong, self.asked = times, check, Counter()

    def check(self, problem, kernel, tokens):
        self.asked["check", kernel, tokens] += 1
        return self.wrong(kernel, tokens)

    def times(self, problem, kernels, tokens):
        for kernel in kernels:
            self.asked["time", kernel, tokens] += 1
        return {kernel: self.time(kernel, tokens) for kernel in kernels}


def fake_layer(n=1024, k=2048, pattern="2:4", **options):
    dense = torch.nn.Linear(k, n, bias=False, dtype=torch.bfloat16, device="meta")
    layer = AmberLinear.from_linear(dense, pattern, "magnitude", **options)
    layer.weight = torch.nn.Parameter(
        torch.empty(n, k, dtype=torch.bfloat16, device="cuda"), requires_grad=False
    )
    layer.keep_copies()
    return layer


def fake_gpu_switch(monkeypatch, tmp_path):
    """Yields a switch: this machine looks as if it had that GPU, and a build with these sparse GEMMs."""
    monkeypatch.setattr(library, "DEVICES", frozenset({"cpu", "cuda"}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def on(name, arch, gemms=None, shipped=None):
        device = devices.describe(name, arch, 132)
        monkeypatch.setattr(devices, "device_of", lambda _: device)
        if gemms is not None:
            monkeypatch.setattr(sparse_gemms, "SPARSE_GEMMS", tuple(gemms))
        tables = {} if shipped is None else {name: [entry.to_dict() for entry in shipped]}
        path = tmp_path / "shipped.json"
        path.write_text(json.dumps({"devices": tables}))
        monkeypatch.setattr(measured, "SHIPPED", path)
        measured.shipped.cache_clear()
        products.forget_plans()
        return device

    yield on
    measured.shipped.cache_clear()
    products.forget_plans()
