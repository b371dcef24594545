"""vLLM's engine for tests: on the CPU, in this process, with greedy sampling over token ids."""

import contextlib
import gc
import os

# Before vLLM is imported. One process, so that tests can look inside; one worker process a rank where there are two.
os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_TARGET_DEVICE="cpu",
    VLLM_NO_USAGE_STATS="1",
    VLLM_LOGGING_LEVEL="ERROR",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)

import torch  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402
from vllm.distributed import cleanup_dist_env_and_memory  # noqa: E402

VOCABULARY = 512


@contextlib.contextmanager
def engine(folder, **options):
    """An `LLM` of a folder without a tokenizer, in fp32; shut down in the end."""
    ranks = options.get("tensor_parallel_size", 1) * options.get("pipeline_parallel_size", 1)
    options = {
        "dtype": "float32",
        "enforce_eager": True,
        "skip_tokenizer_init": True,
        "kv_cache_memory_bytes": 64 * 2**20,
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "distributed_executor_backend": "uni" if ranks == 1 else "mp",
        "enable_prefix_caching": False,
        **options,
    }
    llm = LLM(str(folder), **options)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


def greedy(llm, prompts, count=16, **options):
    """The ``count`` most likely tokens behind each prompt, a list of token ids each."""
    parameters = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    outputs = llm.generate(requests, parameters, use_tqdm=False, **options)
    return [list(output.outputs[0].token_ids) for output in outputs]


def transformers_greedy(model, prompts, count=16):
    """The same by transformers, prompt after prompt."""
    return [
        model.generate(
            torch.tensor([p]), max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, len(p) :].tolist()
        for p in prompts
    ]


def random_prompts(lengths, seed=1, vocabulary=VOCABULARY):
    """Token ids, lists of these lengths; none is 0, which transformers takes for padding."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, vocabulary, (n,), generator=generator).tolist() for n in lengths]
