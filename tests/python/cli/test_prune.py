"""`amber-ext prune` and the cards of saved models."""

import json

import pytest
import torch
from helpers import IDS, logits
from transformers import AutoModelForCausalLM

from amber_ext import AmberConfig, sparsify_
from amber_ext.integrations.model_card import MARK

WORDS = " ".join("abcdefghij" * 20)


def fields_of(card):
    """The fields before a card's text, as the hub reads them."""
    from huggingface_hub import ModelCard

    return ModelCard(card).data.to_dict()


def test_prune_writes_a_model_and_its_card(run, tiny_model_folder, tmp_path):
    config, out, text = tmp_path / "config.json", tmp_path / "out", tmp_path / "text.txt"
    wanted = AmberConfig(
        pattern="8:16", skip_layers={"q_proj": (0,)}, layer_patterns={"q_proj": {"2:4": (1,)}}
    )
    wanted.save(config)
    text.write_text(WORDS)
    result = run("prune", tiny_model_folder, "--config", config, "--out", out, "--measure", text)
    assert result.returncode == 0, result.stderr
    assert "11 of 28 linear projections pruned to" in result.stdout and f"Wrote {out}" in result.stdout

    again = AutoModelForCausalLM.from_pretrained(out)
    by_hand = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    report = sparsify_(by_hand, wanted)
    assert torch.equal(logits(again), logits(by_hand)) and not torch.equal(
        logits(again), torch.zeros_like(IDS)
    )
    assert again.config.quantization_config.config == wanted

    card = (out / "README.md").read_text()
    assert fields_of(card)["library_name"] == "transformers" and "amber_ext" in fields_of(card)["tags"]
    for line in (
        f"# {tiny_model_folder.name}: pruned prefill",
        f"**Coverage:** {report.coverage:.1%} of",
        "| `q_proj` | 1 | 2:4 | as they were |",
        "| `down_proj` | 4 | 8:16 | as they were |",
        "| `o_proj` | 4 | not pruned | as they were |",
        "On the first 200 tokens of `text.txt`, in windows of 1,024:",
        "| original | ",
        "| this model | ",
        "vllm import LLM",
    ):
        assert line in card, line
    assert str(tmp_path) not in card


def test_folded_scores_are_saved_and_loaded(run, tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    result = run("prune", tiny_model_folder, "--out", out, "--fold-scores")
    assert result.returncode == 0, result.stderr
    again = AutoModelForCausalLM.from_pretrained(out)
    by_hand = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    report = sparsify_(by_hand, AmberConfig(), fold_scores=True)
    assert torch.equal(logits(again), logits(by_hand))
    assert again.config.quantization_config.config == report.config
    assert "gate_proj: magnitude" in result.stdout
    card = (out / "README.md").read_text()
    assert "folded into 8 norms" in card and "those of the original" not in card
    assert again.model.layers[1].mlp.gate_proj.score == "magnitude"
    assert again.model.layers[1].mlp.down_proj.score == "robust_norm"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_weights_keep_their_dtype(run, tiny_model_folder, tmp_path, dtype):
    folder, out = tmp_path / "model", tmp_path / "out"
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    for file in tiny_model_folder.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    assert run("prune", folder, "--out", out).returncode == 0
    saved = AutoModelForCausalLM.from_pretrained(out, dtype="auto").state_dict()
    assert saved.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert saved[name].dtype == tensor.dtype and torch.equal(saved[name], tensor), name


def test_the_card_of_a_quantized_model(run, tiny_model_folder, tmp_path):
    out, text = tmp_path / "out", tmp_path / "text.txt"
    text.write_text(WORDS)
    options = ["--text", text, "--unquantized", "o_proj", "--measure", text, "--json"]
    data = json.loads(run("quantize", tiny_model_folder, "--out", out, *options).stdout)
    card = (out / "README.md").read_text()
    for line in (
        ": W8A8 int8",
        "24 of its 28 linear projections have 8-bit weights and activations",
        "| `q_proj` | 4 | 2:4 | int8 |",
        "| `o_proj` | 4 | not pruned | as they were |",
        f"| this model | {data['perplexity']['this model']:.2f} |",
        "vllm import LLM",
    ):
        assert line in card, line


def test_a_card_that_somebody_wrote_stays(run, tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("# Mine\n")
    assert run("prune", tiny_model_folder, "--out", out).returncode == 0
    assert (out / "README.md").read_text() == "# Mine\n" and (out / "config.json").exists()
    (out / "README.md").unlink()
    assert run("prune", tiny_model_folder, "--out", out, "--pattern", "4:8").returncode == 0
    assert "4:8" in (out / "README.md").read_text()
    assert run("prune", tiny_model_folder, "--out", out, "--pattern", "8:16").returncode == 0
    card = (out / "README.md").read_text()
    assert MARK in card and "8:16" in card and "4:8" not in card and "Not measured." in card


@pytest.mark.parametrize(
    "options, message",
    [
        (["--measure", "missing.txt"], "text: 'missing.txt' is not a file"),
        (["--config", "missing.json"], "path: 'missing.json' is not a file"),
        (["--target", "x_proj"], "targets: 'x_proj' is not in this model"),
    ],
)
def test_prune_refuses_in_one_line(run, tiny_model_folder, tmp_path, options, message):
    result = run("prune", tiny_model_folder, "--out", tmp_path / "out", *options)
    assert result.returncode == 1 and message in result.stderr and not (tmp_path / "out").exists()
