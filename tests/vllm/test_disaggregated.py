"""A pruned instance prefills, a dense one decodes, and keys and values pass between them: vLLM's connector to a folder."""

import torch
from engine import engine, greedy, random_prompts
from models import load, save_dense, save_pruned
from vllm.config import KVTransferConfig

from amber_ext import AmberConfig, decode, prefill

BLOCK, COUNT = 32, 16


def behind_passed_blocks(model, prompt):
    """The whole blocks that the connector passes come from pruned prefill; the rest of the prompt is the decoder's."""
    passed = (len(prompt) - 1) // BLOCK * BLOCK
    cache, tokens, answer = None, prompt[passed:], []
    with torch.inference_mode():
        if passed:
            with prefill():
                cache = model(torch.tensor([prompt[:passed]]), use_cache=True).past_key_values
        with decode():
            for _ in range(COUNT):
                output = model(torch.tensor([tokens]), past_key_values=cache, use_cache=True)
                cache, tokens = output.past_key_values, [int(output.logits[0, -1].argmax())]
                answer += tokens
    return answer


def test_pruned_prefill_and_dense_decode(tmp_path):
    dense = save_dense(tmp_path / "dense")
    pruned = save_pruned(dense, tmp_path / "pruned", AmberConfig(pattern="8:16"))
    prompts = random_prompts((150, 40, 100, 250, 300, 64))

    def transfer(role):
        folder = {"shared_storage_path": str(tmp_path / "keys_and_values")}
        return KVTransferConfig(
            kv_connector="ExampleConnector", kv_role=role, kv_connector_extra_config=folder
        )

    with engine(pruned, kv_transfer_config=transfer("kv_producer"), block_size=BLOCK) as llm:
        greedy(llm, prompts, 1)
    with engine(dense, kv_transfer_config=transfer("kv_consumer"), block_size=BLOCK) as llm:
        answers = greedy(llm, prompts, COUNT)
    model = load(pruned)
    assert answers == [behind_passed_blocks(model, prompt) for prompt in prompts]
