"""A model that people know, SmolLM2-135M, in fp32, on text: prompts of up to 700 tokens, in chunks, behind cached prefixes."""

from pydoc_data.topics import topics

import pytest
from engine import engine, greedy, transformers_greedy
from models import load, save_smollm2
from transformers import AutoTokenizer

from amber_ext import AmberConfig

LENGTHS = (5, 33, 100, 2, 257, 16, 700, 64)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "pattern", ["2:4", pytest.param("8:16", marks=SLOW), pytest.param("12:16w", marks=SLOW)]
)
def test_smollm2(tmp_path, pattern):
    folder = save_smollm2(tmp_path, AmberConfig(pattern=pattern))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [topics[name] for name in sorted(topics, key=lambda name: -len(topics[name]))]
    prompts = [tokenizer(text).input_ids[:length] for text, length in zip(texts, LENGTHS, strict=False)]
    expected = transformers_greedy(load(folder), prompts, 12)
    options = {"kv_cache_memory_bytes": 256 * 2**20, "enable_prefix_caching": True}
    with engine(folder, max_num_batched_tokens=256, **options) as llm:
        assert greedy(llm, prompts, 12) == expected
        assert greedy(llm, prompts, 12) == expected
