"""The project's main job on a real model, in a few minutes on a CPU."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

from rich.console import Console

from amber_ext.compare import compare_perplexity, quantized_perplexity
from amber_ext.config import AmberConfig
from amber_ext.evaluate import WINDOW, builtin_text, greedy_answer, tokenize
from amber_ext.models import BUILTIN, load_model
from amber_ext.outstanding_config import OutstandingSparseConfig
from amber_ext.plots import plot_perplexity
from amber_ext.quantize import quantize_
from amber_ext.sparsify import sparsify_
from amber_ext.tables import results_table

PROMPT = "What is the capital of France, and what is it known for?"
PATTERNS = ("2:4", "4:8", "8:16")
SCORES = ("magnitude", "robust_norm")
ANSWER_CONFIG = AmberConfig(pattern="8:16", score="robust_norm")
QUANTIZED_CONFIG = OutstandingSparseConfig(pattern="8:16")
CALIBRATION_TOKENS = 2048


def run_demo(out: Path, tokens: int, console: Console, messages: Console) -> None:
    """Prints perplexity, coverage and answers; writes ``perplexity.png`` and ``results.json`` to out."""
    out.mkdir(parents=True, exist_ok=True)
    with messages.status("Loading SmolLM2-135M-Instruct"):
        loaded = load_model(BUILTIN)
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = tokenize(tokenizer, builtin_text(), tokens)

    configs = [AmberConfig(pattern=p, score=s) for s in SCORES for p in PATTERNS]
    results = compare_perplexity(model, ids, configs, progress=True)
    quantized = copy.deepcopy(model)
    # Calibrated on text behind the text that is scored.
    calibration = tokenize(tokenizer, builtin_text(), tokens + CALIBRATION_TOKENS)[tokens:]
    quantization = quantize_(quantized, QUANTIZED_CONFIG, [part[None] for part in calibration.split(WINDOW)])
    results.append(quantized_perplexity(quantized, ids, progress=True)[-1])
    console.print(
        "\nSmolLM2-135M-Instruct, q_proj, gate_proj and down_proj of every layer pruned in prefill; last line: all "
        f"layers in int8 too (Outstanding-sparse). Perplexity on the first {len(ids):,} tokens of Python's language "
        "reference"
    )
    console.print(results_table(results))

    console.print(f"\nPrompt: {PROMPT}", highlight=False)
    answers = {"dense": greedy_answer(model, tokenizer, PROMPT)}
    label = f"{ANSWER_CONFIG.score} {ANSWER_CONFIG.pattern}, sparse prefill, dense decode"
    report = sparsify_(model, ANSWER_CONFIG)
    answers[label] = greedy_answer(model, tokenizer, PROMPT)
    label = f"int8, {QUANTIZED_CONFIG.pattern}, sparse prefill, dense int8 decode"
    answers[label] = greedy_answer(quantized, tokenizer, PROMPT)
    for name, answer in answers.items():
        console.print(f"[bold]{name}[/bold]: ", end="")
        console.print(answer, markup=False, highlight=False)
    console.print(f"\n{report}\n\n{quantization}", highlight=False)

    rows = [dataclasses.asdict(result) for result in results]
    plot_perplexity(rows[1:], results[0].perplexity, out / "perplexity.png")
    (out / "results.json").write_text(json.dumps({"results": rows, "answers": answers}, indent=2) + "\n")
    console.print(f"\nWrote {out / 'perplexity.png'} and {out / 'results.json'}")
