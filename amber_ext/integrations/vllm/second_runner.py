"""What vLLM's second model runner (``vllm/v1/worker/gpu/model_runner.py``) tells `step`.

Each hook gets a call of a method and its arguments by name.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from amber_ext.integrations.vllm import step
from amber_ext.phase import DECODE, rows_of_requests

_Call = Callable[[], object]


def execute_model(call: _Call, arguments: dict[str, object]) -> object:
    """A step begins, and what its batch was is forgotten behind it."""
    with step.running(step.NO_REQUESTS if arguments.get("dummy_run", False) else None):
        return call()


def prepare_inputs(call: _Call, arguments: dict[str, object]) -> object:
    """The step's batch is known now."""
    runner, batch = arguments["self"], call()
    prompts = runner.req_states.prompt_len.np[batch.idx_mapping_np]
    numbers = (batch.num_computed_tokens_np, batch.query_start_loc_np[: batch.num_reqs + 1], prompts)
    computed, starts, prompts = (torch.from_numpy(number).long() for number in numbers)
    rows = rows_of_requests(computed, starts.diff(), prompts, batch.num_tokens_after_padding, runner.device)
    step.set_phase(rows)
    return batch


def gather_batch(call: _Call, arguments: dict[str, object]) -> object:
    """One prompt token of each request looks like decode to vLLM, whose graph for that prunes nothing."""
    state, uniform_decode = call()
    prefills = state is not None and state.has_prefill
    return state, None if prefills else uniform_decode


def capture_model(call: _Call, arguments: dict[str, object]) -> object:
    """Whole graphs are of decode alone (`config.check_engine`); pruned layers stand between the pieces of the others."""
    with step.running(DECODE):
        return call()


HOOKS = {
    "execute_model": (("scheduler_output", "dummy_run"), execute_model),
    "prepare_inputs": (("scheduler_output",), prepare_inputs),
    "gather_batch_req_state": (("scheduler_output", "dummy_run"), gather_batch),
    "capture_model": ((), capture_model),
}
