"""The ways to generate that test_phase.py does not have."""

import pytest
import torch
from helpers import PROMPT, steps, tiny_llama_config


def test_sampling(pruned, calls):
    pruned.generate(PROMPT, max_new_tokens=4, min_new_tokens=4, do_sample=True, top_k=5)
    assert steps(calls) == [("sparse", 10)] + [("dense", 1)] * 3


@pytest.fixture
def tiny_llama_pair():
    """A dense assistant of the same vocabulary."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(5)
    return LlamaForCausalLM(tiny_llama_config(num_hidden_layers=1)).eval()


def test_assisted_generation(pruned, tiny_llama_pair, calls):
    output = pruned.generate(PROMPT, max_new_tokens=6, do_sample=False, assistant_model=tiny_llama_pair)
    seen = steps(calls)
    assert seen[0][0] == "sparse" and seen[0][1] >= 10  # the prompt, with the assistant's first candidates
    assert len(seen) > 1 and all(kind == "dense" for kind, _ in seen[1:])
    assert output.shape == (1, 16)


def test_chunked_prefill_of_generate(pruned, calls):
    pruned.generate(
        PROMPT, max_new_tokens=2, min_new_tokens=2, do_sample=False, prefill_chunk_size=4,
        cache_implementation="static", disable_compile=True,
    )  # fmt: skip
    seen = steps(calls)
    assert seen[0][0] == "sparse" and all(kind == "dense" for kind, _ in seen[1:])
