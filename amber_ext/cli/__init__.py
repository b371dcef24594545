"""``amber-ext``: the command line tool. Each command has a file of its name."""

from __future__ import annotations

import os
import sys

import typer

from amber_ext.cli import demo, eval, info, plan, ppl, prune, quantize, sensitivity, tune
from amber_ext.cli.options import messages

app = typer.Typer(
    help="Cheaper LLM prefill by N:M activation pruning (Amber Pruner).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (info, ppl, eval, sensitivity, plan, prune, quantize, tune, demo):
    app.command(_command.__name__.rpartition(".")[2])(_command.run)


def main() -> None:
    """Runs the tool; errors of ours, and of files, are one line on stderr and exit code 1."""
    try:
        app(standalone_mode=True)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        text = " ".join(str(error).split())
        messages.print(f"amber-ext: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
        _drop_unwritten_output()
        sys.exit(1)


def _drop_unwritten_output() -> None:
    """Python would report what stdout does not take once more, at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
