"""What is computed from a weight, its channel scale and the copies of its columns, and whether it still belongs to it.

For each derived tensor the state of its weight is kept: which tensor that was, its version counter and its storage.
Comparing them reads no values, so nothing waits for a GPU. What none of them shows is in docs/integrations.md.
"""

from __future__ import annotations

import weakref

import torch
from torch.distributed.tensor import DTensor
from torch.utils.weak import WeakTensorKeyDictionary

from amber_ext.ops.pattern import Pattern, widen_weight
from amber_ext.ops.scores import selection_scale

# Derived tensor to the state of its weight. Not on the tensor: it would be pickled with it.
_states = WeakTensorKeyDictionary()


def mark(derived: torch.Tensor, weight: torch.Tensor) -> None:
    """Says that ``derived`` was computed from ``weight`` as it is now."""
    _states[derived] = _WeightState(weight)


def forget(derived: torch.Tensor | None) -> None:
    """Says that it is not known any more which weight ``derived`` was computed from."""
    if derived is not None:
        _states.pop(derived, None)


def is_current(derived: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether ``derived`` was computed from ``weight``, and nothing is known to have changed it since."""
    state = _states.get(derived)
    return state is not None and state.is_of(weight)


def renewed_scale(scale: torch.Tensor | None, weight: torch.Tensor, score: str) -> torch.Tensor | None:
    """``scale`` where it is current, else the channel scale of ``weight``, in the memory of ``scale`` where that fits.

    Args:
        scale: the last one, fp32 ``[K]``, or None.
        weight: ``[N, K]``, whole, with values.

    Returns:
        fp32 ``[K]``; None where the score needs none.

    Raises:
        ValueError, TypeError: of `channel_scale`.
    """
    if scale is not None and is_current(scale, weight):
        return scale
    with torch.inference_mode(False), torch.no_grad():
        new = selection_scale(weight, score)
        return None if new is None else keep_scale(scale, new, weight)


def keep_scale(scale: torch.Tensor | None, new: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``new``, marked as that of ``weight``; in the memory of ``scale`` where it fits, for CUDA graphs read it there."""
    fits = scale is not None and scale.shape == new.shape and scale.device == new.device
    if fits and not scale.is_inference():
        new = scale.copy_(new)
    mark(new, weight)
    return new


def renew_copies(wide: torch.Tensor, weight: torch.Tensor, pattern: Pattern) -> None:
    """Makes `widen_weight`'s result that of ``weight`` again, in place, where it is not current."""
    if not is_current(wide, weight):
        with torch.inference_mode(wide.is_inference()), torch.no_grad():
            # The weight usually is a view of the first K columns: those are written with what they hold.
            wide.copy_(widen_weight(weight.detach(), pattern))
        mark(wide, weight)


class _WeightState:
    """A weight and the state it is in, without keeping it alive."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weakref.ref(weight)
        self.version, self.storage = _version(weight), storage_of(weight)

    def is_of(self, weight: torch.Tensor) -> bool:
        recorded = self.weight()
        if recorded is None or (recorded is not weight and not _stands_for(weight, recorded)):
            return False
        return self.version == _version(recorded) and self.storage == storage_of(recorded)


def _stands_for(shard: torch.Tensor, weight: torch.Tensor) -> bool:
    """While a layer runs, tensor parallelism puts this process's shard in the place of its weight."""
    return isinstance(weight, DTensor) and storage_of(shard) == storage_of(weight)


def _version(weight: torch.Tensor) -> int | None:
    # Tensors made in inference mode count no versions.
    return None if weight.is_inference() else weight._version


def storage_of(weight: torch.Tensor) -> int:
    """Which storage a tensor, or this process's shard of it, lies in; it stays the same when that is resized."""
    # The common type first: asking whether a tensor is a DTensor takes longest.
    plain = type(weight) is torch.nn.Parameter or not isinstance(weight, DTensor)
    return (weight if plain else weight._local_tensor).untyped_storage()._cdata


# ---- compiled code: one opaque op looks at the weight when the graph runs, so that nothing is traced or guarded.
# Where the weight has changed it writes to ``scale`` and ``wide``, which its schema does not say: they are caches, which
# the product reads after it, by way of its result. Said, compilers would copy them and take no CUDA graphs.

_library = torch.library.Library("amber", "FRAGMENT")
_library.define(
    "current_scale(Tensor weight, Tensor? scale, Tensor? wide, str? score, str pattern) -> Tensor"
)


def _current_scale(weight, scale, wide, score, pattern):
    if score is not None:
        scale = renewed_scale(scale, weight, score)
    if wide is not None:
        renew_copies(wide, weight, Pattern(pattern))
    # A copy, as an op may not return what it got.
    return torch.ones(weight.shape[1], device=weight.device) if scale is None else scale.clone()


_library.impl("current_scale", _current_scale, "CompositeExplicitAutograd")


@torch.library.register_fake("amber::current_scale")
def _(weight, scale, wide, score, pattern):
    return torch.empty(weight.shape[1], dtype=torch.float32, device=weight.device)
