"""Two processes over gloo: the same logits as one, the same scores on every rank, refusals that say why."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import LEAD, tiny_llama_config

WORKER = Path(__file__).with_name("tensor_parallel_worker.py")
PATTERNS = ["2:4", "8:16", "12:16w"]
REFUSED = {
    "a shard that does not fit": (
        {"kind": "pruned", "pattern": "16:32", "rescale": "none"},
        "its shard of K = 80 channels is not a multiple of M = 32",
    ),
    "a rescale": (
        {"kind": "pruned", "pattern": "8:16", "rescale": "variance"},
        "rescale: 'variance' is not allowed where channels are split",
    ),
    "8 bits": (
        {"kind": "quantized", "pattern": "8:16", "rescale": "none"},
        "8-bit layers cannot be split between 2 processes",
    ),
}


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """What one process computes, and each of two: every case in one start, since a start takes seconds."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tensor_parallel")
    # Older transformers split only an even vocabulary.
    LlamaForCausalLM(tiny_llama_config(vocab_size=96)).save_pretrained(path / "model")
    cases = {p: {"kind": "pruned", "pattern": p, "rescale": "none"} for p in PATTERNS}
    refused = {name: case for name, (case, _) in REFUSED.items()}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(launcher, out, cases):
        command = [sys.executable, *launcher, str(WORKER), str(path / "model"), str(path / out)]
        result = subprocess.run(
            [*command, json.dumps(cases)], capture_output=True, text=True, timeout=300, env=environment
        )
        assert result.returncode == 0, result.stderr

    run([], "one", cases)
    run(
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        "two",
        {**cases, **refused},
    )
    return torch.load(path / "one.0"), [torch.load(path / f"two.{rank}") for rank in range(2)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_two_processes_compute_what_one_does(computed, pattern):
    one, ranks = computed[0][pattern], [results[pattern] for results in computed[1]]
    # Rounding cannot turn a choice where the likeliest token leads by more than it moves the logits.
    first, second = one["steps"].topk(2).values.unbind(-1)
    assert (first - second).min() > LEAD
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found["logits"], one["logits"], rtol=1e-4, atol=1e-5)
        assert torch.equal(found["tokens"], one["tokens"])
        for name, (kind, scale) in one["scales"].items():
            other_kind, other = found["scales"][name]
            assert kind == other_kind == "AmberLinear"
            # q and gate see whole tokens; down holds half of the channels, scored by the whole weight.
            wanted = scale.chunk(2)[rank] if "down_proj" in name else scale
            assert torch.equal(other, wanted), name
    assert len(one["scales"]) == 12


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_is_refused(computed, name):
    for results in computed[1]:
        assert isinstance(results[name], str) and REFUSED[name][1] in results[name]
