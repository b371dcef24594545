"""Speculative decoding: drafts are verified dense, however many tokens come at once.

In a file, and so in a process, of its own: with what vLLM imports for it, no further engine starts there.
"""

from engine import engine, greedy, random_prompts, transformers_greedy
from models import load, save_dense, save_pruned

from amber_ext import AmberConfig


def test_drafts_are_verified_in_decode(tmp_path):
    folder = save_pruned(save_dense(tmp_path / "dense"), tmp_path / "pruned", AmberConfig(pattern="8:16"))
    # Prompts that repeat themselves, so that there are drafts, and answers that do.
    prompts = [prompt * 4 for prompt in random_prompts([20] * 6)]
    expected = transformers_greedy(load(folder), prompts, 40)
    drafts = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    with engine(folder, speculative_config=drafts, max_num_batched_tokens=64, disable_log_stats=False) as llm:
        assert greedy(llm, prompts, 40) == expected
        drafted = {metric.name: metric for metric in llm.get_metrics()}
    assert drafted["vllm:spec_decode_num_accepted_tokens"].value > 0
