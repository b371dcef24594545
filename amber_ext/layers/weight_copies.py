"""Layers keep the weight's copies that windowed patterns need in one storage with the weight."""

from __future__ import annotations

import copy

import torch

from amber_ext.ops.pattern import Pattern, widen_weight


class WeightCopies(torch.nn.Module):
    """A mixin for layers with ``weight [N, K]`` and a ``pattern``.

    Where a sparse kernel may read it, ``wide_weight`` is `widen_weight`'s ``[N, K']`` and ``weight`` a view of
    its first K columns, so that the weight lies in memory once and its copies beside it. ``state_dict`` holds
    the plain weight; copies are made anew when the layer moves, is copied, or loads a ``state_dict``. Classes
    call `keep_copies` when they are made, and at the end of their ``_apply``.
    """

    pattern: Pattern
    wide_weight: torch.Tensor | None = None

    def wants_copies(self) -> bool:
        """Whether a sparse kernel may read copies of this layer's weight where it lies now."""
        raise NotImplementedError

    def keep_copies(self) -> None:
        """Makes, renews or drops the copies, as `wants_copies` says."""
        if self.wants_copies():
            if self.wide_weight is None or self.weight.data_ptr() != self.wide_weight.data_ptr():
                self.wide_weight = widen_weight(self.weight.detach(), self.pattern)
                self.weight.data = self.wide_weight[:, : self.weight.shape[1]]
        else:
            self.drop_copies()

    def drop_copies(self) -> None:
        """Gives the weight a storage of its own again."""
        if self.wide_weight is not None:
            self.weight.data = self.weight.data.contiguous()
            self.wide_weight = None

    @property
    def prefill_weight(self) -> torch.Tensor:
        """The weight with its copies, where there are any."""
        return self.weight if self.wide_weight is None else self.wide_weight

    @property
    def copies_bytes(self) -> int:
        """Memory that the copies take."""
        return 0 if self.wide_weight is None else self.wide_weight.nbytes - self.weight.nbytes

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self.wide_weight = None  # the copies are those of the old weight
        self.keep_copies()

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.wide_weight is not None and not keep_vars:
            destination[f"{prefix}weight"] = destination[f"{prefix}weight"].contiguous()

    def __deepcopy__(self, memo):
        # torch copies a view of a parameter without its storage: the copies would lose their weight.
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        state = {name: value for name, value in self.__dict__.items() if name != "wide_weight"}
        new.__dict__.update(copy.deepcopy(state, memo))
        new.keep_copies()
        return new
