"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from amber_ext.compare import Result


def results_table(results: Sequence[Result]) -> Table:
    """Perplexities, each also as a ratio to the first, the dense one."""
    table = Table("method", "pattern")
    table.add_column("coverage", justify="right")
    table.add_column("perplexity", justify="right")
    table.add_column("of dense", justify="right")
    for r in results:
        table.add_row(
            r.method,
            r.pattern,
            f"{r.coverage:.1%}",
            f"{r.perplexity:.2f}",
            f"{r.perplexity / results[0].perplexity:.3f}×",
        )
    return table
