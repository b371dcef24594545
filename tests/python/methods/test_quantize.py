"""`quantize_`: what is quantised and pruned, in which phase, and what it reports."""

import copy

import pytest
import torch
from helpers import tiny_llama_config

from amber_ext import (
    AmberLinear,
    OutstandingSparseConfig,
    QuantizedLinear,
    channel_scale,
    decode,
    explain,
    linear_w8a8,
    prefill,
    quantize_,
    quantize_weight,
)


@pytest.mark.parametrize("direction, alpha", [("none", 0.5), ("smoothquant", 0.5), ("outstanding", 0.1)])
def test_w8a8_is_near_the_dense_model(tiny_llama, batches, direction, alpha):
    ids = batches[0]
    dense = tiny_llama(ids).logits
    report = quantize_(
        tiny_llama, OutstandingSparseConfig(targets=(), direction=direction, alpha=alpha), batches
    )
    assert all(row.quantized and not row.sparse for row in report.rows) and report.coverage == 0
    got = tiny_llama(ids).logits
    assert (got - dense).norm() < 0.03 * dense.norm()


@pytest.mark.parametrize("score", ["magnitude", "wanda", "robust_norm"])
def test_a_layer_is_what_it_says(score):
    torch.manual_seed(1)
    linear = torch.nn.Linear(64, 48)
    factor, x = torch.rand(64) + 0.5, torch.randn(7, 64)
    layer = QuantizedLinear.from_linear(linear, factor, score=score, pattern="4:8", rescale="variance")
    weight = linear.weight.detach() / factor
    scale = factor if score == "magnitude" else factor * channel_scale(weight, score)
    want = linear_w8a8(
        x,
        *quantize_weight(weight),
        linear.bias,
        pattern="4:8",
        scale=scale,
        smooth=factor,
        rescale="variance",
    )
    assert torch.equal(layer(x), want)
    with decode():
        assert torch.equal(layer(x), linear_w8a8(x, *quantize_weight(weight), linear.bias, smooth=factor))


def test_layers_keep_their_dtypes_when_the_model_changes_its_own():
    linear = torch.nn.Linear(32, 16)
    for dtype in ("int8", "e4m3"):
        layer = QuantizedLinear.from_linear(linear, torch.ones(32), dtype=dtype, pattern="2:4")
        before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        layer = copy.deepcopy(layer).to(torch.bfloat16)
        assert layer.bias.dtype == torch.bfloat16
        for name, buffer in layer.named_buffers():
            assert buffer.dtype == before[name].dtype, name
            assert torch.equal(buffer.float(), before[name].float()), name
        assert layer(torch.randn(2, 32).bfloat16()).dtype == torch.bfloat16


def _dense(layer, x):
    with decode():
        return type(layer).forward(layer, x)


def test_prefill_is_sparse_and_decode_is_dense_8_bit(tiny_llama, batches):
    quantize_(tiny_llama, OutstandingSparseConfig(), batches)
    ids = batches[0]
    with prefill():
        sparse = tiny_llama(ids).logits
    with decode():
        dense = tiny_llama(ids).logits
    assert torch.equal(tiny_llama(ids).logits, sparse)
    assert not torch.equal(sparse, dense)

    # In generate: the prompt's 24 tokens pruned, then each token densely, both in 8 bits.
    calls = []
    layer = tiny_llama.model.layers[0].mlp.down_proj
    original = layer.forward

    def forward(x):
        output = original(x)
        calls.append((x.shape[1], torch.equal(output, _dense(layer, x)), explain(layer, x).reason))
        return output

    layer.forward = forward
    tiny_llama.generate(ids[:1], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert [call[:2] for call in calls] == [(24, False)] + [(1, True)] * 3


def test_report(tiny_llama, batches):
    config = OutstandingSparseConfig(
        pattern="8:16", skip_layers={"q_proj": (0,)}, unquantized={"o_proj": "all", "gate_proj": (2,)}
    )
    before = sum(m.weight.nbytes for m in tiny_llama.modules() if isinstance(m, torch.nn.Linear))
    before -= tiny_llama.lm_head.weight.nbytes
    report = quantize_(tiny_llama, config, batches)
    rows = {row.name: row for row in report.rows}
    assert len(rows) == 28
    skipped = rows["model.layers.0.self_attn.q_proj"]
    assert skipped.quantized and not skipped.sparse and "skipped layer" in skipped.reason
    mixed = tiny_llama.model.layers[2].mlp.gate_proj
    assert isinstance(mixed, AmberLinear) and rows["model.layers.2.mlp.gate_proj"].sparse
    assert type(tiny_llama.model.layers[1].self_attn.o_proj) is torch.nn.Linear
    assert report.bytes_before == before
    after = 0
    for name in rows:
        module = tiny_llama.get_submodule(name)
        after += sum(t.nbytes for t in [*module.parameters(), *module.buffers()])
    assert report.bytes_after == after and report.bytes_saved == before - after
    assert report.to_dict()["rows"][0]["quantized"] is True
    assert f"{before:,} bytes became {after:,}" in str(report) and "pruned to 8:16 in prefill" in str(report)
    macs = {row.name: row.macs for row in report.rows}
    assert report.coverage == sum(macs[n] for n, r in rows.items() if r.sparse) / sum(macs.values())


def test_models_with_biases_and_other_norms():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    fields = tiny_llama_config().to_dict()
    model = Qwen2ForCausalLM(Qwen2Config(**{k: fields[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")})).eval()  # fmt: skip
    ids = torch.randint(3, 97, (2, 24))
    dense = model(ids).logits
    report = quantize_(model, OutstandingSparseConfig(targets=()), [ids])
    assert model.model.layers[0].self_attn.q_proj.bias is not None
    assert {row.smoothing for row in report.rows if row.projection == "q_proj"} == {
        f"model.layers.{i}.input_layernorm" for i in range(4)
    }
    assert (model(ids).logits - dense).norm() < 0.03 * dense.norm()
