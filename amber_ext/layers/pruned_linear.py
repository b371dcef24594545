"""`AmberLinear`: a linear layer whose input is pruned to N:M in prefill."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amber_ext.layers.recast import recast
from amber_ext.layers.sharding import check_sharding, is_sharded, sharded_channel_scale
from amber_ext.layers.weight_copies import WeightCopies
from amber_ext.ops import functional
from amber_ext.ops.backends import BACKENDS
from amber_ext.ops.checks import RESCALES, one_of
from amber_ext.ops.derived import is_current, keep_scale, mark, storage_of
from amber_ext.ops.pattern import Pattern
from amber_ext.ops.scores import needs_scale
from amber_ext.phase import by_phase


class AmberLinear(WeightCopies, torch.nn.Linear):
    """An ``nn.Linear`` that prunes its input in prefill and runs dense in decode.

    It has the weights and ``state_dict`` keys of the ``nn.Linear`` it was made from, and shares its
    parameters. The channel scale lies in the non-persistent fp32 buffer ``channel_scale`` (None for
    the score ``"magnitude"``). It is that of the weight in the dtype that it has: computed again when a
    ``state_dict`` is loaded, and before the next prefill when the weight was edited, replaced or cast.

    Make one with `from_linear`; undo with `to_linear`.
    """

    pattern: Pattern
    score: str
    rescale: str
    backend: str
    channel_scale: torch.Tensor | None

    @classmethod
    def from_linear(
        cls,
        linear: torch.nn.Linear,
        pattern: str | Pattern,
        score: str = "robust_norm",
        rescale: str = "none",
        backend: str = "auto",
        allow_unpruned: bool = False,
    ) -> AmberLinear:
        """A pruned layer over the same parameters, hooks and mode as ``linear``, which stays as it was.

        Args:
            allow_unpruned: of `linear`.

        Raises:
            ValueError, TypeError: an argument or the weight is not allowed (see `channel_scale`).
        """
        pattern = Pattern(pattern)
        one_of("rescale", rescale, RESCALES)
        one_of("backend", backend, BACKENDS)
        if linear.in_features % pattern.m != 0:
            raise ValueError(f"in_features: K = {linear.in_features} is not a multiple of M = {pattern.m}")
        layer = recast(linear, cls)
        layer.pattern, layer.score, layer.rescale, layer.backend = pattern, score, rescale, backend
        layer.allow_unpruned = allow_unpruned
        layer.register_buffer("channel_scale", None, persistent=False)
        layer.compute_channel_scale()
        layer.keep_copies()
        return layer

    def to_linear(self) -> torch.nn.Linear:
        """A dense ``nn.Linear`` over the same parameters."""
        if self.wide_weight is not None:
            # This layer keeps its copies: should what replaces it fail, it still runs.
            self.weight.data = self.weight.data.contiguous()
        layer = recast(self, torch.nn.Linear)
        for name in ("pattern", "score", "rescale", "backend", "allow_unpruned", "plans", "wide_weight"):
            layer.__dict__.pop(name, None)
        del layer.channel_scale
        layer._non_persistent_buffers_set.discard("channel_scale")
        return layer

    def compute_channel_scale(self) -> None:
        """Fills ``channel_scale`` from the present weight; a meta weight leaves it for later.

        Raises:
            ValueError: the weight is not finite, or is sharded so that tokens cannot be pruned shard by shard.
        """
        check_sharding(self.weight, self.pattern, self.rescale)
        if not needs_scale(self.score) or self.weight.is_meta:
            self.channel_scale = None
            return
        with torch.inference_mode(False), torch.no_grad():
            scale = sharded_channel_scale(self.weight, self.score)
            self.channel_scale = keep_scale(self.channel_scale, scale, self.weight)

    def is_current(self, weight: torch.Tensor, scale: torch.Tensor | None) -> bool:
        """See `WeightCopies`."""
        known = not needs_scale(self.score) if scale is None else is_current(scale, weight)
        return known and super().is_current(weight, scale)

    def renew(self) -> None:
        """See `WeightCopies`."""
        self.compute_channel_scale()
        super().renew()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x ``[..., K]`` to ``[..., N]``; sparse in prefill, dense in decode (`amber_ext.phase`)."""
        return by_phase(self._prefill, self._decode, x)

    def _prefill(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, **self.call_arguments(x))

    def _decode(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)

    def call_arguments(self, x: torch.Tensor) -> dict[str, object]:
        """What `linear` gets with x in prefill."""
        return self.with_plan(x.dtype, self._arguments(*self.derived()))

    def products(self) -> list[dict[str, object]]:
        """See `Planned`."""
        return [self._arguments(self.prefill_weight, None)]

    def input_dtypes(self) -> tuple[torch.dtype, ...]:
        """See `Planned`. `linear` takes no other than the weight's."""
        return (self.weight.dtype,)

    def _arguments(self, weight: torch.Tensor, scale: torch.Tensor | None) -> dict[str, object]:
        return {
            "weight": weight,
            "bias": self.bias,
            "pattern": self.pattern,
            "scale": scale,
            "rescale": self.rescale,
            "backend": self.backend,
            "allow_unpruned": self.allow_unpruned,
        }

    @property
    def extra_bytes(self) -> int:
        """Memory beyond that of the dense layer."""
        return self.copies_bytes + (0 if self.channel_scale is None else self.channel_scale.nbytes)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pattern={self.pattern}, score={self.score}, rescale={self.rescale}"

    def _apply(self, fn, recurse=True):
        scale, before = self.channel_scale, self.weight
        current = scale is not None and is_current(scale, before)
        dtype, device, storage = (
            before.dtype,
            before.device,
            None if is_sharded(before) else storage_of(before),
        )
        self.forget()  # torch does not swap the contents of tensors that something refers to weakly
        super()._apply(fn, recurse)
        if scale is not None and self.channel_scale.dtype != torch.float32:
            # model.to(bfloat16) and .half() cast every floating buffer; c stays fp32 (docs/design.md).
            self.channel_scale = scale.to(self.channel_scale.device)
        weight = self.weight
        # A move keeps the values; a cast does not, and neither may another function.
        moved = weight.device != device and device.type != "meta"
        if current and weight.dtype == dtype and (moved or storage_of(weight) == storage):
            mark(self.channel_scale, weight)
        self.keep_copies()
        return self

    def _load_from_state_dict(self, *args, **kwargs):
        self.forget()  # as above
        super()._load_from_state_dict(*args, **kwargs)
        self.compute_channel_scale()
