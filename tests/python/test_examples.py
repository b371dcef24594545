"""The examples run as printed."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from helpers import REPOSITORY

from amber_ext import AmberConfig, sparsify_
from amber_ext.evaluation.text import greedy_answer

pytestmark = pytest.mark.slow

EXAMPLES = REPOSITORY / "examples"


def run(name, *arguments, input=None):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, input=input)
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
    pruned_layers, layers = map(int, re.search(r"(\d+) of (\d+) linear projections pruned", output).groups())
    assert layers == 210 and 0 < pruned_layers <= 210
    cost, dense, pruned = map(
        float, re.search(r"cost (\S+) of dense; perplexity (\S+) -> (\S+)$", output.strip()).groups()
    )
    assert 0.5 <= cost <= 0.8
    # A plan for four fifths of the cost keeps most of what the model knows; rounding alone moves it by up to 5 %.
    assert 0.95 * dense < pruned < 1.3 * dense


def test_quantize_save_reload(tmp_path):
    output = run("quantize_save_reload.py", tmp_path / "out")
    assert "210 of 210 linear projections in int8" in output
    before, same, answer = output.strip().rpartition("the same logits after saving and loading: True")
    assert same and answer.strip()  # what it answers hangs on the processor's rounding


def test_chat():
    output = run("chat.py", input="My name is Ada.\nWhat is my name?\nAnd yours?\n\nnot read\n")
    turns = re.findall(r"^\[(\d+) tokens in the cache, (\d+) prefilled\] (.+)", output, flags=re.MULTILINE)
    assert len(turns) == 3 and "Ada" in turns[1][2]
    cached, prefilled = [int(turn[0]) for turn in turns], [int(turn[1]) for turn in turns]
    # Every turn finds what the ones before it left: at least their prompts.
    assert cached[0] == 0 and cached[1] >= prefilled[0] and cached[2] >= cached[1] + prefilled[1]


def test_lora(tmp_path):
    pytest.importorskip("peft", reason="peft is not installed (pip install peft)")
    output = run("lora.py", tmp_path / "adapter")
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", output)]
    assert losses[-1] < losses[0] / 3 and "90 of 210 linear projections pruned to 12:16w" in output
    without, learned = re.search(r"without the adapter: (.*)\nwith it: (.*)", output).groups()
    assert "Marta" in learned and "Marta" not in without


def test_evaluate(tiny_model_folder, tmp_path):
    for name, letters in (("calibration", "abcdefgh"), ("text", "hgfedcba")):
        (tmp_path / name).write_text(" ".join(letters * 40))
    tools = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    arguments = [tiny_model_folder, tmp_path / "calibration", tmp_path / "text", tmp_path / "out"]
    result = subprocess.run([EXAMPLES / "evaluate.sh", *arguments], capture_output=True, text=True, env=tools)
    assert result.returncode == 0, result.stderr
    assert "plan" in (tmp_path / "out/eval/table.md").read_text()
    assert "# tiny_model" in (tmp_path / "out/pruned/README.md").read_text()


def test_serve(smollm2):
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "serve.py"), "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        address = next(line.split()[-1] for line in process.stdout if line.startswith("listening"))

        def post(body):
            return json.load(urllib.request.urlopen(address, data=json.dumps(body).encode()))

        prompt = "What is the capital of France?"
        # The same computation in this process: not a text that other processors need not give.
        sparsify_(smollm2.model, AmberConfig(pattern="12:16w"))
        expected = greedy_answer(smollm2.model, smollm2.tokenizer, prompt, 8)
        assert post({"prompt": prompt, "max_new_tokens": 8}) == {"text": expected} and expected
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post({"question": "?"})
    finally:
        process.kill()
        process.wait()
