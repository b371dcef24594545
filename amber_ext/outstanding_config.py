"""`OutstandingSparseConfig`: what to quantise, what to prune and how; saved to and loaded from JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from amber_ext.checks import one_of
from amber_ext.config import AmberConfig
from amber_ext.reference_w8a8 import QUANTIZED_DTYPES
from amber_ext.smoothing import DIRECTIONS

EVERY_LAYER = "all"


@dataclasses.dataclass(frozen=True)
class OutstandingSparseConfig(AmberConfig):
    """What `quantize_` does to a model: an `AmberConfig`, and W8A8 (arXiv 2508.02128, section 3).

    Every linear layer but the vocabulary head is quantised; those of ``targets`` are also pruned in
    prefill. Without targets the result is plain W8A8.

    Attributes:
        rescale: rides in the token's scale, so it is on by default here.
        direction: how activations are smoothed before quantisation. ``"smoothquant"``: ``X / s, W · s``;
            ``"outstanding"``, the paper's choice: ``X · s, W / s``; ``"none"``.
        alpha: of ``s_j = max|X_:j|^α / max|W_:j|^(1−α)``, in [0, 1]. The paper uses 0.10 with its direction.
        dtype: ``"int8"`` or ``"e4m3"``.
        unquantized: projection name to the decoder layers in which it keeps its dtype, or ``"all"``.

    Raises:
        ValueError: a field is not allowed.
    """

    rescale: str = "variance"
    direction: str = "smoothquant"
    alpha: float = 0.5
    dtype: str = "int8"
    unquantized: Mapping[str, tuple[int, ...] | str] = dataclasses.field(default_factory=dict)

    may_be_empty: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("direction", self.direction, DIRECTIONS)
        one_of("dtype", self.dtype, tuple(QUANTIZED_DTYPES))
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha: {self.alpha} is not allowed; it must be in [0, 1]")
        for name, ids in self.unquantized.items():
            if isinstance(ids, str) and ids != EVERY_LAYER:
                raise ValueError(
                    f"unquantized: {name}: {ids!r} is not allowed; it must be a list of layers or {EVERY_LAYER!r}"
                )
        layers = {
            name: ids if ids == EVERY_LAYER else tuple(sorted(set(ids)))
            for name, ids in self.unquantized.items()
        }
        object.__setattr__(self, "unquantized", layers)

    def keeps_dtype(self, projection: str, layer: int | None) -> bool:
        """Whether this projection of this layer stays unquantised."""
        layers = self.unquantized.get(projection, ())
        return layers == EVERY_LAYER or layer in layers

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        layers = {name: ids if ids == EVERY_LAYER else list(ids) for name, ids in self.unquantized.items()}
        return {**super().to_dict(), "unquantized": layers}
