"""Hooks on vLLM's model runners: before each step they tell `step` which rows are prompt.

vLLM has no interface for this, since what a request's prompt was is known to the model runner alone. So methods of the
runner's class are wrapped, when a model of ours is loaded. A vLLM whose runners are other than expected is refused there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import vllm
from vllm.config import VllmConfig

from amber_ext.integrations.vllm import first_runner, second_runner

TESTED = "0.32"


def follow_runner(config: VllmConfig) -> None:
    """Makes the model runner of this process tell `step`; again changes nothing.

    Raises:
        RuntimeError: this version's runner is not as expected.
    """
    if config.use_v2_model_runner:
        from vllm.v1.worker.gpu.model_runner import GPUModelRunner

        hooks = second_runner.HOOKS
    else:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        hooks = first_runner.HOOKS
    for name, (parameters, hook) in hooks.items():
        _check(GPUModelRunner, name, parameters)
        wrap(GPUModelRunner, name, hook)


def _check(runner: type, name: str, parameters: tuple[str, ...]) -> None:
    method = runner.__dict__.get(name)
    if method is None or not {*parameters} <= {*inspect.signature(method).parameters}:
        raise RuntimeError(
            f"vllm: version {vllm.__version__} cannot be followed: {runner.__name__} has no {name}"
            f"({', '.join(parameters)}); amber_ext is tested with {TESTED}"
        )


def wrap(owner: type, name: str, hook: Callable[..., object]) -> None:
    """``hook(call, arguments)`` stands in a method's place, and ``call()`` is the method; again changes nothing."""
    method = owner.__dict__[name]
    if hasattr(method, "_amber_ext"):
        return
    signature = inspect.signature(method)

    @functools.wraps(method)
    def wrapped(*args: object, **kwargs: object) -> object:
        bound = signature.bind(*args, **kwargs)

        def call() -> object:
            return method(*bound.args, **bound.kwargs)

        return hook(call, bound.arguments)

    wrapped._amber_ext = True
    setattr(owner, name, wrapped)
