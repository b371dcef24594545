"""What vLLM's first model runner (``vllm/v1/worker/gpu_model_runner.py``) tells `step`.

Each hook gets a call of a method and its arguments by name, which it may change before it makes the call.
"""

from __future__ import annotations

from collections.abc import Callable

from amber_ext.integrations.vllm import step
from amber_ext.phase import DECODE, rows_of_requests

_Call = Callable[[], object]


def forward(call: _Call, arguments: dict[str, object]) -> object:
    """A batch with requests."""
    runner = arguments["self"]
    batch = runner.input_batch
    requests = batch.num_reqs
    rows = rows_of_requests(
        batch.num_computed_tokens_cpu_tensor[:requests],
        runner.query_start_loc.cpu[: requests + 1].diff(),
        batch.num_prompt_tokens_cpu_tensor[:requests],
        arguments["positions"].shape[-1],
        runner.device,
    )
    with step.running(rows):
        return call()


def dummy_run(call: _Call, arguments: dict[str, object]) -> object:
    """Memory is measured, or a graph captured, or made ready to be; one of uniform decode batches is of decode."""
    decodes = arguments.get("uniform_decode", False)
    with step.running(DECODE if decodes else step.NO_REQUESTS):
        return call()


def choose_graph(call: _Call, arguments: dict[str, object]) -> object:
    """One prompt token of each request looks like decode to vLLM, whose graph for that prunes nothing."""
    runner, requests = arguments["self"], arguments["num_reqs"]
    if arguments.get("force_uniform_decode") is None:  # a batch with requests
        batch = runner.input_batch
        computed = batch.num_computed_tokens_cpu_tensor[:requests]
        if (computed < batch.num_prompt_tokens_cpu_tensor[:requests]).any():
            arguments["force_uniform_decode"] = False
    return call()


HOOKS = {
    "_model_forward": (("positions",), forward),
    "_dummy_run": (("uniform_decode",), dummy_run),
    "_determine_batch_execution_and_padding": (("num_reqs", "force_uniform_decode"), choose_graph),
}
