"""What engines do with requests: preemption, cancelling, adapters, loading weights again, prefill and decode apart."""

import pytest
import torch
from engine import engine, greedy, random_prompts, transformers_greedy
from models import load, save_dense, save_pruned
from vllm import SamplingParams
from vllm.config import KVTransferConfig
from vllm.lora.request import LoRARequest
from vllm.v1.core.sched.scheduler import Scheduler

from amber_ext import AmberConfig, decode, prefill

LENGTHS = (150, 33, 100, 1, 257, 16, 300, 64)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A pruned folder, prompts, and what transformers answers."""
    root = tmp_path_factory.mktemp("model")
    folder = save_pruned(save_dense(root / "dense"), root / "pruned", AmberConfig(pattern="8:16"))
    prompts = random_prompts(LENGTHS)
    return folder, prompts, transformers_greedy(load(folder), prompts, 40)


def test_preempted_requests(served, monkeypatch):
    """What they had sampled is computed anew, and dense: as it was the first time."""
    preempted = []
    original = Scheduler._preempt_request

    def preempt(scheduler, request, *args, **kwargs):
        preempted.append(len(request.output_token_ids))
        return original(scheduler, request, *args, **kwargs)

    monkeypatch.setattr(Scheduler, "_preempt_request", preempt)
    folder, prompts, _ = served
    # Keys and values of 448 tokens, for prompts of 921.
    options = {"kv_cache_memory_bytes": 448 * 3 * 2 * 2 * 32 * 4, "block_size": 32, "max_model_len": 400}
    with engine(folder, max_num_batched_tokens=64, **options) as llm:
        assert greedy(llm, prompts, 80) == transformers_greedy(load(folder), prompts, 80)
    assert max(preempted) > 0


def test_cancelled_requests(served):
    folder, prompts, expected = served
    parameters = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, detokenize=False)
    with engine(folder, max_num_batched_tokens=64, enable_prefix_caching=True) as llm:
        core = llm.llm_engine
        for index, prompt in enumerate(prompts):
            core.add_request(str(index), {"prompt_token_ids": prompt}, parameters)
        answers, steps = {}, 0
        while core.has_unfinished_requests():
            for output in core.step():
                if output.finished:
                    answers[int(output.request_id)] = list(output.outputs[0].token_ids)
            steps += 1
            if steps in (2, 9):  # the first while it is in its prompt, the other while it decodes
                core.abort_request(["6" if steps == 2 else "0"])
        assert answers == {i: expected[i] for i in range(len(prompts)) if i not in (0, 6)}
        assert greedy(llm, prompts, 40) == expected


def test_adapters(served, tmp_path):
    peft = pytest.importorskip("peft")
    folder, prompts, _ = served
    torch.manual_seed(1)
    config = peft.LoraConfig(r=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(load(folder), config).eval()
    tuned.save_pretrained(tmp_path)
    expected = transformers_greedy(tuned, prompts)
    with engine(folder, enable_lora=True, max_lora_rank=8, max_num_batched_tokens=64) as llm:
        assert greedy(llm, prompts, lora_request=LoRARequest("tuned", 1, str(tmp_path))) == expected
        assert greedy(llm, prompts) == transformers_greedy(load(folder), prompts)


def test_weights_that_are_loaded_again(tmp_path):
    """Scores are those of the new weights."""
    folder = save_pruned(save_dense(tmp_path / "dense"), tmp_path / "pruned", AmberConfig(pattern="8:16"))
    prompts = random_prompts(LENGTHS)
    with engine(folder) as llm:
        before = greedy(llm, prompts)
        model = load(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        llm.collective_rpc("reload_weights")
        after = greedy(llm, prompts)
    assert after == transformers_greedy(load(folder), prompts) != before


# Of keys and values, for the connector below.
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
    """A pruned instance prefills, a dense one decodes; vLLM's connector passes keys and values through a folder."""
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
