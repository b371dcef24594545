"""The engine's greedy tokens in fp32 against transformers' own, whatever vLLM does with the batch."""

import itertools

import pytest
from engine import engine, greedy, random_prompts, transformers_greedy
from models import load, save_dense, save_pruned

from amber_ext import AmberConfig
from amber_ext.integrations.vllm import products

LENGTHS = (5, 33, 100, 1, 257, 16, 700, 64)
SLOW = pytest.mark.slow
PATTERNS = (pytest.param("2:4", marks=SLOW), "8:16", pytest.param("12:16w", marks=SLOW))
CHUNKS = {"chunks": {"max_num_batched_tokens": 64}, "whole": {"max_num_batched_tokens": 2048}}


@pytest.fixture(scope="module", params=PATTERNS)
def served(request, tmp_path_factory):
    """A pruned folder, prompts, and what transformers answers."""
    root = tmp_path_factory.mktemp("model")
    config = AmberConfig(pattern=request.param, skip_layers={"gate_proj": (1,)})
    folder = save_pruned(save_dense(root / "dense"), root / "pruned", config)
    prompts = random_prompts(LENGTHS)
    return folder, prompts, transformers_greedy(load(folder), prompts)


@pytest.fixture
def rows(monkeypatch):
    """How many rows each call of `linear` got: those that are pruned."""
    counted = []
    original = products.linear

    def linear(x, *args, **kwargs):
        counted.append(len(x))
        return original(x, *args, **kwargs)

    monkeypatch.setattr(products, "linear", linear)
    return counted


# Chunks, prefix cache, eager, processes. Those that CI leaves out are slow.
QUICK = [
    *itertools.product(CHUNKS, (False, True), [True], [1]),
    *itertools.product(CHUNKS, [True], [False], [1]),
    *itertools.product(["chunks"], [True], (True, False), [2]),
]
ALL = itertools.product(CHUNKS, (False, True), (True, False), (1, 2))


@pytest.mark.parametrize(
    "chunks, prefix_caching, eager, processes",
    [pytest.param(*setting, marks=() if setting in QUICK else SLOW) for setting in ALL],
)
def test_tokens(served, rows, monkeypatch, chunks, prefix_caching, eager, processes):
    if processes == 2:
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    folder, prompts, expected = served
    options = {
        "enable_prefix_caching": prefix_caching,
        "enforce_eager": eager,
        "tensor_parallel_size": processes,
    }
    with engine(folder, **options, **CHUNKS[chunks]) as llm:
        for prefixes_are_cached in (False, prefix_caching):
            rows.clear()
            assert greedy(llm, prompts) == expected
            if processes == 1:  # the rows of other processes are not seen here
                # Three layers with q and down, two with gate.
                every = 8 * sum(LENGTHS)
                assert (0 < sum(rows) < every) if prefixes_are_cached else sum(rows) == every


@pytest.mark.slow
def test_two_stages(served, monkeypatch):
    """Pipeline parallelism; compiled, since vLLM 0.32 does not run it otherwise on a CPU, dense or pruned."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    folder, prompts, expected = served
    with engine(folder, pipeline_parallel_size=2, enforce_eager=False, **CHUNKS["chunks"]) as llm:
        assert greedy(llm, prompts) == expected


def test_alone_and_in_a_batch(served):
    """What else is in the batch does not change an answer."""
    folder, prompts, expected = served
    with engine(folder, **CHUNKS["chunks"]) as llm:
        assert [greedy(llm, [prompt])[0] for prompt in prompts] == expected
