"""What pruning a decoder layer's projections does to the layer's output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from amber_ext.layers.input_hooks import InputFunction, changed_inputs
from amber_ext.layers.sites import LinearSite
from amber_ext.methods.calibration import list_batches
from amber_ext.phase import decode, prefill


def blocks_of(sites: Sequence[LinearSite]) -> dict[str, list[LinearSite]]:
    """Decoder layer's module name (``"model.layers.3"``) to its projections; those in no numbered layer are left out."""
    blocks: dict[str, list[LinearSite]] = {}
    for site in sites:
        parts = site.name.split(".")
        number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if number is not None:
            blocks.setdefault(".".join(parts[: number + 1]), []).append(site)
    return blocks


class BlockErrors:
    """Runs decoder layers by themselves, on the inputs that they get in the dense model.

    Args:
        model: a transformers causal LM, dense.
        blocks: module names of decoder layers.
        batches: token ids ``[B, T]`` int64. Memory: every layer's input and output.
    """

    def __init__(
        self, model: torch.nn.Module, blocks: Iterable[str], batches: Iterable[torch.Tensor]
    ) -> None:
        self._model = model
        self._calls: dict[str, list[tuple[tuple, dict, torch.Tensor]]] = {name: [] for name in blocks}

        def hook_of(name: str):
            def hook(module: torch.nn.Module, args: tuple, kwargs: dict, output: object) -> None:
                self._calls[name].append((args, kwargs, _hidden(output).clone()))

            return hook

        handles = [
            model.get_submodule(name).register_forward_hook(hook_of(name), with_kwargs=True)
            for name in self._calls
        ]
        try:
            with torch.inference_mode(), decode():
                for batch in list_batches(batches):
                    model(batch, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()

    def error(self, block: str, functions: Mapping[str, InputFunction]) -> float:
        """``‖B(X) − B'(X)‖₂²`` of the layer's output, with these functions applied to its projections' inputs.

        Args:
            functions: projections' module names to functions of their inputs (`changed_inputs`).
        """
        module = self._model.get_submodule(block)
        total = 0.0
        with torch.inference_mode(), prefill(), changed_inputs(self._model, functions):
            for args, kwargs, dense in self._calls[block]:
                change = _hidden(module(*args, **kwargs)).float() - dense.float()
                total += float(change.square().sum(dtype=torch.float64))
        return total


def _hidden(output: object) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
