"""The phase of every call of ``generate()``: prefill while it processes the prompt, decode from the first sampled token."""

import copy
import pickle

import pytest
import torch
from helpers import PROMPT, greedy, steps, tiny_llama_config

from amber_ext import AmberConfig, decode, densify_, prefill, sparsify_

DECODED = [("dense", 1)]


def generate(model, *args, tokens=4, **options):
    return model.generate(*args, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, **options)


STATIC = {"cache_implementation": "static", "disable_compile": True}


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True, "top_k": 5}, STATIC], ids=str)
def test_one_call_of_prefill_then_decode(pruned, calls, options):
    pruned.generate(PROMPT, **{"do_sample": False, **options}, max_new_tokens=4, min_new_tokens=4)
    assert steps(calls) == [("sparse", 10)] + DECODED * 3


def test_a_prompt_of_one_token_is_prefill(pruned, calls):
    for options in ({}, STATIC):
        generate(pruned, PROMPT[:, :1], tokens=3, **options)
        assert steps(calls) == [("sparse", 1)] + DECODED * 2
        calls.clear()


def test_a_padded_batch(pruned, calls):
    prompts = torch.tensor([[0, 0, 0, 5, 6, 7], [9, 8, 7, 6, 5, 4]])
    mask = (prompts != 0).long()
    kwargs = {"max_new_tokens": 4, "min_new_tokens": 4}
    batched = greedy(pruned, prompts, attention_mask=mask, **kwargs)
    assert steps(calls) == [("sparse", 6)] + DECODED * 3
    # Pruning is per token, so padding does not change what the other tokens become.
    alone = greedy(pruned, prompts[:1, 3:], **kwargs)
    assert torch.equal(batched[0, 6:], alone[0, 3:])


@pytest.mark.parametrize("cache", [{}, STATIC], ids=["dynamic", "static"])
@pytest.mark.parametrize("chunk", [4, 3])
def test_every_chunk_of_a_prompt_is_prefill(pruned, calls, cache, chunk):
    """Also a last chunk of a single token."""
    chunked = generate(pruned, PROMPT, prefill_chunk_size=chunk, **cache)
    lengths = [chunk] * (10 // chunk) + [10 % chunk]
    assert steps(calls) == [("sparse", length) for length in lengths] + DECODED * 3
    assert torch.equal(chunked, generate(pruned, PROMPT, **cache))


@pytest.mark.parametrize("cached_prompts", ["sparse", "dense"])
def test_a_later_turn_is_prefill(tiny_llama, calls, cached_prompts):
    """In generate() it is known to be prompt, so the policy for bare calls is not asked."""
    sparsify_(tiny_llama, AmberConfig(cached_prompts=cached_prompts))
    first = generate(tiny_llama, PROMPT, return_dict_in_generate=True)
    cache = first.get("cache", first.get("past_key_values"))
    calls.clear()
    turn = torch.cat([first.sequences, PROMPT[:, :5]], -1)
    generate(tiny_llama, turn, past_key_values=cache)
    assert (
        steps(calls) == [("sparse", 6)] + DECODED * 3
    )  # 5, and the last sampled one, which no call has seen


def test_prompt_lookup_verifies_densely(pruned, calls):
    output = greedy(pruned, PROMPT, max_new_tokens=8, prompt_lookup_num_tokens=3)
    seen = steps(calls)
    assert seen[0] == ("mixed", 10, 3)  # transformers verifies the first candidates together with the prompt
    assert all(kind == "dense" for kind, _ in seen[1:])
    assert any(length > 1 for _, length in seen[1:])  # candidates were in fact tried
    calls.clear()
    assert torch.equal(output, greedy(pruned, PROMPT, max_new_tokens=8))


def test_lookup_from_the_generation_config(pruned, calls):
    pruned.generation_config.prompt_lookup_num_tokens = 3
    pruned.generate(PROMPT, max_new_tokens=4, do_sample=False)
    assert steps(calls)[0] == ("mixed", 10, 3)


@pytest.fixture
def assistant():
    """Of the same vocabulary."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(5)
    return LlamaForCausalLM(tiny_llama_config(num_hidden_layers=1)).eval()


def test_assisted_generation_verifies_densely(pruned, assistant, calls):
    output = pruned.generate(PROMPT, max_new_tokens=6, do_sample=False, assistant_model=assistant)
    (kind, prompt, candidates), *later = steps(calls)
    assert (kind, prompt) == ("mixed", 10) and candidates > 0
    assert later and all(kind == "dense" for kind, _ in later)
    assert output.shape == (1, 16)


def test_a_pruned_assistant_drafts_densely(tiny_llama, assistant, calls):
    """Its prompt is the target's; what it reads in later rounds the target has sampled."""
    sparsify_(assistant, AmberConfig(targets=("q_proj",)))
    tiny_llama.generate(PROMPT, max_new_tokens=8, do_sample=False, assistant_model=assistant)
    assert calls[0] == ("sparse", 10)
    assert len(calls) > 4 and all(kind == "dense" for kind, _ in calls[1:])


def test_without_a_cache_each_row_is_what_it_is(pruned, calls):
    """So that the tokens are those of a generation with a cache."""
    for options in ({}, {"num_beams": 2}):
        uncached = generate(pruned, PROMPT, use_cache=False, tokens=3, **options)
        beams = options.get("num_beams", 1)
        seen = steps(calls)
        assert seen[0][0] == "sparse"
        # Rows of all beams, when they are split.
        assert seen[1:] == [("mixed", 10 * beams, beams), ("mixed", 10 * beams, 2 * beams)]
        assert torch.equal(uncached, generate(pruned, PROMPT, tokens=3, **options))
        calls.clear()


def test_embeddings_are_a_prompt(pruned, calls):
    generate(pruned, inputs_embeds=pruned.get_input_embeddings()(PROMPT), prompt_lookup_num_tokens=None)
    assert steps(calls) == [("sparse", 10)] + DECODED * 3


def test_explicit_phases_overrule_generation(pruned, calls):
    with decode():
        generate(pruned, PROMPT, tokens=2)
    with prefill():
        generate(pruned, PROMPT, tokens=2)
    assert steps(calls) == [("dense", 10), ("dense", 1), ("sparse", 10), ("sparse", 1)]


def test_continuous_batching_prunes_the_rows_of_prompts(pruned, calls):
    from transformers import ContinuousBatchingConfig, GenerationConfig

    outputs = pruned.generate_batch(
        inputs=[[5, 6, 7], [8, 9, 10, 11], [4, 5, 6, 7, 8, 9]],
        generation_config=GenerationConfig(
            max_new_tokens=3, do_sample=False, eos_token_id=-1, pad_token_id=0
        ),
        # Unless it is told, its cache takes most of the machine's memory. The third prompt comes in pieces of 1, ...
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=8),
    )
    assert sorted(len(output.generated_tokens) for output in outputs.values()) == [3, 3, 3]
    seen = steps(calls)
    # ... and 5, the latter beside one decoded token of each other request.
    assert seen[:2] == [("sparse", 8), ("mixed", 5, 2)]
    assert [call for call in seen[2:] if call[0] != "dense"] == []


def test_continuous_batching_knows_a_last_chunk_of_one_token(pruned, calls):
    from transformers import ContinuousBatchingConfig, GenerationConfig

    pruned.generate_batch(
        inputs=[[4, 5, 6, 7, 8, 9, 10, 11, 12]],
        generation_config=GenerationConfig(
            max_new_tokens=3, do_sample=False, eos_token_id=-1, pad_token_id=0
        ),
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=8),
    )
    assert steps(calls) == [("sparse", 8), ("sparse", 1), ("dense", 1), ("dense", 1)]


def test_other_stopping_criteria_are_kept(pruned, calls):
    def after_two(input_ids, scores, **options):
        return torch.full((len(input_ids),), input_ids.shape[1] >= 12)

    from transformers import StoppingCriteriaList

    criteria = StoppingCriteriaList([after_two])
    for args, options in ((), {"stopping_criteria": criteria}), ((None, None, criteria), {}):
        assert pruned.generate(PROMPT, *args, max_new_tokens=9, **options).shape == (1, 12)
        assert steps(calls) == [("sparse", 10), ("dense", 1)]
        calls.clear()
    assert len(criteria) == 1


def loop(model, input_ids, **options):
    """A user's own, which asks no stopping criteria; `generate` takes it as ``custom_generate``."""
    chunk = options["generation_config"].prefill_chunk_size or 10
    cache = None
    for begin in range(0, 10, chunk):
        output = model(input_ids[:, begin : begin + chunk], use_cache=True, past_key_values=cache)
        cache = output.get("cache", output.get("past_key_values"))
    for _ in range(2):
        token = output.logits[:, -1:].argmax(-1)
        input_ids = torch.cat([input_ids, token], -1)
        output = model(token, past_key_values=cache)
    return input_ids


def test_a_loop_that_asks_no_criteria(pruned, calls):
    pruned.generate(PROMPT, custom_generate=loop, max_new_tokens=2)
    assert steps(calls) == [("sparse", 10)] + DECODED * 2
    message = "generate: the loop of LlamaForCausalLM never asks its stopping criteria"
    with pytest.raises(RuntimeError, match=message):
        pruned.generate(PROMPT, custom_generate=loop, max_new_tokens=2, prefill_chunk_size=5)


def test_an_error_in_generate_leaves_nothing_behind(pruned, calls):
    def fail(input_ids, scores, **options):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pruned.generate(PROMPT, max_new_tokens=3, stopping_criteria=[fail])
    calls.clear()
    cache = pruned(PROMPT[:, :4], use_cache=True).past_key_values
    pruned(PROMPT[:, 4:], past_key_values=cache)
    assert steps(calls) == [("sparse", 4), ("sparse", 6)]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_model_know_their_phases(pruned, calls, duplicate):
    copied = duplicate(pruned)
    assert copied.generate.__wrapped__.__self__ is copied
    generate(copied, PROMPT, prefill_chunk_size=5)
    assert steps(calls) == [("sparse", 5)] * 2 + DECODED * 3


def test_a_dense_model_generates_as_before(tiny_llama):
    sparsify_(tiny_llama, AmberConfig())
    assert "generate" in vars(tiny_llama)
    densify_(tiny_llama)
    assert "generate" not in vars(tiny_llama)
