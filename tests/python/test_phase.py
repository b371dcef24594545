"""Prefill runs sparse and decode dense, told apart by the cache, never by a sequence length."""

import threading

import pytest
import torch
from helpers import PROMPT, greedy, steps

import amber_ext
from amber_ext import AmberConfig, decode, prefill, sparsify_
from amber_ext.phase import current_phase


def test_greedy_generation(pruned, calls):
    pruned.generate(PROMPT, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert steps(calls) == [("sparse", 10)] + [("dense", 1)] * 4


def test_a_prompt_of_one_token_is_prefill(pruned, calls):
    pruned.generate(PROMPT[:, :1], max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert steps(calls) == [("sparse", 1)] + [("dense", 1)] * 2


def test_prompt_lookup_decodes_several_tokens_densely(pruned, calls):
    output = greedy(pruned, PROMPT, max_new_tokens=8, prompt_lookup_num_tokens=3)
    seen = steps(calls)
    assert seen[0] == ("sparse", 13)  # transformers verifies the first candidates with the prompt
    assert all(kind == "dense" for kind, _ in seen[1:])
    assert any(length > 1 for _, length in seen[1:])  # candidates were in fact tried
    calls.clear()
    assert torch.equal(output, greedy(pruned, PROMPT, max_new_tokens=8))


def test_a_padded_batch(pruned, calls):
    prompts = torch.tensor([[0, 0, 0, 5, 6, 7], [9, 8, 7, 6, 5, 4]])
    mask = (prompts != 0).long()
    kwargs = {"max_new_tokens": 4, "min_new_tokens": 4}
    batched = greedy(pruned, prompts, attention_mask=mask, **kwargs)
    assert steps(calls) == [("sparse", 6)] + [("dense", 1)] * 3
    # Pruning is per token, so padding does not change what the other tokens become.
    alone = greedy(pruned, prompts[:1, 3:], **kwargs)
    assert torch.equal(batched[0, 6:], alone[0, 3:])


def test_beam_search(pruned, calls):
    pruned.generate(PROMPT, max_new_tokens=3, min_new_tokens=3, num_beams=2, do_sample=False)
    assert steps(calls) == [("sparse", 10)] + [("dense", 1)] * 2


def test_static_cache(pruned, calls):
    pruned.generate(
        PROMPT,
        max_new_tokens=4,
        min_new_tokens=4,
        do_sample=False,
        cache_implementation="static",
        disable_compile=True,
    )
    assert steps(calls) == [("sparse", 10)] + [("dense", 1)] * 3


def test_without_a_cache_every_call_is_prefill(pruned, calls):
    pruned(PROMPT, use_cache=False)
    pruned.generate(PROMPT, max_new_tokens=2, min_new_tokens=2, do_sample=False, use_cache=False)
    assert steps(calls) == [("sparse", 10), ("sparse", 10), ("sparse", 11)]


def test_chunked_prefill_is_dense_unless_told(pruned, calls):
    cache = pruned(PROMPT[:, :4], use_cache=True).past_key_values
    pruned(PROMPT[:, 4:7], past_key_values=cache)
    with prefill():
        pruned(PROMPT[:, 7:], past_key_values=cache)
    assert steps(calls) == [("sparse", 4), ("dense", 3), ("sparse", 3)]


def test_continuous_batching_is_dense(pruned, calls):
    from transformers import ContinuousBatchingConfig, GenerationConfig

    outputs = pruned.generate_batch(
        inputs=[[5, 6, 7], [8, 9, 10, 11]],
        generation_config=GenerationConfig(
            max_new_tokens=3, do_sample=False, eos_token_id=-1, pad_token_id=0
        ),
        # Unless it is told, its cache takes most of the machine's memory.
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=64),
    )
    assert sorted(len(output.generated_tokens) for output in outputs.values()) == [3, 3]
    # One call packs both prompts, later ones both next tokens: no length tells them apart.
    assert steps(calls) == [("dense", 7), ("dense", 2), ("dense", 2)]


def test_cache_given_by_position(pruned, calls):
    cache = pruned(PROMPT[:, :4], use_cache=True).past_key_values
    pruned(PROMPT[:, 4:6], None, None, cache)
    assert steps(calls) == [("sparse", 4), ("dense", 2)]


def test_explicit_phases_win_and_nest(pruned, calls):
    with decode():
        pruned(PROMPT)
        with prefill():
            assert current_phase() == "prefill"
            pruned(PROMPT)
        assert current_phase() == "decode"
    assert steps(calls) == [("dense", 10), ("sparse", 10)]
    assert current_phase() == "prefill"


def test_the_phase_ends_with_the_call_even_on_an_error(pruned):
    cache = pruned(PROMPT, use_cache=True).past_key_values
    with pytest.raises(Exception, match="index out of range"):
        pruned(torch.tensor([[10**6]]), past_key_values=cache)
    assert current_phase() == "prefill"


def test_phases_belong_to_a_thread():
    seen = []
    with decode():
        thread = threading.Thread(target=lambda: seen.append(current_phase()))
        thread.start()
        thread.join()
        assert current_phase() == "decode"
    assert seen == ["prefill"]


def test_prefill_of_a_pruned_model_differs_and_decode_does_not(tiny_llama):
    with torch.inference_mode():
        dense = tiny_llama(PROMPT).logits
        sparsify_(tiny_llama, AmberConfig())
        with amber_ext.decode():
            assert torch.equal(tiny_llama(PROMPT).logits, dense)
        assert not torch.equal(tiny_llama(PROMPT).logits, dense)


def test_a_cache_by_an_unknown_name_is_refused(snapshot):
    """Else every decode would silently run sparse, or every prefill dense."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = torch.nn.Linear(32, 32)

        def forward(self, input_ids, memory=None, use_cache=True):
            return self.q_proj(input_ids)

    model = Model()
    unchanged = snapshot(model)
    with pytest.raises(ValueError, match="Model caches, but its forward takes no cache or past_key_values"):
        sparsify_(model, AmberConfig(targets=("q_proj",)))
    unchanged()
