"""What layers derive from their weight, and that it follows when the weight changes: scores, and copies of its columns.

The copies are those that windowed patterns need; they lie in one storage with the weight.
"""

from __future__ import annotations

import copy

import torch

from amber_ext.layers.planned import Planned
from amber_ext.layers.sharding import is_sharded
from amber_ext.ops.choice.products import wants_copies
from amber_ext.ops.derived import forget, is_current, mark, renew_copies, storage_of
from amber_ext.ops.pattern import widen_weight


class WeightCopies(Planned):
    """A mixin for layers with ``weight [N, K]`` and a ``pattern``.

    Where a sparse kernel may read it, ``wide_weight`` is `widen_weight`'s ``[N, K']`` and ``weight`` a view of
    its first K columns, so that the weight lies in memory once and its copies beside it. ``state_dict`` holds
    the plain weight; copies are made anew when the layer moves, is copied, or loads a ``state_dict``. Classes
    call `keep_copies` when they are made, and at the end of their ``_apply``. It makes their plans, too (`Planned`).

    Before each prefill `derived` looks whether the weight is still that which scores and copies were made from.
    """

    in_features: int
    out_features: int
    score: str | None = None  # that the channel scale is computed by; None where it is not this weight's
    channel_scale: torch.Tensor | None
    wide_weight: torch.Tensor | None = None

    def wants_copies(self) -> bool:
        """Whether a sparse kernel will read copies of this layer's weight where it lies now."""
        weight = self.weight
        if is_sharded(weight) or weight.dim() != 2:
            return False
        return any(wants_copies(*self.prefill_key(dtype)) for dtype in self.input_dtypes())

    def keep_copies(self) -> None:
        """Makes, renews or drops the copies, as `wants_copies` says, and makes the plans."""
        self._fit_copies()
        self.make_plans()

    def _fit_copies(self) -> None:
        if not self.wants_copies():
            self.drop_copies()
        elif self._lie_together():
            renew_copies(self.wide_weight, self.weight, self.pattern)
        else:
            wide = widen_weight(self.weight.detach(), self.pattern)
            self._move_weight(wide[:, : self.weight.shape[1]])
            mark(wide, self.weight)
            self.wide_weight = wide

    def _lie_together(self) -> bool:
        return self.wide_weight is not None and storage_of(self.weight) == storage_of(self.wide_weight)

    def drop_copies(self) -> None:
        """Gives the weight a storage of its own again."""
        if self.wide_weight is not None:
            self._move_weight(self.weight.data.contiguous())
            self.wide_weight = None

    def _move_weight(self, data: torch.Tensor) -> None:
        scale = self.channel_scale
        moves = scale is not None and is_current(scale, self.weight)
        self.weight.data = data
        if moves:
            mark(scale, self.weight)

    def is_current(self, weight: torch.Tensor, scale: torch.Tensor | None) -> bool:
        """Whether the copies, and the scores where they come from this weight, are those of the weight as it is now."""
        return self.wide_weight is None or is_current(self.wide_weight, weight)

    def forget(self) -> None:
        """Says that it is not known any more what the scores and copies were made from."""
        forget(self._buffers.get("channel_scale"))
        forget(self.wide_weight)

    def renew(self) -> None:
        """Makes anew what is not current."""
        if self._lie_together():
            renew_copies(self.wide_weight, self.weight, self.pattern)
        else:
            self.keep_copies()

    def derived(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight as prefill reads it, and its channel scale; made anew where the weight has changed.

        Raises:
            ValueError, TypeError: the weight has changed, and there are no scores of what it is now (`channel_scale`).
            RuntimeError: the shard of the weight that this process holds has changed.
        """
        weight, scale = self.weight, self.channel_scale
        if torch.compiler.is_compiling():
            return self.prefill_weight, self._scale_when_compiled(weight, scale)
        if not self.is_current(weight, scale) and not weight.is_meta and not self._is_offloaded():
            if not self._is_whole(weight):
                raise RuntimeError(
                    "weight: the shard that this process holds has changed since its scores were computed; they need the "
                    "whole weight: call amber_ext.refresh_(model) in every process"
                )
            self.renew()
            return self.prefill_weight, self.channel_scale
        return weight if self.wide_weight is None else self.wide_weight, scale

    def _is_whole(self, weight: torch.Tensor) -> bool:
        return not is_sharded(weight) and tuple(weight.shape) == (self.out_features, self.in_features)

    def _is_offloaded(self) -> bool:
        """Whether accelerate brings the weight in for every call: a new tensor of the same values each time."""
        hook = self.__dict__.get("_hf_hook")
        hooks = getattr(hook, "hooks", (hook,))
        return self.channel_scale is not None and any(getattr(hook, "offload", False) for hook in hooks)

    def _scale_when_compiled(self, weight: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor | None:
        derives = scale is not None or self.wide_weight is not None
        if not derives or weight.is_meta or not self._is_whole(weight):
            return scale
        return torch.ops.amber.current_scale(weight, scale, self.wide_weight, self.score, str(self.pattern))

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
        if self._known()[0]:
            mark(new.channel_scale, new.weight)
        new.keep_copies()
        return new

    def __getstate__(self):
        # Plans are for the GPUs of this machine.
        state = {name: value for name, value in self.__dict__.items() if name != "plans"}
        return {**state, "_known_current": self._known()}

    def __setstate__(self, state):
        state = dict(state)
        known = state.pop("_known_current", (False, False))
        super().__setstate__(state)
        self.make_plans()
        for tensor, current in zip(
            (self._buffers.get("channel_scale"), self.wide_weight), known, strict=True
        ):
            if current:
                mark(tensor, self.weight)

    def _known(self) -> tuple[bool, bool]:
        """Whether the channel scale and the copies are known to be those of the weight: a copy of the layer takes it over."""
        tensors = (self._buffers.get("channel_scale"), self.wide_weight)
        return tuple(tensor is not None and is_current(tensor, self.weight) for tensor in tensors)


def _forget_when_placed(parent: torch.nn.Module, name: str, child: torch.nn.Module | None) -> None:
    """peft merges adapters into ``weight.data``, which nothing shows, and then puts the layer back into its place."""
    if isinstance(child, WeightCopies):
        child.forget()


torch.nn.modules.module.register_module_module_registration_hook(_forget_when_placed)
