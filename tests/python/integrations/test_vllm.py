"""The vLLM plugin against vLLM's own classes, on the CPU: layers, loading, phases of a mixed batch, refusals."""

import importlib.util
import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from amber_ext import AmberConfig, OutstandingSparseConfig, channel_scale
from amber_ext.integrations.transformers import AmberQuantConfig
from amber_ext.ops.reference import nm_prune

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")

from vllm.config import VllmConfig, set_current_vllm_config  # noqa: E402
from vllm.forward_context import override_forward_context  # noqa: E402
from vllm.model_executor.layers.linear import (  # noqa: E402
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
    UnquantizedLinearMethod,
)
from vllm.model_executor.layers.quantization import get_quantization_config  # noqa: E402

from amber_ext.integrations import vllm as plugin  # noqa: E402

CONFIG = AmberConfig(
    pattern="8:16",
    rescale="variance",
    skip_layers={"gate_proj": (1,)},
    layer_patterns={"down_proj": {"2:4": (0,)}},
)
PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


@pytest.fixture(scope="module", autouse=True)
def one_process():
    from vllm.distributed import init_distributed_environment, initialize_model_parallel

    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(
            world_size=1,
            rank=0,
            local_rank=0,
            distributed_init_method="tcp://127.0.0.1:29611",
            backend="gloo",
        )
        initialize_model_parallel(1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def vllm_config():
    config = VllmConfig()
    config.model_config = SimpleNamespace(enforce_eager=True)
    with set_current_vllm_config(config):
        yield config


@pytest.fixture
def quantization():
    """As vLLM makes it from a model folder's config.json."""
    plugin.register()
    plugin.register()
    config = get_quantization_config("amber_ext").from_config(AmberQuantConfig(CONFIG).to_dict())
    config.packed_modules_mapping = PACKED
    return config


def layer(kind, prefix, quantization):
    torch.manual_seed(0)
    options = {"bias": True, "params_dtype": torch.float32, "quant_config": quantization, "prefix": prefix}
    made = {
        "qkv": lambda: QKVParallelLinear(64, 16, 4, 2, **options),
        "gate_up": lambda: MergedColumnParallelLinear(64, [160, 160], **options),
        "down": lambda: RowParallelLinear(160, 64, **options),
    }[kind]()
    with torch.no_grad():
        made.weight.copy_(torch.randn(made.weight.shape))
        made.bias.copy_(torch.randn(made.bias.shape))
    made.quant_method.process_weights_after_loading(made)
    return made


def expected(made, x, widths, patterns, rows=None):
    """Part by part, with the reference."""
    rows = torch.ones(len(x), dtype=torch.bool) if rows is None else rows
    outputs = []
    for weight, bias, pattern in zip(
        made.weight.split(widths), made.bias.split(widths), patterns, strict=True
    ):
        used = x.clone()
        if pattern is not None:
            scale = channel_scale(weight, CONFIG.score)
            used[rows] = nm_prune(x, plugin.Pattern(pattern), scale, CONFIG.rescale)[rows]
        outputs.append(F.linear(used, weight, bias))
    return torch.cat(outputs, -1)


CASES = [
    ("qkv", "model.layers.0.self_attn.qkv_proj", [64, 32, 32], ["8:16", None, None]),
    ("gate_up", "model.layers.0.mlp.gate_up_proj", [160, 160], ["8:16", None]),
    ("down", "model.layers.0.mlp.down_proj", [64], ["2:4"]),
    ("down", "model.layers.1.mlp.down_proj", [64], ["8:16"]),
]


@pytest.mark.parametrize("kind, prefix, widths, patterns", CASES)
def test_parts_are_pruned_as_the_configuration_says(
    vllm_config, quantization, kind, prefix, widths, patterns
):
    made = layer(kind, prefix, quantization)
    assert isinstance(made.quant_method, plugin.AmberVllmMethod)
    x = torch.randn(7, made.input_size)
    output = made(x)
    output = output[0] if isinstance(output, tuple) else output
    torch.testing.assert_close(output, expected(made, x, widths, patterns), rtol=1e-4, atol=1e-4)


def test_layers_without_a_pruned_part_are_vllms(vllm_config, quantization):
    made = layer("gate_up", "model.layers.1.mlp.gate_up_proj", quantization)
    assert type(made.quant_method) is UnquantizedLinearMethod
    assert quantization.get_quant_method(torch.nn.Identity(), "model.norm") is None


def batch(starts, lengths):
    metadata = SimpleNamespace(
        query_start_loc=torch.tensor(starts, dtype=torch.int32),
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
    )
    return override_forward_context(
        SimpleNamespace(attn_metadata={"model.layers.0.self_attn.attn": metadata})
    )


@pytest.mark.parametrize("kind, prefix, widths, patterns", CASES[:3])
def test_a_mixed_batch(vllm_config, quantization, kind, prefix, widths, patterns):
    """A decode, a whole prompt, a later chunk of another, a prompt of one token, and two rows of padding."""
    made = layer(kind, prefix, quantization)
    x = torch.randn(11, made.input_size)
    rows = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0], dtype=torch.bool)
    drafted = torch.tensor([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0], dtype=torch.bool)  # the chunk may be drafts
    with batch([0, 1, 5, 8, 9], [30, 4, 12, 1]):
        assert torch.equal(plugin.prefill_rows(11, x.device), rows)
        assert torch.equal(plugin.prefill_rows(11, x.device, "dense"), drafted)
        output = made(x)
    output = output[0] if isinstance(output, tuple) else output
    torch.testing.assert_close(output, expected(made, x, widths, patterns, rows), rtol=1e-4, atol=1e-4)


def test_an_attention_backend_that_does_not_tell(vllm_config):
    with (
        override_forward_context(SimpleNamespace(attn_metadata={"a": SimpleNamespace()})),
        pytest.raises(RuntimeError, match="attention backend: SimpleNamespace has no query_start_loc"),
    ):
        plugin.prefill_rows(3, torch.device("cpu"))
    with override_forward_context(SimpleNamespace(attn_metadata=None)):
        assert plugin.prefill_rows(3, torch.device("cpu")) is None


def test_refuses(vllm_config, quantization, monkeypatch):
    with pytest.raises(ValueError, match="kind 'quantized' cannot be served by vLLM"):
        plugin.AmberVllmConfig.from_config(AmberQuantConfig(OutstandingSparseConfig()).to_dict())
    monkeypatch.setattr(plugin, "get_tensor_model_parallel_world_size", lambda: 2)
    with pytest.raises(ValueError, match="tensor_parallel_size: 2 is not allowed"):
        layer("down", "model.layers.0.mlp.down_proj", quantization)
    vllm_config.model_config.enforce_eager = False
    with pytest.raises(ValueError, match="enforce_eager: False is not allowed"):
        layer("down", "model.layers.0.mlp.down_proj", quantization)


def test_the_entry_point_is_found():
    from importlib.metadata import entry_points

    (point,) = [p for p in entry_points(group="vllm.general_plugins") if p.name == "amber_ext"]
    assert point.load() is plugin.register
