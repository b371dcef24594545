"""The paper's comparison on a model: methods and patterns against tasks. Writes results/eval_<name>.json.

Zero-shot, the first documents of each task, sequences in batches of 16; perplexity of the first 8,192 tokens of WikiText-2 in windows of 1024;
calibration on C4. AMBER_DATA names the folder that holds the tasks' files. It can be stopped and started again: finished
cells lie in build/paper_table.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import environment
import typer

from amber_ext.evaluation.prepare import Calibration
from amber_ext.evaluation.results import EvalRun
from amber_ext.evaluation.run import run
from amber_ext.evaluation.tasks import load_tasks
from amber_ext.evaluation.text import read_text, tokenize
from amber_ext.evaluation.variants import Row, make_rows
from amber_ext.models import load_model
from amber_ext.perplexity import WINDOW

DATA = Path(os.environ.get("AMBER_DATA", environment.ROOT.parent / "shared" / "data"))
TASKS = ("arc_easy", "arc_challenge", "boolq", "piqa", "openbookqa", "rte", "winogrande")
TOKENS = 8192
CALIBRATION_TOKENS = 4096
SKIP = 5


def rows() -> list[Row]:
    """Every line of the table."""
    exact, windowed = ("2:4", "4:8", "8:16"), ("10:16w", "12:16w")
    parts = [
        make_rows(["magnitude", "robust_norm"], exact, {}),
        make_rows(["weight_magnitude", "weight_wanda"], exact[:2], {}),
        make_rows(["robust_norm_skips"], exact, {}),
        make_rows(["robust_norm"], windowed, {}),
        make_rows(["w8a8", "outstanding"], exact, {}),
        make_rows(["wanda"], exact, {}),
    ]
    return list({row.key: row for part in parts for row in part}.values())


def c4_text() -> str:
    """Documents of C4, for calibration."""
    with (DATA / "c4" / "c4.jsonl").open(encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    return "\n\n".join(document["prefix"] + document["gold_completion"] for document in documents)


def main(
    model: Annotated[str, typer.Argument(help="As for amber-ext.")] = "smollm2",
    name: Annotated[str, typer.Option(help="Of the results file.")] = "smollm2",
    title: Annotated[str, typer.Option(help="What the table calls the model.")] = (
        "SmolLM2-135M-Instruct (Q4_1 GGUF dequantised to bf16)"
    ),
    limit: Annotated[int, typer.Option(help="Documents a task.")] = 200,
    methods: Annotated[str, typer.Option(help="Methods to run, by commas. [default: all]")] = "",
    tasks: Annotated[str, typer.Option(help="By commas.")] = ",".join(TASKS),
    patterns: Annotated[str, typer.Option(help="Patterns to run, by commas. [default: all]")] = "",
) -> None:
    chosen = [
        row
        for row in rows()
        if (not methods or row.method in ("dense", *methods.split(",")))
        and (not patterns or row.pattern in ("", *patterns.split(",")))
    ]
    settings = {
        "limit": limit,
        "tokens": TOKENS,
        "window": WINDOW,
        "calibration_tokens": CALIBRATION_TOKENS,
        "skip": SKIP,
    }
    results = EvalRun(environment.ROOT / "build" / "paper_table" / name, settings)
    loaded = load_model(model)
    calibration = tokenize(loaded.tokenizer, c4_text(), CALIBRATION_TOKENS)
    run(
        results,
        loaded.model,
        loaded.tokenizer,
        chosen,
        load_tasks(tasks.split(","), DATA),
        Calibration([ids[None] for ids in calibration.split(WINDOW)], SKIP),
        tokens=tokenize(loaded.tokenizer, read_text(DATA / "wikitext2_raw" / "wiki.test.raw"), TOKENS),
        window=WINDOW,
        limit=limit,
        report=print,
    )
    path = environment.write(f"eval_{name}", {"model": title, "settings": settings, "rows": results.rows()})
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    typer.run(main)
