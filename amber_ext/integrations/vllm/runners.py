"""Hooks on vLLM's model runners: before each step they tell `step` which rows are prompt.

vLLM has no interface for this, since what a request's prompt was is known to the model runner alone. So methods of the
runner's class are wrapped, when a model of ours is loaded. A vLLM whose runners are other than expected is refused there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch
import vllm
from vllm.config import VllmConfig

from amber_ext.integrations.vllm import step
from amber_ext.phase import Rows, rows_of_requests

TESTED = "0.32"

_Wrapper = Callable[[Callable[..., object]], Callable[..., object]]


def follow_runner(config: VllmConfig) -> None:
    """Makes the model runner of this process tell `step`; again changes nothing.

    Raises:
        RuntimeError: this version's runner is not as expected.
    """
    if config.use_v2_model_runner:
        from vllm.v1.worker.gpu.model_runner import GPUModelRunner

        _wrap(GPUModelRunner, "prepare_inputs", ["scheduler_output"], _sets_rows)
        _wrap(GPUModelRunner, "execute_model", ["scheduler_output", "dummy_run"], _ends_step)
        _wrap(GPUModelRunner, "capture_model", [], _without_requests)
    else:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        _wrap(GPUModelRunner, "_model_forward", ["positions"], _with_rows)
        _wrap(GPUModelRunner, "_dummy_run", [], _without_requests)


def _wrap(runner: type, name: str, parameters: list[str], wrapper: _Wrapper) -> None:
    method = runner.__dict__.get(name)
    if method is None or not {*parameters} <= {*inspect.signature(method).parameters}:
        raise RuntimeError(
            f"vllm: version {vllm.__version__} cannot be followed: {runner.__name__} has no {name}"
            f"({', '.join(parameters)}); amber_ext is tested with {TESTED}"
        )
    if not hasattr(method, "_amber_ext"):
        wrapped = functools.wraps(method)(wrapper(method))
        wrapped._amber_ext = True
        setattr(runner, name, wrapped)


def _with_rows(forward: Callable[..., object]) -> Callable[..., object]:
    """Of the first runner: its forward of a batch with requests."""
    signature = inspect.signature(forward)

    def wrapped(runner: object, *args: object, **kwargs: object) -> object:
        positions = signature.bind(runner, *args, **kwargs).arguments["positions"]
        with step.running(_rows(runner, positions.shape[-1])):
            return forward(runner, *args, **kwargs)

    return wrapped


def _rows(runner: object, count: int) -> Rows | str:
    batch = runner.input_batch
    requests = batch.num_reqs
    return rows_of_requests(
        batch.num_computed_tokens_cpu_tensor[:requests],
        runner.query_start_loc.cpu[: requests + 1].diff(),
        batch.num_prompt_tokens_cpu_tensor[:requests],
        count,
        runner.device,
    )


def _sets_rows(prepare_inputs: Callable[..., object]) -> Callable[..., object]:
    """Of the second runner: its batch, once it is known."""

    def wrapped(runner: object, *args: object, **kwargs: object) -> object:
        batch = prepare_inputs(runner, *args, **kwargs)
        prompts = runner.req_states.prompt_len.np[batch.idx_mapping_np]
        numbers = (batch.num_computed_tokens_np, batch.num_scheduled_tokens, prompts)
        computed, scheduled, prompts = (torch.from_numpy(n).long() for n in numbers)
        step.set_phase(
            rows_of_requests(computed, scheduled, prompts, batch.num_tokens_after_padding, runner.device)
        )
        return batch

    return wrapped


def _ends_step(execute_model: Callable[..., object]) -> Callable[..., object]:
    """Of the second runner: what its batch was is forgotten behind the step."""
    signature = inspect.signature(execute_model)

    def wrapped(runner: object, *args: object, **kwargs: object) -> object:
        is_dummy = signature.bind(runner, *args, **kwargs).arguments.get("dummy_run", False)
        with step.running(step.NO_REQUESTS if is_dummy else None):
            return execute_model(runner, *args, **kwargs)

    return wrapped


def _without_requests(method: Callable[..., object]) -> Callable[..., object]:
    """Of both: measuring memory, capturing graphs."""

    def wrapped(runner: object, *args: object, **kwargs: object) -> object:
        with step.running(step.NO_REQUESTS):
            return method(runner, *args, **kwargs)

    return wrapped
