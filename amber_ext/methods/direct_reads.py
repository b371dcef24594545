"""Linear layers whose weight the model's code reads past them, as Mamba's mixers do (``self.dt_proj.weight @ x``).

In the place of such a layer an 8-bit one would hand out 8-bit numbers for weights. Those that are known stand in
`amber_ext.families`; others are found by running the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch.overrides import TorchFunctionMode

from amber_ext.layers.sites import LinearSite
from amber_ext.phase import decode

# Enough for a mixer's convolution; which ids does not matter.
TOKENS = 8

# What may be asked of a weight by anyone: none of its numbers.
_QUESTIONS = frozenset(
    {"dtype", "device", "shape", "ndim", "layout", "requires_grad", "is_meta", "size", "dim", "numel"}
)


def refuse_direct_reads(model: torch.nn.Module, sites: Sequence[LinearSite]) -> None:
    """Refuses layers that are known for it; then runs a few tokens through the dense model, and sees who reads the weights.

    What comes after the point where a model does not run on token ids alone is not seen.

    Raises:
        ValueError: a weight is read past its layer.
    """
    if (known := next((site for site in sites if site.is_read), None)) is not None:
        raise _refusal(model, known)
    if not hasattr(model, "get_input_embeddings") or not sites:
        return
    modules = {model.get_submodule(site.module_name): site for site in sites}
    owners: dict[int, dict[torch.nn.Module, LinearSite]] = {}
    for module, site in modules.items():
        owners.setdefault(id(module.weight), {})[module] = site
    watch = _Watch(owners)
    handles = []
    for module in modules:
        handles.append(module.register_forward_pre_hook(watch.enter))
        handles.append(module.register_forward_hook(watch.leave, always_call=True))
    try:
        device = next(iter(modules)).weight.device
        # Whatever else it is that a model needs beside ids.
        with contextlib.suppress(Exception), torch.inference_mode(), decode(), watch:
            model(torch.zeros((1, TOKENS), dtype=torch.int64, device=device))
    finally:
        for handle in handles:
            handle.remove()
    if watch.found is not None:
        raise _refusal(model, watch.found)


def _refusal(model: torch.nn.Module, site: LinearSite) -> ValueError:
    return ValueError(
        f"model: {type(model).__name__} reads the weight of '{site.name}' past that layer, so it must not "
        f"be quantised; leave it out: unquantized={{'{site.projection}': 'all'}}"
    )


def mark_quantized(model: torch.nn.Module, quantized: bool) -> None:
    """Sets or clears transformers' own mark of a model whose weights are not what they were.

    With it, transformers' code calls some layers whose weights it reads without (FalconMamba, Jamba), which rounds otherwise,
    and asks no weight for its dtype. transformers sets it on every model that it loads with a ``quantization_config``;
    a pruned one has its weights as they were.
    """
    for module in model.modules():
        if hasattr(type(module), "base_model_prefix"):
            if quantized:
                module.config._is_quantized = True
            else:
                module.config.__dict__.pop("_is_quantized", None)


class _Watch(TorchFunctionMode):
    """Sees every torch function that gets one of the weights while no layer that owns it runs."""

    def __init__(self, owners: dict[int, dict[torch.nn.Module, LinearSite]]) -> None:
        super().__init__()
        self.owners = owners
        self.running: set[torch.nn.Module] = set()
        self.found: LinearSite | None = None

    def enter(self, module: torch.nn.Module, args: tuple) -> None:
        self.running.add(module)

    def leave(self, module: torch.nn.Module, args: tuple, output: object) -> None:
        self.running.discard(module)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # A property is read by the __get__ of its descriptor.
        name = getattr(getattr(function, "__self__", None), "__name__", None) or function.__name__
        if name not in _QUESTIONS:
            for value in (*args, *kwargs.values()):
                owners = self.owners.get(id(value), {})
                if owners and self.running.isdisjoint(owners) and self.found is None:
                    self.found = next(iter(owners.values()))
        return function(*args, **kwargs)
