"""What the report of `sparsify_` says of speed: on fake GPUs, on their real shapes."""

import dataclasses

import pytest
import torch
from helpers_tuning import GEMMS, fake_layer

from amber_ext import AmberConfig, AmberLinear, OutstandingSparseConfig, sparsify_
from amber_ext.methods.report import warnings_of


def on(fake_gpu, name, arch, gemms=GEMMS):
    fake_gpu(name, arch, gemms)
    return {"model.layers.0.q_proj": fake_layer(4096, 4096), "model.layers.1.q_proj": fake_layer(4096, 4096)}


def test_layers_that_pruning_makes_slower_are_named_once(gpu, fake_gpu):
    (line,) = warnings_of(on(fake_gpu, "NVIDIA GeForce RTX 5090", 120))
    assert line.startswith("q_proj pruned to 2:4 is slower than dense: device: for compute capability 12.0")
    assert "; predicted " in line and "at T = 8192 on NVIDIA GeForce RTX 5090" in line
    assert line.endswith("(2 layers)") and "\n" not in line


def test_layers_that_pruning_makes_faster_are_not_named(gpu, fake_gpu):
    assert warnings_of(on(fake_gpu, "NVIDIA H100", 90)) == ()


def test_what_is_not_pruned_then_is_not_slower(gpu, fake_gpu):
    fake_gpu("NVIDIA GB10", 121, GEMMS)
    assert warnings_of({"q_proj": fake_layer(4096, 4096)})
    assert warnings_of({"q_proj": fake_layer(4096, 4096, allow_unpruned=True)}) == ()


def test_on_a_cpu_nothing_is_said(tiny_llama):
    report = sparsify_(tiny_llama, AmberConfig())
    assert report.warnings == () and "warning" not in str(report) and report.to_dict()["warnings"] == []
    warned = dataclasses.replace(report, warnings=("q_proj is slower",))
    assert str(warned).endswith("\n  warning: q_proj is slower") and warned.to_dict()["warnings"]


def test_the_configuration_reaches_the_layers(tiny_llama):
    config = AmberConfig(allow_unpruned=True)
    assert AmberConfig.from_dict(config.to_dict()) == config and not AmberConfig().allow_unpruned
    sparsify_(tiny_llama, config)
    layers = [layer for layer in tiny_llama.modules() if isinstance(layer, AmberLinear)]
    assert layers and all(layer.allow_unpruned for layer in layers)


def test_the_configuration_reaches_8_bit_layers(tiny_llama, tmp_path):
    from amber_ext import QuantizedLinear, load_quantized, quantize_, save_quantized

    quantize_(tiny_llama, OutstandingSparseConfig(allow_unpruned=True, direction="none"))
    save_quantized(tiny_llama, tmp_path / "saved")
    for model in (tiny_llama, load_quantized(tmp_path / "saved")):
        layers = [layer for layer in model.modules() if isinstance(layer, QuantizedLinear)]
        assert layers and all(layer.allow_unpruned for layer in layers)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_allow_unpruned_is_true_or_false(value):
    with pytest.raises(
        ValueError, match=f"allow_unpruned: {value!r} is not allowed; it must be True or False"
    ):
        AmberConfig(allow_unpruned=value)


def test_cpu_layers_prune_whatever_is_allowed():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4", allow_unpruned=True)
    assert [plan.kernels for plan in layer.plans.values()] == [("masked_dense",)]
