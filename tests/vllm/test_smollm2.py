"""A model that people know, SmolLM2-135M, in fp32, on text: prompts of up to 700 tokens, in chunks, behind cached prefixes.

Not every token is transformers' own: of the millions of choices between channels in such a batch some are so close that rounding
decides them, and 2:4 makes much of one. transformers does not agree with itself either, where its two implementations of
attention round differently; the engine must agree with it as much as they do.
"""

from pydoc_data.topics import topics

import pytest
import torch
from engine import engine, greedy, transformers_greedy
from models import load, save_smollm2
from transformers import AutoTokenizer

from amber_ext import AmberConfig, decode, prefill

LENGTHS = (5, 33, 100, 2, 257, 16, 700, 64)
COUNT = 12


def behind_the_best(model, prompt, answer):
    """By how much each token's logit is below the largest, with the answer so far behind it."""
    with torch.inference_mode():
        with prefill():
            output = model(torch.tensor([prompt]), use_cache=True)
        with decode():
            others = model(torch.tensor([answer[:-1]]), past_key_values=output.past_key_values).logits[0]
    logits = torch.cat([output.logits[0, -1:], others])
    return logits.amax(1) - logits.gather(1, torch.tensor(answer)[:, None])[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["2:4", "8:16", "12:16w"])
def test_smollm2(tmp_path, pattern):
    folder = save_smollm2(tmp_path, AmberConfig(pattern=pattern))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [topics[name] for name in sorted(topics, key=lambda name: -len(topics[name]))]
    prompts = [tokenizer(text).input_ids[:length] for text, length in zip(texts, LENGTHS, strict=False)]
    options = {"kv_cache_memory_bytes": 256 * 2**20, "enable_prefix_caching": True}
    with engine(folder, max_num_batched_tokens=256, **options) as llm:
        answers = greedy(llm, prompts, COUNT)
        assert greedy(llm, prompts, COUNT) == answers
    model = load(folder)
    model.set_attn_implementation("eager")
    rounded_otherwise = transformers_greedy(model, prompts, COUNT)
    model.set_attn_implementation("sdpa")
    agreement, own = (
        (torch.stack([behind_the_best(model, *pair) for pair in zip(prompts, found, strict=True)]) == 0)
        .float()
        .mean()
        for found in (answers, rounded_otherwise)
    )
    print(
        f"{pattern}: {agreement:.3f} of the engine's tokens are transformers', {own:.3f} of its own with other rounding"
    )
    assert agreement > own - 0.05
