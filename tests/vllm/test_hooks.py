"""What the hooks make of what GPUs alone have: graphs, and the second model runner. Neither runs on a CPU."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine import VOCABULARY  # noqa: F401, it sets what vLLM reads when it is imported
from vllm.config import CUDAGraphMode
from vllm.forward_context import override_forward_context
from vllm.v1.worker.gpu.model_runner import GPUModelRunner as SecondRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner as FirstRunner

from amber_ext.integrations.vllm import first_runner, op, runners, second_runner, step
from amber_ext.phase import DECODE, PREFILL, Rows

X = torch.zeros(10, 4)


def context(mode=CUDAGraphMode.NONE, metadata="of a batch"):
    return override_forward_context(SimpleNamespace(cudagraph_runtime_mode=mode, attn_metadata=metadata))


def batch(computed, scheduled, prompts, padded=0):
    """A batch of the second runner."""
    starts = np.cumsum([0, *scheduled]).astype(np.int32)
    return SimpleNamespace(
        num_reqs=len(scheduled),
        num_computed_tokens_np=np.array(computed, dtype=np.int32),
        query_start_loc_np=np.concatenate([starts, starts[-1:]]),
        idx_mapping_np=np.arange(len(scheduled)),
        num_tokens_after_padding=sum(scheduled) + padded,
    ), SimpleNamespace(
        req_states=SimpleNamespace(prompt_len=SimpleNamespace(np=np.array(prompts, dtype=np.int32))),
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("runner, hooks", [(FirstRunner, first_runner), (SecondRunner, second_runner)])
def test_both_runners_have_what_is_wrapped(runner, hooks):
    for name, (parameters, _) in hooks.HOOKS.items():
        runners._check(runner, name, parameters)


def test_rows_of_the_second_runner():
    """A decode, the second chunk of a prompt, one that is computed anew behind its prompt's end, and padding."""
    found, runner = batch([30, 4, 0], [1, 4, 4], [30, 20, 3], padded=1)

    def step_of(call):
        with step.running(None):
            second_runner.prepare_inputs(lambda: call, {"self": runner})
            with context():
                return step.phase_of(X)

    rows = step_of(found)
    assert isinstance(rows, Rows)
    assert torch.arange(10)[rows.prompt].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert torch.arange(10)[rows.sampled].tolist() == [0, 8, 9]


def test_a_captured_decode_graph_prunes_nothing():
    phases = []

    def capture():
        with context():  # the second runner names no mode while it captures
            phases.append(step.phase_of(X))

    second_runner.capture_model(capture, {})
    first_runner.dummy_run(capture, {"uniform_decode": True})
    assert phases == [DECODE, DECODE]
    first_runner.dummy_run(capture, {"uniform_decode": False})  # memory is measured
    assert phases[2:] == [PREFILL]


@pytest.mark.parametrize("computed, decodes", [([8, 5], None), ([7, 5], False)])
def test_one_prompt_token_a_request_is_no_decode_graph(computed, decodes):
    inputs = SimpleNamespace(
        num_computed_tokens_cpu_tensor=torch.tensor(computed),
        num_prompt_tokens_cpu_tensor=torch.tensor([8, 5]),
    )
    arguments = {"self": SimpleNamespace(input_batch=inputs), "num_reqs": 2, "force_uniform_decode": None}
    first_runner.choose_graph(lambda: None, arguments)
    assert arguments["force_uniform_decode"] is decodes
    for prefills in (True, False):
        state = SimpleNamespace(has_prefill=prefills)
        assert second_runner.gather_batch(lambda: (state, 1), {}) == (state, None if prefills else 1)  # noqa: B023


def test_encoders_run_pruned_beside_a_mixed_batch():
    rows = Rows(slice(0, 3), slice(3, 5), 5)
    with step.running(rows), context(metadata=None):
        assert step.phase_of(X) == PREFILL
    with (
        step.running(rows),
        context(),
        pytest.raises(RuntimeError, match="x: 10 rows, but this step's batch has 5"),
    ):
        step.phase_of(X)
    with (
        context(),
        pytest.raises(RuntimeError, match="vllm: a batch runs whose requests amber_ext does not know"),
    ):
        step.phase_of(X)


def test_the_op_writes_where_the_caller_says():
    """vLLM's graphs read the output from where it lay when they were captured."""
    schema = torch.ops.amber_vllm.pruned_linear.default._schema
    assert schema.arguments[2].alias_info.is_write and not schema.returns
    layer = SimpleNamespace(quant_method=SimpleNamespace(run=lambda layer, x, bias: x + 1))
    output = torch.empty(10, 4)
    with override_forward_context(SimpleNamespace(no_compile_layers={"layer": layer})):
        op.pruned_linear(X, None, output, "layer")
    assert torch.equal(output, X + 1)
