"""Prefill runs sparse and decode dense, told apart by the cache, never by a sequence length alone."""

import asyncio
import contextlib
import threading

import pytest
import torch
from helpers import PROMPT, steps

import amber_ext
from amber_ext import AmberConfig, decode, prefill, sparsify_
from amber_ext.phase import current_phase, rows_of_requests


def cached(model, ids):
    return model(ids, use_cache=True).past_key_values


def test_without_a_cache_every_call_is_prefill(pruned, calls):
    pruned(PROMPT, use_cache=False)
    pruned(PROMPT[:, :1], use_cache=False)
    assert steps(calls) == [("sparse", 10), ("sparse", 1)]


def test_several_tokens_behind_a_cache_are_the_rest_of_a_prompt(pruned, calls):
    cache = cached(pruned, PROMPT[:, :4])
    pruned(PROMPT[:, 4:7], past_key_values=cache)
    pruned(PROMPT[:, 7:8], past_key_values=cache)  # one token: decode
    with decode():
        pruned(PROMPT[:, 8:], past_key_values=cache)
    assert steps(calls) == [("sparse", 4), ("sparse", 3), ("dense", 1), ("dense", 2)]


def test_unless_the_configuration_says_that_they_were_sampled(tiny_llama, calls):
    sparsify_(tiny_llama, AmberConfig(cached_prompts="dense"))
    cache = cached(tiny_llama, PROMPT[:, :4])
    tiny_llama(PROMPT[:, 4:7], past_key_values=cache)
    with prefill():
        tiny_llama(PROMPT[:, 7:], past_key_values=cache)
    assert steps(calls) == [("sparse", 4), ("dense", 3), ("sparse", 3)]
    calls.clear()
    sparsify_(tiny_llama, AmberConfig())
    tiny_llama(PROMPT[:, 4:7], past_key_values=cached(tiny_llama, PROMPT[:, :4]))
    assert steps(calls) == [("sparse", 4), ("sparse", 3)]


def test_cached_prompts_is_checked_and_saved():
    with pytest.raises(ValueError, match="cached_prompts: 'on' is not known; allowed: 'sparse', 'dense'"):
        AmberConfig(cached_prompts="on")
    config = AmberConfig(cached_prompts="dense")
    assert AmberConfig.from_dict(config.to_dict()) == config
    old = {name: value for name, value in config.to_dict().items() if name != "cached_prompts"}
    assert AmberConfig.from_dict(old).cached_prompts == "sparse"


def test_a_static_cache(pruned, calls):
    from transformers import StaticCache

    for policy, second in (("sparse", "sparse"), ("dense", "dense")):
        sparsify_(pruned, AmberConfig(cached_prompts=policy))
        calls.clear()
        cache = StaticCache(config=pruned.config, max_cache_len=16)
        for begin, end in ((0, 4), (4, 7), (7, 8)):
            pruned(PROMPT[:, begin:end], past_key_values=cache)
        assert steps(calls) == [("sparse", 4), (second, 3), ("dense", 1)]


def test_cache_given_by_position(pruned, calls):
    pruned(PROMPT[:, 4:5], None, None, cached(pruned, PROMPT[:, :4]))
    assert steps(calls) == [("sparse", 4), ("dense", 1)]


def test_the_model_inside_called_alone(pruned, calls):
    """As peft does: it calls the language model's forward past the hooks on that."""
    pruned.model(PROMPT[:, 4:5], past_key_values=cached(pruned, PROMPT[:, :4]))
    pruned.forward(PROMPT[:, 4:5], past_key_values=cached(pruned, PROMPT[:, :4]))
    assert steps(calls) == [("sparse", 4), ("dense", 1)] * 2


def test_a_cache_that_does_not_say_what_it_holds_is_refused(pruned):
    with pytest.raises(TypeError, match="cache: tuple does not say how many tokens it holds"):
        pruned(PROMPT, past_key_values=((torch.ones(1),),))


def test_explicit_phases_win_and_nest(pruned, calls):
    with decode():
        pruned(PROMPT)
        with prefill():
            assert current_phase() == "prefill"
            pruned(PROMPT)
        assert current_phase() == "decode"
    assert steps(calls) == [("dense", 10), ("sparse", 10)]
    assert current_phase() == "prefill"


@pytest.mark.parametrize("error", [IndexError, KeyboardInterrupt])
def test_the_phase_ends_with_the_call_even_on_an_error(pruned, calls, error):
    """torch calls no hooks after an interrupt, so the next call must clean up."""
    cache = cached(pruned, PROMPT)

    def fail(module, args):
        raise error

    with pruned.model.layers[1].register_forward_pre_hook(fail), pytest.raises(error):
        pruned(PROMPT[:, :1], past_key_values=cache)
    calls.clear()
    pruned(PROMPT)
    assert steps(calls) == [("sparse", 10)]
    assert current_phase() == "prefill"


def test_phases_belong_to_a_thread():
    seen = []
    with decode():
        thread = threading.Thread(target=lambda: seen.append(current_phase()))
        thread.start()
        thread.join()
        assert current_phase() == "decode"
    assert seen == ["prefill"]


def test_phases_belong_to_an_asyncio_task():
    seen = []

    async def task(context, begun, other):
        with context():
            begun.set()
            await other.wait()
            seen.append((context.__name__, current_phase()))
        seen.append(("after", current_phase()))

    async def main():
        a, b = asyncio.Event(), asyncio.Event()
        await asyncio.gather(task(decode, a, b), task(prefill, b, a))

    asyncio.run(main())
    assert sorted(seen) == [("after", "prefill")] * 2 + [("decode", "decode"), ("prefill", "prefill")]
    assert current_phase() == "prefill"


def test_ends_in_any_order_leave_nothing_behind():
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(decode())
    second.enter_context(prefill())
    first.close()
    assert current_phase() == "prefill"
    second.close()
    first.enter_context(prefill())
    second.enter_context(decode())
    first.close()
    assert current_phase() == "decode"
    second.close()
    assert current_phase() == "prefill"


def test_requests_of_a_packed_batch():
    """A prompt, a decode, a later chunk, the same of one token, and a preempted request beyond its prompt's end; padding."""
    computed, scheduled = torch.tensor([0, 9, 4, 8, 2]), torch.tensor([2, 1, 2, 1, 3])
    rows = rows_of_requests(computed, scheduled, torch.tensor([5, 9, 6, 9, 3]), 11, torch.device("cpu"))
    indices = torch.arange(11)
    assert indices[rows.prompt].tolist() == [0, 1, 3, 4, 5, 6]
    assert indices[rows.sampled].tolist() == [2, 7, 8, 9, 10]
    for prompts, phase in ((computed + scheduled, "prefill"), (computed, "decode")):
        assert rows_of_requests(computed, scheduled, prompts, 11, torch.device("cpu")) == phase


def test_prefill_of_a_pruned_model_differs_and_decode_does_not(tiny_llama):
    with torch.inference_mode():
        dense = tiny_llama(PROMPT).logits
        sparsify_(tiny_llama, AmberConfig())
        with amber_ext.decode():
            assert torch.equal(tiny_llama(PROMPT).logits, dense)
        assert not torch.equal(tiny_llama(PROMPT).logits, dense)


@pytest.mark.parametrize("flag", ["use_cache", "use_mems"])
def test_a_cache_by_an_unknown_name_is_refused(snapshot, flag):
    """Else every decode would silently run sparse, or every prefill dense."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = torch.nn.Linear(32, 32)

    forwards = {
        "use_cache": lambda self, input_ids, memory=None, use_cache=True: self.q_proj(input_ids),
        "use_mems": lambda self, input_ids, mems=None, use_mems=True: self.q_proj(input_ids),
    }
    Model.forward = forwards[flag]
    model = Model()
    unchanged = snapshot(model)
    with pytest.raises(ValueError, match="Model caches, but its forward takes no cache or past_key_values"):
        sparsify_(model, AmberConfig(targets=("q_proj",)))
    unchanged()


def test_a_module_around_a_model_does_not_decide(pruned, calls):
    class Around(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, ids, **options):
            return self.inner(ids, **options)

    amber_ext.densify_(pruned)
    model = Around(pruned)
    sparsify_(model, AmberConfig())
    model(PROMPT[:, :1], past_key_values=cached(model, PROMPT))
    assert steps(calls) == [("sparse", 10), ("dense", 1)]
