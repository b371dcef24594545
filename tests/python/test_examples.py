"""The examples run as printed."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from helpers import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_prune_and_generate(smollm2, tmp_path):
    smollm2.model.save_pretrained(tmp_path / "model")
    smollm2.tokenizer.save_pretrained(tmp_path / "model")
    output = run("prune_and_generate.py", tmp_path / "model", tmp_path / "out")
    assert "90 of 210 linear projections pruned to 8:16" in output
    assert "The capital of France is" in output and "loading: True" in output


def test_plan():
    output = run("plan.py")
    assert "cost 0.7" in output or "cost 0.8" in output
    dense, pruned = map(float, output.rpartition("perplexity ")[2].split(" -> "))
    assert dense < pruned < 1.3 * dense


def test_quantize_save_reload(tmp_path):
    output = run("quantize_save_reload.py", tmp_path / "out")
    assert "210 of 210 linear projections in int8" in output
    assert "loading: True" in output and "Paris" in output


def test_serve():
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "serve.py"), "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        address = next(line.split()[-1] for line in process.stdout if line.startswith("listening"))

        def post(body):
            return json.load(urllib.request.urlopen(address, data=json.dumps(body).encode()))

        assert "Paris" in post({"prompt": "What is the capital of France?", "max_new_tokens": 16})["text"]
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post({"question": "?"})
    finally:
        process.kill()
        process.wait()
