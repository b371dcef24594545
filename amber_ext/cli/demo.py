"""``amber-ext demo``: the project's main job on a real model, in a few minutes on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from amber_ext.cli.options import TokensOption, console, messages
from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.evaluation.plots import check_plot, plot_comparison
from amber_ext.evaluation.prepare import Calibration
from amber_ext.evaluation.results import EvalRun, to_json
from amber_ext.evaluation.run import run as evaluate
from amber_ext.evaluation.table import terminal_table
from amber_ext.evaluation.text import builtin_text, greedy_answer, tokenize
from amber_ext.evaluation.variants import Row, config_row, make_rows
from amber_ext.files import check_file, check_folder, write_text
from amber_ext.methods.quantize import quantize_
from amber_ext.methods.sparsify import sparsify_
from amber_ext.models import BUILTIN, load_model
from amber_ext.ops.pattern import Pattern
from amber_ext.perplexity import WINDOW
from amber_ext.planning.cost_model import bound
from amber_ext.planning.planner import plan_for_cost

PROMPT = "What is the capital of France, and what is it known for?"
PATTERN = "8:16"  # of the answers
ROWS = [
    *make_rows(["magnitude", "robust_norm"], ["2:4", "4:8", PATTERN], {}),
    Row("outstanding", PATTERN),
]
CALIBRATION_TOKENS = 2048
COST = 0.78  # of the plan: between those of 2:4 and 8:16 on q, gate and down


def run(
    out: Annotated[Path, typer.Option(help="Folder for the plot and the JSON results.")] = Path("demo_out"),
    tokens: TokensOption = 8192,
) -> None:
    """SmolLM2-135M-Instruct: dense against pruned and quantised, perplexity and a greedy answer."""
    check_folder("out", out)
    out.mkdir(parents=True, exist_ok=True)
    check_plot("out", out / "perplexity.png")
    check_file("out", out / "results.json")
    with messages.status("Loading SmolLM2-135M-Instruct"):
        loaded = load_model(BUILTIN)
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = tokenize(tokenizer, builtin_text(), tokens)
    # Calibrated on text behind the text that is scored.
    calibration = tokenize(tokenizer, builtin_text(), tokens + CALIBRATION_TOKENS)[tokens:]
    batches = [part[None] for part in calibration.split(WINDOW)]

    with messages.status(f"Planning, layer by layer, for {COST} of the dense cost"):
        planned = plan_for_cost(model, batches, COST)
    plan_row = config_row(f"planned for a cost of {COST}", planned.config)
    results = EvalRun(None, {"model": BUILTIN, "tokens": len(ids), "window": WINDOW})
    evaluate(results, model, tokenizer, [*ROWS, plan_row], {}, Calibration(batches), tokens=ids)
    console.print(
        "\nSmolLM2-135M-Instruct, q_proj, gate_proj and down_proj of every layer pruned in prefill; outstanding: all "
        "layers in int8 too; planned: any projection, each at its own pattern. Perplexity on the first "
        f"{len(ids):,} tokens of Python's language reference"
    )
    console.print(terminal_table(results.rows()))
    costs = _costs(results.rows()) | {plan_row.method: planned.cost}
    console.print(
        "\nWhat the linear layers cost in prefill on 2:4 hardware, relative to dense ones, at least (a bound, not "
        f"measured): {', '.join(f'{name} {cost:.2f}' for name, cost in costs.items())}",
        highlight=False,
    )

    console.print(f"\nPrompt: {PROMPT}", highlight=False)
    answers = {"dense": greedy_answer(model, tokenizer, PROMPT)}
    quantized = copy.deepcopy(model)
    report = sparsify_(model, AmberConfig(pattern=PATTERN))
    answers[f"robust_norm {PATTERN}, sparse prefill, dense decode"] = greedy_answer(model, tokenizer, PROMPT)
    quantization = quantize_(quantized, OutstandingSparseConfig(pattern=PATTERN), batches)
    label = f"int8, {PATTERN}, sparse prefill, dense int8 decode"
    answers[label] = greedy_answer(quantized, tokenizer, PROMPT)
    for name, answer in answers.items():
        console.print(f"[bold]{name}[/bold]: ", end="")
        console.print(answer, markup=False, highlight=False)
    console.print(f"\n{report}\n\n{quantization}", highlight=False)

    plot_comparison(results.rows(), out / "perplexity.png")
    write_text(out / "results.json", to_json({**results.data, "costs": costs, "answers": answers}) + "\n")
    console.print(f"\nWrote {out / 'perplexity.png'} and {out / 'results.json'}")


def _costs(rows: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Pattern to the bound on the cost of all linear layers."""
    return {
        row["pattern"]: 1 - row["coverage"] * (1 - bound(Pattern(row["pattern"])))
        for row in rows
        if row["method"] == "robust_norm"
    }
