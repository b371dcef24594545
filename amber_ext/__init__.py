"""amber_ext: cheaper LLM prefill by N:M activation pruning (Amber Pruner, arXiv 2508.02128)."""

from amber_ext import integrations
from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.integrations.saving import save_quantized
from amber_ext.layers.explain import explain
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.methods.prune_quantized import prune_quantized_
from amber_ext.methods.quantize import quantize_
from amber_ext.methods.refresh import refresh_
from amber_ext.methods.report import Report
from amber_ext.methods.sparsify import densify_, sparsify_
from amber_ext.models import load_quantized
from amber_ext.ops.functional import linear, linear_w8a8, nm_mask, nm_prune
from amber_ext.ops.pattern import Pattern, widen_weight
from amber_ext.ops.quantization import quantize_activations, quantize_weight
from amber_ext.ops.scores import channel_scale
from amber_ext.phase import decode, prefill
from amber_ext.planning.planner import plan, plan_for_cost
from amber_ext.planning.sensitivity import sensitivity
from amber_ext.tuning.tune import tune

# The name that quantize_'s report had before there was one for both.
QuantizationReport = Report

integrations.register()

__all__ = [
    "AmberConfig",
    "AmberLinear",
    "OutstandingSparseConfig",
    "Pattern",
    "QuantizationReport",
    "QuantizedLinear",
    "Report",
    "channel_scale",
    "decode",
    "densify_",
    "explain",
    "linear",
    "linear_w8a8",
    "load_quantized",
    "nm_mask",
    "nm_prune",
    "plan",
    "plan_for_cost",
    "prefill",
    "prune_quantized_",
    "quantize_",
    "quantize_activations",
    "quantize_weight",
    "refresh_",
    "save_quantized",
    "sensitivity",
    "sparsify_",
    "tune",
    "widen_weight",
]

# Names that need transformers, which amber_ext itself does not.
_WITH_TRANSFORMERS = ("AmberQuantConfig", "attach_config")


def __getattr__(name: str) -> object:
    if name in _WITH_TRANSFORMERS:
        from amber_ext.integrations import transformers

        return getattr(transformers, name)
    raise AttributeError(f"module 'amber_ext' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WITH_TRANSFORMERS])
