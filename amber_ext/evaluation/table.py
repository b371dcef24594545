"""The table of a comparison: methods and patterns against tasks, with the average and its drop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from amber_ext.evaluation.results import PERPLEXITY


@dataclass(frozen=True)
class TableRow:
    """One line, computed.

    Attributes:
        perplexity: None where it was not measured, NaN where it was not finite.
        scores: task to (score, standard error or None).
        average: of the scores; None unless every task was measured.
        average_stderr: of the average, tasks taken as independent.
        drop: the dense model's average less this one.
    """

    method: str
    pattern: str
    coverage: float
    perplexity: float | None
    scores: dict[str, tuple[float, float | None]]
    average: float | None
    average_stderr: float | None
    drop: float | None


def table_rows(rows: Sequence[dict[str, object]]) -> tuple[list[str], list[TableRow]]:
    """The tasks, and the lines of `EvalRun.rows`."""
    tasks = list(dict.fromkeys(t for row in rows for t in row["cells"] if t != PERPLEXITY))
    result, dense = [], None
    for row in rows:
        cells = row["cells"]
        scores = {
            task: (cells[task]["value"], cells[task]["stderr"])
            for task in tasks
            if _value(cells, task) is not None
        }
        average = stderr = None
        if tasks and len(scores) == len(tasks):
            average = sum(value for value, _ in scores.values()) / len(tasks)
            if all(error is not None for _, error in scores.values()):
                stderr = math.sqrt(sum(error**2 for _, error in scores.values())) / len(tasks)
        if row["method"] == "dense":
            dense = average
        drop = None if dense is None or average is None else dense - average
        value = _value(cells, PERPLEXITY)
        if value is None and PERPLEXITY in cells:
            value = math.nan
        result.append(
            TableRow(row["method"], row["pattern"], row["coverage"], value, scores, average, stderr, drop)
        )
    return tasks, result


def table_cells(rows: Sequence[dict[str, object]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells as text; scores in percent, standard errors behind ±."""
    tasks, lines = table_rows(rows)
    has_perplexity = any(line.perplexity is not None for line in lines)
    header = ["method", "pattern", "coverage", *(["perplexity"] if has_perplexity else []), *tasks]
    if tasks:
        header += ["average", "drop"]
    body = []
    for line in lines:
        cells = [line.method, line.pattern, f"{line.coverage:.1%}"]
        if has_perplexity:
            cells.append(_perplexity(line.perplexity))
        cells += [_score(*line.scores[task]) if task in line.scores else "" for task in tasks]
        if tasks:
            cells.append("" if line.average is None else _score(line.average, line.average_stderr))
            cells.append("" if line.drop is None else f"{100 * line.drop:+.1f}")
        body.append(cells)
    return header, body


def _value(cells: dict[str, dict], column: str) -> float | None:
    return cells.get(column, {}).get("value")


def _perplexity(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if math.isfinite(value) else "not finite"


def _score(value: float, stderr: float | None) -> str:
    return f"{100 * value:.1f}" + ("" if stderr is None else f" ± {100 * stderr:.1f}")


def terminal_table(rows: Sequence[dict[str, object]]) -> Table:
    """For the terminal."""
    header, body = table_cells(rows)
    table = Table(*header[:2])
    for name in header[2:]:
        table.add_column(name, justify="right")
    for cells in body:
        table.add_row(*cells)
    return table


def markdown_table(rows: Sequence[dict[str, object]]) -> str:
    """In Markdown."""
    header, body = table_cells(rows)
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
