"""Times one engine: `throughput.py` runs it. Prints JSON: seconds of a batch that is all prompt, and of a decode step."""

import json
import os
import statistics
import sys
import time

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="ERROR", VLLM_TARGET_DEVICE="cpu")

import torch  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402

PROMPTS, LENGTH, DECODED, REPEATS = 4, 512, 64, 5

llm = LLM(
    sys.argv[1],
    enforce_eager=True,
    skip_tokenizer_init=True,
    enable_prefix_caching=False,
    max_model_len=1024,
    max_num_seqs=8,
    max_num_batched_tokens=PROMPTS * LENGTH,
    kv_cache_memory_bytes=512 * 2**20,
)
tokens = torch.randint(1, 40000, (PROMPTS, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()


def seconds(prompts: list[list[int]], count: int) -> float:
    """Of a greedy batch."""
    parameters = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    begin = time.perf_counter()
    llm.generate(requests, parameters, use_tqdm=False)
    return time.perf_counter() - begin


seconds(tokens, 2)
short = [prompt[:16] for prompt in tokens]
prefill = statistics.median(seconds(tokens, 1) for _ in range(REPEATS))
decode = statistics.median(
    (seconds(short, 1 + DECODED) - seconds(short, 1)) / DECODED for _ in range(REPEATS)
)
print(json.dumps({"prefill": prefill, "decode": decode}))
