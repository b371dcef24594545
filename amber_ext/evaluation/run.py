"""Runs a comparison of methods on tasks and on perplexity, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import torch

from amber_ext.evaluation.prepare import Calibration, prepared
from amber_ext.evaluation.results import PERPLEXITY, EvalRun
from amber_ext.evaluation.tasks import run_task
from amber_ext.evaluation.variants import Row
from amber_ext.perplexity import WINDOW, perplexity


def run(
    results: EvalRun,
    model: torch.nn.Module,
    tokenizer: object,
    rows: Sequence[Row],
    tasks: Mapping[str, object],
    calibration: Calibration,
    *,
    tokens: torch.Tensor | None = None,
    window: int = WINDOW,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 16,
    report: Callable[[str], None] = lambda message: None,
) -> None:
    """Computes the missing cells, method by method.

    Args:
        tokenizer: of the model; only tasks need it.
        tasks: of `load_tasks`.
        tokens: ids ``[T]`` int64 for a column of perplexities; None for no such column.
        report: is told what runs, before each cell.
    """
    columns = [*([PERPLEXITY] if tokens is not None else []), *tasks]
    work = results.missing(rows, columns)
    total, done = sum(len(left) for _, left in work), 0
    for row, planned in work:
        # Another run may have filled some by now.
        left = results.left(row, planned)
        done += len(planned) - len(left)
        if not left:
            continue
        with prepared(model, row, calibration) as (ready, coverage):
            for column in left:
                done += 1
                report(f"[{done}/{total}] {row.key}: {column}")
                if column == PERPLEXITY:
                    value = perplexity(ready, tokens, window, progress=True, description=row.key)
                    cell = {"metric": PERPLEXITY, "value": value, "stderr": None}
                else:
                    score = run_task(
                        ready, tokenizer, column, tasks[column],
                        limit=limit, num_fewshot=num_fewshot, batch_size=batch_size,
                    )  # fmt: skip
                    cell = asdict(score)
                results.record(row, coverage, column, cell)
