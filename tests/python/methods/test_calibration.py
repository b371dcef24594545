"""Calibration, smoothing factors, and folding them into norms."""

import copy

import pytest
import torch
import torch.nn.functional as F

from amber_ext import (
    OutstandingSparseConfig,
    QuantizedLinear,
    quantize_,
)
from amber_ext.layers.sites import find_linears
from amber_ext.methods.calibration import calibrate
from amber_ext.methods.norm_folding import fold_into_norm, readers_of_norm
from amber_ext.ops.quantization import smoothing_factor


def test_calibration_is_the_absmax_of_every_input(tiny_llama, batches):
    sites = find_linears(tiny_llama)
    found = calibrate(tiny_llama, sites, iter(batches))
    seen = {}

    def hook(name):
        def record(module, args):
            seen.setdefault(name, []).append(args[0].flatten(0, -2))

        return record

    handles = [tiny_llama.get_submodule(s.name).register_forward_pre_hook(hook(s.name)) for s in sites]
    with torch.no_grad():
        tiny_llama(torch.cat(batches))
    for handle in handles:
        handle.remove()
    assert found.input_absmax.keys() == seen.keys()
    for name, inputs in seen.items():
        torch.testing.assert_close(found.input_absmax[name], torch.cat(inputs).abs().amax(0))
    layer = "model.layers.2"
    for reader in ("q_proj", "k_proj", "v_proj"):
        assert found.norm_of[f"{layer}.self_attn.{reader}"] == f"{layer}.input_layernorm"
    for reader in ("gate_proj", "up_proj"):
        assert found.norm_of[f"{layer}.mlp.{reader}"] == f"{layer}.post_attention_layernorm"
    assert f"{layer}.mlp.down_proj" not in found.norm_of
    assert f"{layer}.self_attn.o_proj" not in found.norm_of


def test_smoothing_factor_follows_the_formula():
    x, w = torch.tensor([4.0, 1.0, 0.0, 9.0]), torch.tensor([0.25, 1.0, 1.0, 0.0])
    s = x**0.5 / w**0.5
    torch.testing.assert_close(smoothing_factor(x, w, "smoothquant", 0.5)[:2], 1 / s[:2])
    torch.testing.assert_close(smoothing_factor(x, w, "outstanding", 0.5)[:2], s[:2])
    s = x**0.1 / w**0.9
    torch.testing.assert_close(smoothing_factor(x, w, "outstanding", 0.1)[:2], s[:2])
    for direction in ("smoothquant", "outstanding"):
        assert smoothing_factor(x, w, direction, 0.1)[2:].tolist() == [1.0, 1.0]
    extreme = smoothing_factor(torch.tensor([1e38]), torch.tensor([1e-38]), "outstanding", 0.5)
    assert extreme.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fold_is_exact_up_to_the_norms_own_rounding(dtype):
    torch.manual_seed(0)
    weight, factor = torch.randn(64).to(dtype), torch.rand(64) * 3 + 0.1
    weight[5] = 0
    new, applied = fold_into_norm(weight, factor)
    assert new.dtype == dtype and new[5] == 0 and applied[5] == 1
    torch.testing.assert_close(new.double(), (weight.double() * applied.double()), rtol=1e-6, atol=0)
    live = weight != 0
    torch.testing.assert_close(applied[live], factor[live], rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_a_fold_that_overflows_is_refused():
    assert fold_into_norm(torch.full((2,), 60000.0).half(), torch.full((2,), 4.0)) is None


def test_readers_are_known_only_where_that_is_certain(tiny_llama, tiny_qwen3_moe):
    readers = readers_of_norm(tiny_llama, "model.layers.0.input_layernorm")
    assert readers == [f"model.layers.0.self_attn.{p}_proj" for p in ("k", "q", "v")]
    assert len(readers_of_norm(tiny_llama, "model.layers.0.post_attention_layernorm")) == 2
    assert readers_of_norm(tiny_llama, "model.norm") is None
    # The router of a mixture of experts reads the second norm too.
    assert readers_of_norm(tiny_qwen3_moe, "model.layers.0.input_layernorm") is not None
    assert readers_of_norm(tiny_qwen3_moe, "model.layers.0.post_attention_layernorm") is None

    class OnePlus(torch.nn.Module):
        """Gemma's norm: not proportional to its weight."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(64))

        def forward(self, x):
            return F.normalize(x, dim=-1) * (1 + self.weight)

    tiny_llama.model.layers[0].input_layernorm = OnePlus()
    assert readers_of_norm(tiny_llama, "model.layers.0.input_layernorm") is None


@pytest.mark.parametrize("direction, alpha", [("smoothquant", 0.5), ("outstanding", 0.1)])
def test_folded_and_on_the_fly_agree(tiny_llama, batches, direction, alpha):
    config = OutstandingSparseConfig(direction=direction, alpha=alpha, rescale="none")
    folded, unfolded = copy.deepcopy(tiny_llama), tiny_llama
    report = quantize_(folded, config, batches)
    smoothing = {row.projection: row.smoothing for row in report.rows if row.layer == 1}
    assert smoothing["q_proj"] == "model.layers.1.input_layernorm"
    assert smoothing["up_proj"] == "model.layers.1.post_attention_layernorm"
    assert smoothing["down_proj"] == smoothing["o_proj"] == "on the fly"
    assert folded.model.layers[0].self_attn.q_proj.smooth is None
    assert folded.model.layers[0].mlp.down_proj.smooth is not None

    # The norm feeds the unfolded copy as it was; the factor that the fold applied goes on the fly.
    before = unfolded.model.layers[0].input_layernorm.weight
    applied = folded.model.layers[0].input_layernorm.weight / before
    x = torch.randn(5, 64)
    name = "model.layers.0.self_attn.q_proj"
    one = QuantizedLinear.from_linear(unfolded.get_submodule(name), applied.detach(), pattern="2:4")
    two = folded.get_submodule(name)
    assert torch.equal(one.weight, two.weight)
    torch.testing.assert_close(one(x), two(x * applied), rtol=1e-5, atol=1e-5)


def test_a_norm_whose_readers_are_not_all_quantised_is_not_folded(tiny_llama, batches):
    norm = tiny_llama.model.layers[1].input_layernorm.weight.clone()
    report = quantize_(tiny_llama, OutstandingSparseConfig(unquantized={"k_proj": (1,)}), batches)
    rows = {row.name: row for row in report.rows}
    row = rows["model.layers.1.self_attn.k_proj"]
    assert not row.quantized and row.smoothing == "none" and "left unquantised" in row.reason
    assert rows["model.layers.1.self_attn.q_proj"].smoothing == "on the fly"
    assert rows["model.layers.0.self_attn.q_proj"].smoothing == "model.layers.0.input_layernorm"
    assert torch.equal(tiny_llama.model.layers[1].input_layernorm.weight, norm)
