"""`AmberConfig` and `OutstandingSparseConfig`: what to prune, what to quantise, and how; saved to and loaded from JSON."""

from __future__ import annotations

import dataclasses
import json
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from amber_ext.families import PRESETS
from amber_ext.files import write_text
from amber_ext.ops.backends import BACKENDS
from amber_ext.ops.checks import RESCALES, layer_numbers, listed, mapping_of, one_of, shown
from amber_ext.ops.pattern import Pattern
from amber_ext.ops.quantization import DIRECTIONS
from amber_ext.ops.reference import QUANTIZED_DTYPES
from amber_ext.ops.scores import SCORES
from amber_ext.phase import CACHED_PROMPTS

DEFAULT_TARGETS = ("q_proj", "gate_proj", "down_proj")

EVERY_LAYER = "all"


@dataclasses.dataclass(frozen=True)
class AmberConfig:
    """What `sparsify_` does to a model.

    Attributes:
        pattern: N:M of the pruned layers' inputs, for example ``"2:4"``.
        score: one of `amber_ext.ops.scores.SCORES`: ``"magnitude"``, ``"wanda"``, ``"robust_norm"`` or
            ``"robust_norm_trimmed"``.
        projection_scores: projection name to the score that it has instead of ``score``.
        rescale: ``"none"`` (the paper) or ``"variance"`` (`nm_prune`).
        targets: names of the projections to prune, as the model's modules are called.
        skip_layers: projection name to the decoder layers in which it stays dense.
        layer_patterns: projection name to pattern to the decoder layers that have this pattern instead of
            ``pattern``: ``{"q_proj": {"8:16": [0, 1]}}``.
        backend: passed to `linear`.
        allow_unpruned: under ``backend="auto"`` on a GPU, whether a layer may leave its input as it is for numbers of
            tokens where that is fastest. Otherwise ``auto`` chooses among kernels with the same result.
        cached_prompts: what several tokens are that a model gets behind a cache that holds some, outside ``generate()``:
            ``"sparse"``, the rest of a prompt, or ``"dense"``, sampled tokens (`amber_ext.phase`).
        fuse: whether the MLPs of `amber_ext.families.GATED_MLPS` prune the input of ``down_proj`` in the op that makes it.
            None: where they lie on a GPU. Results are the same on the CPU; on a GPU an entry may differ by one rounding.

    Raises:
        ValueError: a field is not allowed.
    """

    pattern: Pattern = Pattern("2:4")
    score: str = "robust_norm"
    rescale: str = "none"
    targets: tuple[str, ...] = DEFAULT_TARGETS
    skip_layers: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    layer_patterns: Mapping[str, Mapping[str, tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    backend: str = "auto"
    allow_unpruned: bool = False
    cached_prompts: str = "sparse"
    projection_scores: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fuse: bool | None = None

    # Whether no targets at all make sense.
    may_be_empty: ClassVar[bool] = False

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "pattern", Pattern(self.pattern))
        one_of("score", self.score, tuple(SCORES))
        one_of("rescale", self.rescale, RESCALES)
        one_of("backend", self.backend, BACKENDS)
        if not isinstance(self.allow_unpruned, bool):
            raise ValueError(
                f"allow_unpruned: {shown(self.allow_unpruned)} is not allowed; it must be True or False"
            )
        one_of("cached_prompts", self.cached_prompts, CACHED_PROMPTS)
        if not isinstance(self.fuse, bool | None):
            raise ValueError(f"fuse: {shown(self.fuse)} is not allowed; it must be True, False or None")
        targets = listed(self.targets, str)
        if targets is None or not (targets or self.may_be_empty):
            raise ValueError(
                f"targets: {shown(self.targets)} is not allowed; it must be a list of projection names"
            )
        set_field(self, "targets", targets)
        skips = mapping_of("skip_layers", self.skip_layers, "layer numbers")
        skips = {name: layer_numbers("skip_layers", name, ids) for name, ids in skips.items()}
        set_field(self, "skip_layers", skips)
        patterns_of = dict(mapping_of("layer_patterns", self.layer_patterns, "dicts"))
        for name, patterns in patterns_of.items():
            found = mapping_of(f"layer_patterns: {name}", patterns, "layer numbers").items()
            patterns_of[name] = {
                str(Pattern(p)): layer_numbers("layer_patterns", name, ids) for p, ids in found
            }
        set_field(self, "layer_patterns", patterns_of)
        scores = mapping_of("projection_scores", self.projection_scores, "scores")
        set_field(self, "projection_scores", scores)
        for name, score in scores.items():
            one_of(f"projection_scores: {name}", score, tuple(SCORES))
        for field in ("skip_layers", "layer_patterns", "projection_scores"):
            for name in getattr(self, field):
                if name not in self.targets:
                    raise ValueError(f"{field}: {name!r} is not a target; targets: {', '.join(self.targets)}")
        for name, patterns in self.layer_patterns.items():
            named = [*self.skip_layers.get(name, ()), *(layer for ids in patterns.values() for layer in ids)]
            twice = sorted({layer for layer in named if named.count(layer) > 1})
            if twice:
                raise ValueError(
                    f"layer_patterns: {name} layer {twice[0]} is named twice, in its patterns or skip_layers; "
                    "a layer has one pattern or is skipped"
                )

    def pattern_of(self, projection: str, layer: int | None) -> Pattern:
        """The pattern of a target that is not skipped."""
        for pattern, layers in self.layer_patterns.get(projection, {}).items():
            if layer in layers:
                return Pattern(pattern)
        return self.pattern

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """Every pattern that may occur, the general one first."""
        named = [Pattern(pattern) for patterns in self.layer_patterns.values() for pattern in patterns]
        return tuple(dict.fromkeys([self.pattern, *named]))

    @classmethod
    def preset(cls, name: str, **fields: object) -> AmberConfig:
        """The paper's configuration of a model, with any field replaced by keyword.

        Args:
            name: one of `amber_ext.families.PRESETS`: ``"llama-3.1-8b"``, ``"qwen2-7b"`` or ``"qwen3-30b-a3b"``.
        """
        one_of("preset", name, tuple(PRESETS))
        skips = {projection: PRESETS[name] for projection in ("q_proj", "gate_proj")}
        return cls(**{"skip_layers": skips, **fields})

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        return {
            **dataclasses.asdict(self),
            "pattern": str(self.pattern),
            "targets": list(self.targets),
            "skip_layers": {name: list(ids) for name, ids in self.skip_layers.items()},
            "layer_patterns": {
                name: {pattern: list(ids) for pattern, ids in patterns.items()}
                for name, patterns in self.layer_patterns.items()
            },
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> AmberConfig:
        """The inverse of `to_dict`. Raises ValueError on an unknown field, or a value that is not allowed."""
        if not isinstance(fields, Mapping):
            raise ValueError(
                f"fields: {shown(fields)} is not allowed; it must be a dict, as to_dict makes it"
            )
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            one_of(f"{cls.__name__} field", name, tuple(known))
        return cls(**fields)

    def save(self, path: str | Path) -> None:
        """Writes JSON, the whole file or nothing."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> AmberConfig:
        """Reads what `save` wrote. Raises ValueError when there is no such file or it is not such JSON."""
        if not isinstance(path, str | Path) or not Path(path).is_file():
            raise ValueError(f"path: {str(path)!r} is not a file; it must be JSON that save wrote")
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"path: {str(path)!r} is not UTF-8: {error}") from None
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"path: {str(path)!r} is not valid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"path: {str(path)!r} must hold a JSON object")
        try:
            return cls.from_dict(fields)
        except ValueError as error:
            raise ValueError(f"path: {str(path)!r} is not allowed: {error}") from None


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
        number = isinstance(self.alpha, numbers.Real) and not isinstance(self.alpha, bool)
        if not number or not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha: {shown(self.alpha)} is not allowed; it must be in [0, 1]")
        kept = f"layer numbers or {EVERY_LAYER!r}"
        layers = {
            name: ids
            if isinstance(ids, str) and ids == EVERY_LAYER
            else layer_numbers("unquantized", name, ids, kept)
            for name, ids in mapping_of("unquantized", self.unquantized, kept).items()
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


def check_is_config(config: object, kind: type[AmberConfig] = AmberConfig) -> None:
    """Raises TypeError unless ``config`` is of this kind."""
    if not isinstance(config, kind):
        name = kind.__name__
        raise TypeError(
            f"config: {shown(config)} is not allowed; it must be an {name} ({name}.from_dict takes a dict, "
            f"{name}.load a file)"
        )
