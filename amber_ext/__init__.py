"""amber_ext: cheaper LLM prefill by N:M activation pruning (Amber Pruner, arXiv 2508.02128)."""

from amber_ext import integrations
from amber_ext.amber_linear import AmberLinear
from amber_ext.checkpoint import load_quantized, save_quantized
from amber_ext.config import AmberConfig
from amber_ext.dispatch import linear, nm_mask, nm_prune
from amber_ext.dispatch_w8a8 import linear_w8a8, quantize_activations, quantize_weight
from amber_ext.explain import explain
from amber_ext.outstanding_config import OutstandingSparseConfig
from amber_ext.pattern import Pattern
from amber_ext.phase import decode, prefill
from amber_ext.planner import plan, plan_for_cost
from amber_ext.quantize import QuantizationReport, quantize_
from amber_ext.quantized_linear import QuantizedLinear
from amber_ext.scoring import channel_scale
from amber_ext.sensitivity import sensitivity
from amber_ext.sparsify import Report, densify_, sparsify_
from amber_ext.windows import widen_weight

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
    "quantize_",
    "quantize_activations",
    "quantize_weight",
    "save_quantized",
    "sensitivity",
    "sparsify_",
    "widen_weight",
]
