"""`quantize_` is all or nothing: refusals, failures, and models that are changed already."""

import copy

import pytest
import torch

from amber_ext import (
    OutstandingSparseConfig,
    densify_,
    quantize_,
    sparsify_,
)


@pytest.mark.parametrize(
    "config, batches, message",
    [
        (OutstandingSparseConfig(), [], "batches: it is empty"),
        (OutstandingSparseConfig(), None, "batches: None is not allowed; direction 'smoothquant' needs"),
        (OutstandingSparseConfig(targets=("x_proj",)), [], "targets: 'x_proj' is not in this model"),
        (OutstandingSparseConfig(skip_layers={"q_proj": (9,)}), [], "skip_layers: q_proj layer 9"),
        (
            OutstandingSparseConfig(unquantized={"x_proj": (0,)}),
            [],
            "unquantized: 'x_proj' is not in this model",
        ),
        (OutstandingSparseConfig(unquantized={"q_proj": (7,)}), [], "unquantized: q_proj layer 7 is not"),
    ],
)
def test_refusals_leave_the_model_as_it_was(tiny_llama, snapshot, config, batches, message):
    unchanged = snapshot(tiny_llama)
    with pytest.raises(ValueError, match=message):
        quantize_(tiny_llama, config, batches)
    unchanged()


def test_a_failure_in_the_last_layer_leaves_the_model_as_it_was(tiny_llama):
    with torch.no_grad():
        tiny_llama.model.layers[3].mlp.down_proj.weight[0, 0] = torch.nan
    modules = dict(tiny_llama.named_modules())
    weights = {name: tensor.clone() for name, tensor in tiny_llama.state_dict().items()}
    with pytest.raises(ValueError, match=r"layer 'model.layers.3.mlp.down_proj': weight: it contains NaN"):
        quantize_(tiny_llama, OutstandingSparseConfig(direction="none"))
    assert all(module is modules[name] for name, module in tiny_llama.named_modules())
    now = tiny_llama.state_dict()
    assert now.keys() == weights.keys()
    assert all(torch.equal(now[k].nan_to_num(7), weights[k].nan_to_num(7)) for k in weights)


def test_activations_with_nan_are_refused_by_name(tiny_llama, batches):
    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.up_proj.weight[0, 0] = torch.inf
    with pytest.raises(
        ValueError, match="the input of the layer 'model.layers.1.mlp.down_proj' has NaN or Inf"
    ):
        quantize_(tiny_llama, OutstandingSparseConfig(), batches)


def test_a_quantised_model_is_not_quantised_or_densified_again(tiny_llama, batches):
    quantize_(tiny_llama, OutstandingSparseConfig(), batches)
    with pytest.raises(ValueError, match="model: LlamaForCausalLM is quantised"):
        quantize_(tiny_llama, OutstandingSparseConfig(), batches)
    with pytest.raises(ValueError, match="is quantised .*, which cannot be undone"):
        densify_(tiny_llama)


def test_a_sparsified_model_is_taken_as_dense(tiny_llama, batches):
    other = copy.deepcopy(tiny_llama)
    sparsify_(tiny_llama, OutstandingSparseConfig(pattern="4:8"))
    config = OutstandingSparseConfig(pattern="2:4")
    quantize_(tiny_llama, config, batches)
    quantize_(other, config, batches)
    assert torch.equal(tiny_llama(batches[0]).logits, other(batches[0]).logits)


def test_fused_experts_stay_as_they_are(tiny_qwen3_moe, batches):
    report = quantize_(tiny_qwen3_moe, OutstandingSparseConfig(targets=("q_proj", "down_proj")), batches)
    experts = [row for row in report.rows if ".experts." in row.name]
    assert experts and not any(row.quantized or row.sparse for row in experts)
    assert {row.reason for row in experts} == {"fused experts are neither quantised nor pruned"}
    assert tiny_qwen3_moe(batches[0]).logits.isfinite().all()
