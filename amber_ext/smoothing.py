"""SmoothQuant factors in both directions, and folding them into the norm before a layer.

``s_j = max|X_:j|^α / max|W_:j|^(1−α)``. SmoothQuant (arXiv 2211.10438) computes ``(X / s) (W · s)ᵀ``,
Outstanding-sparse (arXiv 2508.02128, section 3) the inverse, ``(X · s) (W / s)ᵀ``. Here both are one
factor f: activations are multiplied by f, weights divided by it.
"""

from __future__ import annotations

import torch

DIRECTIONS = ("none", "smoothquant", "outstanding")

# Bounds that keep products with the factor far from fp32's limits.
SMALLEST_FACTOR, LARGEST_FACTOR = 2.0**-40, 2.0**40

# What a Llama-type decoder layer looks like: which linears alone read each norm's output.
DECODER_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
NORM_READERS = {
    "input_layernorm": ("self_attn", {"q_proj", "k_proj", "v_proj"}),
    "post_attention_layernorm": ("mlp", {"gate_proj", "up_proj"}),
}
OTHER_PARTS = {"o_proj", "q_norm", "k_norm", "down_proj", "act_fn", "rotary_emb"}


def smoothing_factor(
    input_absmax: torch.Tensor, weight_absmax: torch.Tensor, direction: str, alpha: float
) -> torch.Tensor:
    """f of each channel, fp32 ``[K]``; 1 for channels whose activations or weights are all zero.

    Args:
        input_absmax: ``max|X_:j|`` over calibration tokens, fp32 ``[K]``.
        weight_absmax: ``max|W_:j|``, fp32 ``[K]``.
    """
    s = input_absmax.double() ** alpha / weight_absmax.double() ** (1.0 - alpha)
    factor = 1.0 / s if direction == "smoothquant" else s
    live = (input_absmax > 0) & (weight_absmax > 0)
    return torch.where(live, factor, 1.0).clamp(SMALLEST_FACTOR, LARGEST_FACTOR).float()


def readers_of_norm(model: torch.nn.Module, norm_name: str) -> list[str] | None:
    """Names of the linears that alone read this norm's output, or None where that is not certain.

    Certain means: a Llama-type decoder layer (Llama, Mistral, Qwen2, Qwen3), with a norm whose output
    is proportional to its weight.
    """
    parent_name, _, attribute = norm_name.rpartition(".")
    layer = model.get_submodule(parent_name)
    children = dict(layer.named_children())
    if attribute not in NORM_READERS or set(children) != DECODER_LAYER:
        return None
    block_name, readers = NORM_READERS[attribute]
    parts = {name for name, _ in children[block_name].named_children()}
    if not readers <= parts <= readers | OTHER_PARTS or not _is_proportional(children[attribute]):
        return None
    return [f"{parent_name}.{block_name}.{reader}" for reader in sorted(readers)]


def _is_proportional(norm: torch.nn.Module) -> bool:
    """Whether doubling the norm's weight doubles its output. Some norms multiply by 1 + weight."""
    weight = getattr(norm, "weight", None)
    if weight is None or getattr(norm, "bias", None) is not None or weight.is_meta:
        return False
    x = torch.linspace(-1.0, 1.0, len(weight), device=weight.device).to(weight.dtype)[None, None]
    with torch.no_grad():
        once = norm(x)
        twice = torch.func.functional_call(norm, {"weight": weight.detach() * 2}, (x,))
    return torch.equal(once * 2, twice)


def fold_into_norm(
    norm_weight: torch.Tensor, factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The norm's new weight, and the factor that it really applies once it is rounded to its dtype.

    Dividing the linears' weights by that factor makes the fold exact. None when the new weight overflows.
    """
    new = (norm_weight.detach().float() * factor).to(norm_weight.dtype)
    if not new.isfinite().all():
        return None
    applied = new.float() / norm_weight.detach().float()
    usable = applied.isfinite() & (applied > 0)
    # A weight of 0, or one that rounds to 0, stays: its channel is 0, or keeps its own size.
    new = torch.where(usable, new, norm_weight.detach())
    return new, torch.where(usable, applied, 1.0)
