"""`QuantizedLinear`: an 8-bit linear layer whose input is pruned to N:M in prefill."""

from __future__ import annotations

import torch

from amber_ext.layers.weight_copies import WeightCopies
from amber_ext.ops.backends import BACKENDS
from amber_ext.ops.checks import RESCALES, one_of
from amber_ext.ops.functional import linear_w8a8
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.ops.quantization import quantize_weight
from amber_ext.ops.reference import QUANTIZED_DTYPES
from amber_ext.ops.scores import SCORES, selection_scale
from amber_ext.phase import DECODE, by_phase, current_phase


class QuantizedLinear(WeightCopies):
    """A W8A8 linear layer: sparse in prefill where it has a pattern, dense W8A8 otherwise.

    Buffers, all in the ``state_dict``: ``weight`` 8-bit ``[N, K]``, ``weight_scale`` fp32 ``[N]``, and where
    they are used ``smooth`` and ``channel_scale``, fp32 ``[K]`` (`linear_w8a8`). They keep
    their dtypes when the module changes its own. ``bias`` stays a parameter.

    Attributes:
        pattern: of prefill; ``1:1`` when this layer is not pruned.
        rescale, backend, allow_unpruned: of `linear_w8a8`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        smooth: bool,
        channel_scale: bool,
        dtype: str = "int8",
        bias_dtype: torch.dtype = torch.float32,
        pattern: str | Pattern = UNPRUNED,
        rescale: str = "none",
        backend: str = "auto",
        allow_unpruned: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        """An empty layer, to load a ``state_dict`` into; `from_linear` makes a filled one.

        Raises:
            ValueError: an argument is not allowed.
        """
        super().__init__()
        one_of("dtype", dtype, tuple(QUANTIZED_DTYPES))
        one_of("rescale", rescale, RESCALES)
        one_of("backend", backend, BACKENDS)
        self.in_features, self.out_features, self.dtype = in_features, out_features, dtype
        self.pattern, self.rescale, self.backend = Pattern(pattern), rescale, backend
        self.allow_unpruned = allow_unpruned
        if in_features % self.pattern.m != 0:
            raise ValueError(f"in_features: K = {in_features} is not a multiple of M = {self.pattern.m}")

        def empty(wanted: bool, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor | None:
            return torch.empty(shape, dtype=dtype, device=device) if wanted else None

        self.register_buffer("weight", empty(True, out_features, in_features, dtype=QUANTIZED_DTYPES[dtype]))
        self.register_buffer("weight_scale", empty(True, out_features))
        self.register_buffer("smooth", empty(smooth, in_features))
        self.register_buffer("channel_scale", empty(channel_scale, in_features))
        self.bias = None
        if bias:
            self.bias = torch.nn.Parameter(empty(True, out_features, dtype=bias_dtype), requires_grad=False)

    @classmethod
    def from_linear(
        cls,
        linear: torch.nn.Linear,
        factor: torch.Tensor | None = None,
        *,
        folded: bool = False,
        score: str = "robust_norm",
        dtype: str = "int8",
        pattern: str | Pattern = UNPRUNED,
        rescale: str = "none",
        backend: str = "auto",
        allow_unpruned: bool = False,
    ) -> QuantizedLinear:
        """Quantises a layer's weight; ``linear`` stays as it was.

        Args:
            factor: fp32 ``[K]``; activations are multiplied by it and the weight is divided by it.
            folded: the norm before this layer applies the factor.
            score: the channel scale is computed from the smoothed weight.
            dtype, pattern, rescale, backend, allow_unpruned: as for the layer.

        Raises:
            ValueError, TypeError: an argument or the weight is not allowed.
        """
        one_of("score", score, tuple(SCORES))
        pattern = Pattern(pattern)
        weight = linear.weight.detach().float()
        if factor is not None:
            weight = weight / factor
        smooth = None if folded else factor
        scale = _scale(weight, score, smooth) if pattern.n < pattern.m else None
        values, weight_scale = quantize_weight(weight, dtype)
        how = (pattern, rescale, backend, allow_unpruned)
        layer = cls._of(values, weight_scale, linear.bias, smooth, scale, *how)
        layer.train(linear.training)
        return layer

    @classmethod
    def from_values(
        cls,
        weight: torch.Tensor,
        weight_scale: torch.Tensor,
        bias: torch.nn.Parameter | None = None,
        smooth: torch.Tensor | None = None,
        *,
        score: str = "robust_norm",
        pattern: str | Pattern = UNPRUNED,
        rescale: str = "none",
        backend: str = "auto",
        allow_unpruned: bool = False,
    ) -> QuantizedLinear:
        """A layer in eval mode of a weight that is 8-bit already; the tensors are shared.

        Args:
            weight, weight_scale, bias, smooth: as in the ``state_dict``.
            score: the channel scale is computed from the weight times its scales.
            pattern, rescale, backend, allow_unpruned: as for the layer.

        Raises:
            ValueError, TypeError: an argument is not allowed.
        """
        one_of("score", score, tuple(SCORES))
        pattern = Pattern(pattern)
        scale = None
        if pattern.n < pattern.m:
            scale = _scale(weight.float() * weight_scale[:, None], score, smooth)
        how = (pattern, rescale, backend, allow_unpruned)
        return cls._of(weight, weight_scale, bias, smooth, scale, *how).eval()

    @classmethod
    def _of(
        cls,
        weight: torch.Tensor,
        weight_scale: torch.Tensor,
        bias: torch.nn.Parameter | None,
        smooth: torch.Tensor | None,
        channel_scale: torch.Tensor | None,
        pattern: Pattern,
        rescale: str,
        backend: str,
        allow_unpruned: bool,
    ) -> QuantizedLinear:
        """The layer that holds these tensors."""
        layer = cls(
            weight.shape[1],
            weight.shape[0],
            bias=bias is not None,
            smooth=smooth is not None,
            channel_scale=channel_scale is not None,
            dtype="int8" if weight.dtype == torch.int8 else "e4m3",
            pattern=pattern,
            rescale=rescale,
            backend=backend,
            allow_unpruned=allow_unpruned,
            device="meta",
        )
        layer.weight, layer.weight_scale, layer.bias = weight, weight_scale, bias
        layer.smooth, layer.channel_scale = smooth, channel_scale
        layer.keep_copies()
        return layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x ``[..., K]`` to ``[..., N]`` of x's dtype; pruned in prefill, dense in decode."""
        return by_phase(self._prefill, self._decode, x)

    def _prefill(self, x: torch.Tensor) -> torch.Tensor:
        return linear_w8a8(x, **self.call_arguments(x, dense=False))

    def _decode(self, x: torch.Tensor) -> torch.Tensor:
        return linear_w8a8(x, **self.call_arguments(x, dense=True))

    def call_arguments(self, x: torch.Tensor, dense: bool | None = None) -> dict[str, object]:
        """What `linear_w8a8` gets with x: in decode when ``dense``, in prefill when not; None is the present phase."""
        if dense is None:
            dense = current_phase() == DECODE
        weight, scale = (self.weight, None) if dense else self.derived()
        return self.with_plan(x.dtype, self._arguments(weight, scale, dense))

    def products(self) -> list[dict[str, object]]:
        """See `Planned`."""
        return [
            self._arguments(weight, None, dense)
            for weight, dense in ((self.prefill_weight, False), (self.weight, True))
        ]

    def input_dtypes(self) -> tuple[torch.dtype, ...]:
        """See `Planned`. Any that `linear_w8a8` takes."""
        return torch.bfloat16, torch.float16, torch.float32

    def _arguments(self, weight: torch.Tensor, scale: torch.Tensor | None, dense: bool) -> dict[str, object]:
        unpruned = dense or self.pattern.n == self.pattern.m
        return {
            "weight": weight,
            "weight_scale": self.weight_scale,
            "bias": self.bias,
            "pattern": UNPRUNED if dense else self.pattern,
            "scale": scale,
            "smooth": self.smooth,
            "rescale": "none" if dense else self.rescale,
            # A sparse GEMM cannot run what is not pruned.
            "backend": "cuda" if unpruned and self.backend == "cutlass" else self.backend,
            "allow_unpruned": self.allow_unpruned,
        }

    def extra_repr(self) -> str:
        pruned = f", pattern={self.pattern}" if self.pattern.n < self.pattern.m else ""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, dtype={self.dtype}{pruned}"
        )

    def _apply(self, fn, recurse=True):
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            # model.to(bfloat16) and .half() cast every floating buffer; these have dtypes of their own.
            if buffer is not None and self._buffers[name].dtype != buffer.dtype:
                self._buffers[name] = buffer.to(self._buffers[name].device)
        self.keep_copies()
        return self


def _scale(weight: torch.Tensor, score: str, smooth: torch.Tensor | None) -> torch.Tensor | None:
    """The channel scale of a weight, with the factor that is applied on the fly in it."""
    scale = selection_scale(weight, score)
    if smooth is None:
        return scale
    # The score is |x · f| · c; |x| · (f · c) needs one factor less.
    return smooth if scale is None else smooth * scale
