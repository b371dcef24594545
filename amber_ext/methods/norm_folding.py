"""Folding smoothing factors into the norm before a layer, so that they cost nothing at run time."""

from __future__ import annotations

import torch

from amber_ext.families import DECODER_LAYERS


def readers_of_norm(model: torch.nn.Module, norm_name: str) -> list[str] | None:
    """Names of the linears that alone read this norm's output, or None where that is not certain.

    Certain means: a decoder layer as one of `amber_ext.families`, with a norm whose output is proportional to its
    weight.
    """
    parent_name, _, attribute = norm_name.rpartition(".")
    children = dict(model.get_submodule(parent_name).named_children())
    for kind in DECODER_LAYERS:
        if children.keys() != kind.children or attribute not in kind.readers:
            continue
        block_name, readers = kind.readers[attribute]
        parts = {name for name, _ in children[block_name].named_children()}
        if readers <= parts <= readers | kind.other_parts and _is_proportional(children[attribute]):
            return [f"{parent_name}.{block_name}.{reader}" for reader in sorted(readers)]
    return None


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
