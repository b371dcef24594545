"""Folding smoothing factors into the norm before a layer, so that they cost nothing at run time."""

from __future__ import annotations

import torch

from amber_ext.families import DECODER_LAYERS


def readers_of_norm(model: torch.nn.Module, norm_name: str) -> list[str] | None:
    """Names of the linears that alone read this norm's output, or None where that is not certain.

    Certain means: a decoder layer as one of `amber_ext.families`, with a norm whose output is proportional to its
    weight; and that nothing else is changed with it: norm and readers stand in the model once, and the weight is a
    parameter of the norm's own.
    """
    parent_name, _, attribute = norm_name.rpartition(".")
    children = dict(model.get_submodule(parent_name).named_children())
    for kind in DECODER_LAYERS:
        if children.keys() != kind.children or attribute not in kind.readers:
            continue
        block_name, readers = kind.readers[attribute]
        parts = {name for name, _ in children[block_name].named_children()}
        names = [f"{parent_name}.{block_name}.{reader}" for reader in sorted(readers)]
        if (
            readers <= parts <= readers | kind.other_parts
            and _is_proportional(children[attribute])
            and all(_stands_once(model, name) for name in (norm_name, *names))
            and owns_weight(model, children[attribute])
        ):
            return names
    return None


def _stands_once(model: torch.nn.Module, name: str) -> bool:
    """Whether the module has no other name: a layer that runs twice reads through both."""
    module = model.get_submodule(name)
    return sum(other is module for _, other in model.named_modules(remove_duplicate=False)) == 1


def owns_weight(model: torch.nn.Module, module: torch.nn.Module) -> bool:
    """Whether no other tensor of the model lies in the memory of the module's weight."""
    weight = module.weight
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    begin, end = _extent(weight)
    extents = [_extent(tensor) for _, tensor in tensors if tensor.device == weight.device and tensor.numel()]
    return sum(first < end and begin < last for first, last in extents) == 1


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first byte of a tensor in memory, and the one after its last."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * tensor.element_size()


def _is_proportional(norm: torch.nn.Module) -> bool:
    """Whether doubling the norm's weight doubles its output. Some norms multiply by 1 + weight."""
    weight = norm._parameters.get("weight")  # not one that is computed, by a parametrisation or a wrapper
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
