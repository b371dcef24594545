"""Functions of the inputs of linear layers, by hooks: for what is measured but has no layer of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch

from amber_ext.phase import by_phase

InputFunction = Callable[[torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def changed_inputs(model: torch.nn.Module, functions: Mapping[str, InputFunction]) -> Iterator[None]:
    """Within it the modules of these names get ``function(x)`` for their input x in prefill, and x itself in decode.

    Args:
        functions: module's name to a function of x ``[..., K]`` to the same shape and dtype.
    """

    def hook_of(function: InputFunction):
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (by_phase(function, lambda x: x, args[0]), *args[1:])

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(hook_of(function))
        for name, function in functions.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
