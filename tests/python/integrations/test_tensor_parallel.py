"""Two processes over gloo: the same logits as one, the same scores on every rank, refusals that say why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny_llama_config

WORKER = Path(__file__).with_name("tensor_parallel_worker.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tensor_parallel") / "model"
    # Older transformers split only an even vocabulary.
    LlamaForCausalLM(tiny_llama_config(vocab_size=96)).save_pretrained(path)
    return path


def run(folder, out, processes, kind="pruned", pattern="8:16", rescale="none"):
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(WORKER), str(folder), str(out), kind, pattern, rescale]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize("pattern", ["2:4", "8:16", "12:16w"])
def test_two_processes_compute_what_one_does(folder, tmp_path, pattern):
    for name, processes in (("one", 1), ("two", 2)):
        result = run(folder, tmp_path / name, processes, pattern=pattern)
        assert result.returncode == 0, result.stderr
    one = torch.load(tmp_path / "one.0")
    ranks = [torch.load(tmp_path / f"two.{rank}") for rank in range(2)]
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


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pattern": "16:32"}, "its shard of K = 80 channels is not a multiple of M = 32"),
        ({"rescale": "variance"}, "rescale: 'variance' is not allowed where channels are split"),
        ({"kind": "quantized"}, "8-bit layers cannot be split between 2 processes"),
    ],
)
def test_what_cannot_be_split_is_refused(folder, tmp_path, arguments, message):
    result = run(folder, tmp_path / "out", 2, **arguments)
    assert result.returncode != 0 and message in result.stderr, result.stderr
    assert not (tmp_path / "out.0").exists()
