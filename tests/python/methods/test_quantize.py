"""`quantize_`: calibration, smoothing, folding, what is quantised and pruned, phases, all or nothing."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_llama_config

from amber_ext import (
    AmberLinear,
    OutstandingSparseConfig,
    QuantizedLinear,
    channel_scale,
    decode,
    densify_,
    explain,
    linear_w8a8,
    prefill,
    quantize_,
    quantize_weight,
    sparsify_,
)
from amber_ext.layers.sites import find_linears
from amber_ext.methods.calibration import calibrate
from amber_ext.methods.norm_folding import fold_into_norm, readers_of_norm
from amber_ext.ops.quantization import smoothing_factor


@pytest.fixture
def batches():
    torch.manual_seed(11)
    return [torch.randint(3, 97, (2, 24)) for _ in range(3)]


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


def test_prefill_is_sparse_and_decode_is_dense_8_bit(tiny_llama, batches):
    quantize_(tiny_llama, OutstandingSparseConfig(), batches)
    ids = batches[0]
    with prefill():
        sparse = tiny_llama(ids).logits
    with decode():
        dense = tiny_llama(ids).logits
    assert torch.equal(tiny_llama(ids).logits, sparse)
    assert not torch.equal(sparse, dense)

    calls = []
    layer = tiny_llama.model.layers[0].mlp.down_proj
    layer.register_forward_pre_hook(lambda m, a: calls.append((a[0].shape[1], explain(m, a[0]).backend)))
    original = layer.forward
    kinds = []
    layer.forward = lambda x: (kinds.append(torch.equal(original(x), _dense(layer, x))), original(x))[1]
    tiny_llama.generate(ids[:1], max_new_tokens=4, do_sample=False)
    assert kinds == [False, True, True, True]


def _dense(layer, x):
    with decode():
        return type(layer).forward(layer, x)


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
    assert "24,320" not in str(report) and "pruned to 8:16 in prefill" in str(report)
    macs = {row.name: row.macs for row in report.rows}
    assert report.coverage == sum(macs[n] for n, r in rows.items() if r.sparse) / sum(macs.values())


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


def test_a_failure_in_the_last_layer_leaves_the_model_as_it_was(tiny_llama, batches, snapshot):
    with torch.no_grad():
        tiny_llama.model.layers[3].mlp.down_proj.weight[0, 0] = torch.nan
    logits = tiny_llama.model.layers[0].self_attn.q_proj.weight.clone()
    with pytest.raises(ValueError, match=r"layer 'model.layers.3.mlp.down_proj': weight: it contains NaN"):
        quantize_(tiny_llama, OutstandingSparseConfig(direction="none"))
    assert not any(isinstance(m, QuantizedLinear) for m in tiny_llama.modules())
    assert torch.equal(tiny_llama.model.layers[0].self_attn.q_proj.weight, logits)


def test_activations_with_nan_are_refused_by_name(tiny_llama, batches):
    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.up_proj.weight[0, 0] = torch.inf
    with pytest.raises(
        ValueError, match="the input of the layer 'model.layers.1.mlp.down_proj' has NaN or Inf"
    ):
        quantize_(tiny_llama, OutstandingSparseConfig(), batches)


def test_a_quantised_model_is_not_quantised_or_densified_again(tiny_llama, batches):
    quantize_(tiny_llama, OutstandingSparseConfig(), batches)
    with pytest.raises(ValueError, match="model: it is quantised already"):
        quantize_(tiny_llama, OutstandingSparseConfig(), batches)
    with pytest.raises(ValueError, match="model: it was quantised, which cannot be undone"):
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
