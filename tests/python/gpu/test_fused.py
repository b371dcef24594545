"""Fused producers on a GPU: the products of their forms beside those of the separate functions."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_llama_config
from helpers_gpu import SPARSE_DTYPES, needs_gpu

import amber_ext
from amber_ext import AmberConfig, OutstandingSparseConfig, quantize_, quantize_weight, sparsify_
from amber_ext.layers.fused.mlp import AmberMLP
from amber_ext.ops.fused.silu_mul import silu_mul_linear, silu_mul_prune

pytestmark = needs_gpu


def operands(tokens, dtype):
    generator = torch.Generator().manual_seed(tokens)
    gate, up = (torch.randn(tokens, 1024, generator=generator).to(dtype) for _ in range(2))
    # torch's silu of the CPU: the kernel's rounds to the same 16-bit numbers.
    return gate.cuda(), up.cuda(), (F.silu(gate) * up).cuda()


@pytest.mark.parametrize("dtype", SPARSE_DTYPES)
@pytest.mark.parametrize("pattern", ["2:4", "10:16w", "12:16w"])
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 300])
def test_products_equal_those_of_the_separate_functions(tokens, pattern, dtype):
    gate, up, x = operands(tokens, dtype)
    weight = torch.randn(272, 1024, device="cuda", dtype=dtype) / 32
    scale, smooth = torch.rand(1024, device="cuda") + 0.5, torch.rand(1024, device="cuda") + 0.5
    bias = torch.randn(272, device="cuda", dtype=dtype)
    how = {"pattern": amber_ext.Pattern(pattern), "scale": scale, "backend": "cutlass"}
    more = {"allow_unpruned": False, "plan": None}
    wide = amber_ext.widen_weight(weight, pattern)
    y = silu_mul_linear(gate, up, weight=wide, bias=bias, rescale="none", **how, **more)
    assert torch.equal(y, amber_ext.linear(x, wide, bias, **how))

    values, weight_scale = quantize_weight(weight)
    values = amber_ext.widen_weight(values, pattern)
    how |= {"smooth": smooth, "rescale": "variance"}
    y = silu_mul_linear(gate, up, weight=values, weight_scale=weight_scale, bias=bias, **how, **more)
    assert torch.equal(y, amber_ext.linear_w8a8(x, values, weight_scale, bias, **how))


@pytest.mark.parametrize("change", ["prune", "quantize"])
def test_a_fused_model_is_near_the_separate_one(change):
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    fields = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 128}
    model = LlamaForCausalLM(tiny_llama_config(**fields)).to("cuda", torch.bfloat16).eval()
    tokens = torch.randint(3, 97, (2, 100), device="cuda")
    models = []
    for fuse in (False, None):
        models.append(copy.deepcopy(model))
        if change == "prune":
            sparsify_(models[-1], AmberConfig(backend="cutlass", fuse=fuse))
        else:
            quantize_(models[-1], OutstandingSparseConfig(backend="cutlass", fuse=fuse), [tokens])
    assert [isinstance(m.model.layers[0].mlp, AmberMLP) for m in models] == [False, True]
    with torch.no_grad():
        separate, fused = (m(tokens).logits.float() for m in models)
    assert (fused - separate).norm() < 0.02 * separate.norm()


def test_refusals():
    gate, up, _ = operands(4, torch.bfloat16)
    for options, message in (
        ({"layout": "dense"}, "layout: 'dense' does not run on CUDA; allowed: 'sm80', 'sm90'"),
        ({"layout": "sm90", "pattern": "1:4"}, "pattern: '1:4' has no compressed form on CUDA"),
        ({"layout": "sm90", "rescale": "variance"}, "rescale: 'variance' does not run on 16-bit values"),
    ):
        with pytest.raises(RuntimeError, match=message):
            silu_mul_prune(gate, up, **{"pattern": "2:4", **options})
    with pytest.raises(RuntimeError, match="K = 8 is not allowed; it must be a multiple of 16"):
        silu_mul_prune(gate[:, :8], up[:, :8], "2:4", layout="sm90")
    with pytest.raises(RuntimeError, match="float32 has no compressed form on CUDA"):
        silu_mul_prune(gate.float(), up.float(), "2:4", layout="sm90")
