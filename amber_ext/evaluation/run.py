"""A comparison of methods on tasks and on perplexity, cell by cell, that goes on where it was stopped."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from amber_ext.evaluation.tasks import run_task
from amber_ext.evaluation.variants import Calibration, Row, prepared
from amber_ext.perplexity import WINDOW, perplexity

RESULTS = "results.json"
PERPLEXITY = "perplexity"


class EvalRun:
    """The cells of one comparison, kept in ``<folder>/results.json``.

    The file is replaced whole after each cell, so that stopping at any time loses one cell at the most. A later
    run with the same settings computes only what is not there; it may ask for other methods, patterns and tasks.

    Args:
        folder: is made if it is not there. None keeps the cells in memory alone.
        settings: what a cell's value depends on, plain JSON types.

    Raises:
        ValueError: the folder's file is not readable, or has other settings.
    """

    def __init__(self, folder: str | Path | None, settings: dict[str, object]) -> None:
        self.path = None if folder is None else Path(folder) / RESULTS
        self.data: dict[str, object] = {"settings": settings, "rows": {}}
        if self.path is None:
            return
        if self.path.exists():
            self.data = self._read(settings)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def _read(self, settings: dict[str, object]) -> dict[str, object]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            before = data["settings"]
            data["rows"].items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"out: {str(self.path)!r} is not a results file: {error!r}") from None
        for name, value in settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"out: {str(self.path)!r} has results with {name} = {before.get(name)!r}, not {value!r}; "
                    "use the same settings or another folder"
                )
        return data

    def missing(self, rows: Sequence[Row], columns: Sequence[str]) -> list[tuple[Row, list[str]]]:
        """Each row that has cells to compute, and its columns that are not there.

        Raises:
            ValueError: a row's configuration is not the one that its name stands for in the file.
        """
        work = []
        for row in rows:
            found = self.data["rows"].get(row.key)
            if found is not None and found["config"] != _config(row):
                raise ValueError(
                    f"config: {str(self.path)!r} has results of another configuration {row.method!r}; "
                    "rename the file or use another folder"
                )
            columns_left = [column for column in columns if found is None or column not in found["cells"]]
            if columns_left:
                work.append((row, columns_left))
        return work

    def record(self, row: Row, coverage: float, column: str, cell: dict[str, object]) -> None:
        """Adds a cell and writes the file."""
        entry = self.data["rows"].setdefault(
            row.key,
            {
                "method": row.method,
                "pattern": row.pattern,
                "coverage": coverage,
                "config": _config(row),
                "cells": {},
            },
        )
        entry["cells"][column] = cell
        if self.path is None:
            return
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)

    def rows(self) -> list[dict[str, object]]:
        """What the file holds, in the order in which it was asked for."""
        return list(self.data["rows"].values())


def _config(row: Row) -> dict[str, object] | None:
    return None if row.config is None else row.config.to_dict()


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
    for row, left in work:
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
                    cell["stderr"] = None if math.isnan(score.stderr) else score.stderr
                results.record(row, coverage, column, cell)
