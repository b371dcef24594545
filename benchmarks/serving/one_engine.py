"""Times one engine: `throughput.py` runs it. Prints JSON: seconds of a step that is all prompt, and of one that is all decode."""

import json
import os
import statistics
import sys
import time

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="ERROR", VLLM_TARGET_DEVICE="cpu")

import torch  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402

PROMPTS, LENGTH, DECODED, REPEATS = 4, 512, 96, 4

engine = LLM(
    sys.argv[1],
    enforce_eager=True,
    skip_tokenizer_init=True,
    enable_prefix_caching=False,
    max_model_len=1024,
    max_num_seqs=PROMPTS,
    max_num_batched_tokens=PROMPTS * LENGTH,
    kv_cache_memory_bytes=512 * 2**20,
).llm_engine
tokens = torch.randint(1, 40000, (PROMPTS, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
parameters = SamplingParams(temperature=0, max_tokens=1 + DECODED, ignore_eos=True, detokenize=False)


def steps(name: str) -> list[float]:
    """Seconds of each step of a batch: the first holds all prompts, the others one token of each request."""
    for index, prompt in enumerate(tokens):
        engine.add_request(f"{name} {index}", {"prompt_token_ids": prompt}, parameters)
    seconds = []
    while engine.has_unfinished_requests():
        begin = time.perf_counter()
        engine.step()
        seconds.append(time.perf_counter() - begin)
    return seconds


steps("warm up")
prefills, decodes = [], []
for repeat in range(REPEATS):
    first, *others = steps(str(repeat))
    prefills.append(first)
    decodes += others[:DECODED]
print(json.dumps({"prefill": statistics.median(prefills), "decode": statistics.median(decodes)}))
