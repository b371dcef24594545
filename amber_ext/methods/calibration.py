"""Runs calibration tokens through a model and keeps what quantisation needs of its activations."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from amber_ext.layers.sites import LinearSite
from amber_ext.phase import decode
from amber_ext.progress import progress_bar


@dataclass(frozen=True)
class Calibration:
    """What calibration found.

    Attributes:
        input_absmax: linear's name to ``max|X_:j|`` over all tokens, fp32 ``[K]``.
        norm_of: linear's name to the name of the norm whose output it always read as it was.
    """

    input_absmax: dict[str, torch.Tensor]
    norm_of: dict[str, str]


def check_iterable(batches: object) -> None:
    """Raises TypeError for what cannot be batches: most often one tensor, whose items are not batches."""
    if isinstance(batches, torch.Tensor | str | Mapping) or not isinstance(batches, Iterable):
        raise TypeError(
            f"batches: {described(batches)} is not allowed; it must be a list, or another iterable, of token ids [B, T]"
        )


def checked_batch(batch: object) -> torch.Tensor:
    """``batch``. Raises TypeError or ValueError unless it is token ids ``[B, T]``."""
    if not isinstance(batch, torch.Tensor) or batch.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"batches: a batch of {described(batch)} is not allowed; it must be a tensor of token ids [B, T], int64"
        )
    if batch.dim() != 2 or batch.numel() == 0:
        raise ValueError(
            f"batches: a batch of {described(batch)} is not allowed; it must be token ids [B, T], not empty "
            "(ids[None] makes [1, T] of [T])"
        )
    return batch


def list_batches(batches: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """All batches, each checked. Raises as these, and ValueError when there is none."""
    check_iterable(batches)
    found = [checked_batch(batch) for batch in batches]
    if not found:
        raise ValueError("batches: it is empty; at least 1 batch of token ids [B, T] is needed")
    return found


def see_inputs(
    model: torch.nn.Module,
    names: Iterable[str],
    batches: Iterable[torch.Tensor],
    see: Callable[[str, torch.Tensor], None],
) -> None:
    """Runs batches densely; ``see(name, x)`` gets the input ``[..., K]`` of every call of the modules of these names.

    Raises: as `list_batches`.
    """

    def hook_of(name: str):
        return lambda module, args: see(name, args[0])

    handles = [model.get_submodule(name).register_forward_pre_hook(hook_of(name)) for name in names]
    try:
        with torch.inference_mode(), decode():
            for batch in list_batches(batches):
                model(batch)
    finally:
        for handle in handles:
            handle.remove()


def described(value: object) -> str:
    """What a value is, for a message: a tensor's dtype and shape, what else there is by its type."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


class _Recorder:
    def __init__(self) -> None:
        self.input_absmax: dict[str, torch.Tensor] = {}
        self.sources: dict[str, set[str | None]] = {}
        self.norm_outputs: dict[int, tuple[weakref.ref, str]] = {}

    def norm_hook(self, name: str):
        def hook(module: torch.nn.Module, args: tuple, output: object) -> None:
            if isinstance(output, torch.Tensor):
                # Weak: an id is only trusted while its tensor lives, and no memory is held.
                self.norm_outputs[id(output)] = (weakref.ref(output), name)

        return hook

    def linear_hook(self, name: str):
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0]
            reference, norm = self.norm_outputs.get(id(x), (lambda: None, None))
            self.sources.setdefault(name, set()).add(norm if reference() is x else None)
            if x.numel() == 0:
                return
            absmax = x.detach().abs().flatten(0, -2).amax(0).float()
            if name in self.input_absmax:
                absmax = torch.maximum(absmax, self.input_absmax[name])
            self.input_absmax[name] = absmax

        return hook


def calibrate(
    model: torch.nn.Module,
    sites: list[LinearSite],
    batches: Iterable[torch.Tensor],
    *,
    progress: bool = False,
) -> Calibration:
    """Streams ``batches`` through the dense model; only ``[K]`` numbers a layer are kept.

    Args:
        model: as it will be quantised; it is not changed.
        sites: its ``nn.Linear`` layers (`find_linears`).
        batches: token ids, each ``[B, T]`` int64; any iterable, consumed once.
        progress: show a progress bar.

    Raises:
        ValueError, TypeError: no batches or not such, a layer that no token reached, or activations with NaN or Inf.
    """
    check_iterable(batches)
    recorder = _Recorder()
    handles = [
        module.register_forward_hook(recorder.norm_hook(name))
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 1
    ]
    handles += [
        model.get_submodule(site.module_name).register_forward_pre_hook(recorder.linear_hook(site.name))
        for site in sites
    ]
    count = 0
    try:
        with torch.inference_mode(), decode():
            for batch in progress_bar(batches, "Calibrating", progress):
                model(checked_batch(batch))
                count += 1
    finally:
        for handle in handles:
            handle.remove()
    if count == 0:
        raise ValueError("batches: it is empty; at least 1 batch of token ids [B, T] is needed")
    for site in sites:
        absmax = recorder.input_absmax.get(site.name)
        if absmax is None:
            raise ValueError(f"batches: no calibration token reached the layer '{site.name}'")
        if not absmax.isfinite().all():
            raise ValueError(f"batches: the input of the layer '{site.name}' has NaN or Inf in calibration")
    norm_of = {}
    for name, norms in recorder.sources.items():
        if len(norms) == 1 and None not in norms:
            norm_of[name] = next(iter(norms))
    return Calibration(recorder.input_absmax, norm_of)
