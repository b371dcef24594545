"""Models and batches that the methods do not take: one line, and the model stays as it was."""

import pytest
import torch

from amber_ext import (
    AmberConfig,
    OutstandingSparseConfig,
    QuantizedLinear,
    densify_,
    plan,
    plan_for_cost,
    quantize_,
    sensitivity,
    sparsify_,
)

IDS = torch.randint(3, 97, (1, 16), generator=torch.Generator().manual_seed(0))


def calls(model, batches):
    """Every function that calibrates."""
    return [
        lambda: sensitivity(model, batches, AmberConfig()),
        lambda: plan(model, batches, skip=1),
        lambda: plan(model, batches, cost=0.8),
        lambda: plan_for_cost(model, batches, 0.8),
        lambda: quantize_(model, OutstandingSparseConfig(), batches),
    ]


# ---- batches


@pytest.mark.parametrize(
    "batches, message",
    [
        (IDS, r"batches: int64 \[1, 16\] is not allowed; it must be a list"),
        (IDS[0], r"batches: int64 \[16\] is not allowed; it must be a list"),
        ([IDS[0]], r"batches: a batch of int64 \[16\] is not allowed; .*ids\[None\]"),
        ([IDS[None]], r"batches: a batch of int64 \[1, 1, 16\] is not allowed"),
        ([IDS[:, :0]], r"batches: a batch of int64 \[1, 0\] is not allowed"),
        ([IDS, IDS.float()], r"batches: a batch of float32 \[1, 16\] is not allowed"),
        ([IDS.tolist()], "batches: a batch of list is not allowed"),
        ([{"input_ids": IDS}], "batches: a batch of dict is not allowed"),
        ({"input_ids": IDS}, "batches: dict is not allowed"),
        ("text", "batches: str is not allowed"),
        (3, "batches: int is not allowed"),
        ([], "batches: it is empty"),
    ],
)
def test_batches(tiny_llama, snapshot, batches, message):
    unchanged = snapshot(tiny_llama)
    for call in calls(tiny_llama, batches):
        with pytest.raises((TypeError, ValueError), match=message) as error:
            call()
        assert "\n" not in str(error.value)
    unchanged()


def test_a_loss_needs_two_tokens(tiny_llama):
    with pytest.raises(ValueError, match="batches: no sequence has the 2 tokens"):
        plan_for_cost(tiny_llama, [IDS[:, :1]], 0.8)


# ---- quantised models


def packed(model):
    """As GPTQ and AWQ have it."""
    layer = torch.nn.Module()
    layer.register_buffer("qweight", torch.zeros(8, 64, dtype=torch.int32))
    model.model.layers[0].mlp.up_proj = layer


def eight_bits(model):
    """As transformers' fp8 has it."""
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.data.to(torch.float8_e4m3fn), requires_grad=False)


def by_torch(model):
    layer = torch.ao.nn.quantized.dynamic.Linear(64, 160)
    model.model.layers[0].mlp.up_proj = layer


def by_us(model):
    config = OutstandingSparseConfig(
        direction="none", unquantized={name: "all" for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    )
    quantize_(model, config)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("quantise", [packed, eight_bits, by_torch, by_us])
def test_quantised_models(tiny_llama, quantise):
    quantise(tiny_llama)
    refused = [*calls(tiny_llama, [IDS]), lambda: sparsify_(tiny_llama, AmberConfig())]
    for call in [*refused, lambda: densify_(tiny_llama)]:
        with pytest.raises(
            ValueError, match="^model: LlamaForCausalLM is quantised .'model.layers.0.mlp."
        ) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_model_of_packed_layers_alone_is_quantised():
    layer = torch.nn.Module()
    layer.register_buffer("weight_packed", torch.zeros(8, 64, dtype=torch.int32))
    with pytest.raises(ValueError, match="model: Sequential is quantised .'0' is a Module"):
        sparsify_(torch.nn.Sequential(layer), AmberConfig())


# ---- weights that are read past their layers, and pasts that are no cache


def tiny(kind, **fields):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **fields)).eval()


MAMBA = {"state_size": 16, "time_step_rank": 16}
JAMBA = {
    "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "attn_layer_period": 2,
    "attn_layer_offset": 1, "num_experts": 1, "num_experts_per_tok": 1, "mamba_dt_rank": 16,
}  # fmt: skip


@pytest.mark.parametrize("kind, fields", [("mamba", MAMBA), ("falcon_mamba", MAMBA), ("jamba", JAMBA)])
@pytest.mark.parametrize("direction", ["none", "smoothquant"])
def test_weights_that_are_read_directly(kind, fields, direction, snapshot):
    model = tiny(kind, **fields)
    unchanged = snapshot(model)
    config = {"targets": (), "direction": direction}
    with pytest.raises(ValueError, match="reads the weight of '.*dt_proj' past that layer") as error:
        quantize_(model, OutstandingSparseConfig(**config), [IDS])
    assert "\n" not in str(error.value) and "unquantized={'dt_proj': 'all'}" in str(error.value)
    unchanged()
    with torch.inference_mode():
        before = model(IDS).logits
        quantize_(model, OutstandingSparseConfig(**config, unquantized={"dt_proj": "all"}), [IDS])
        after = model(IDS).logits
    assert 0 < (after - before).norm() < 0.2 * before.norm()


@pytest.mark.parametrize(
    "kind, fields",
    [
        # Its out_proj is read by a kernel for training alone.
        ("mamba2", {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1}),
        # Its dense is read with pretraining_tp > 1 alone.
        ("bloom", {"n_head": 4}),
        ("gpt_neox", {"num_attention_heads": 4, "intermediate_size": 128}),
    ],
)
def test_weights_that_are_not_read_directly(kind, fields):
    model = tiny(kind, **fields)
    quantize_(model, OutstandingSparseConfig(targets=(), direction="none"))
    assert any(isinstance(module, QuantizedLinear) for module in model.modules())
    assert model(IDS).logits.isfinite().all()


def test_a_weight_that_two_layers_share_is_not_read_past_them(tiny_llama):
    first, second = (layer.mlp for layer in tiny_llama.model.layers[:2])
    second.up_proj.weight = first.up_proj.weight
    quantize_(tiny_llama, OutstandingSparseConfig(targets=(), direction="none"))
    assert isinstance(second.up_proj, QuantizedLinear)


def test_looking_for_direct_reads_leaves_no_hook(tiny_llama, snapshot):
    from amber_ext.layers.sites import find_linears
    from amber_ext.methods.direct_reads import refuse_direct_reads

    unchanged = snapshot(tiny_llama)
    refuse_direct_reads(tiny_llama, find_linears(tiny_llama))
    unchanged()


def test_a_past_that_is_no_cache():
    model = tiny("rwkv", context_length=64)
    with pytest.raises(
        ValueError, match="RwkvForCausalLM caches, but its forward takes no cache or past_key_values"
    ) as e:
        sparsify_(model, AmberConfig(targets=("key",)))
    assert "\n" not in str(e.value) and "transformers version" not in str(e.value)
    assert "allowed are models that keep their past in one of these" in str(e.value)
