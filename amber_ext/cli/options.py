"""What the commands of the command line tool share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from amber_ext.evaluation.results import to_json
from amber_ext.evaluation.text import builtin_text, read_text, tokenize
from amber_ext.methods.report import Report
from amber_ext.models import LoadedModel, load_model
from amber_ext.ops.scores import SCORES
from amber_ext.perplexity import WINDOW, check_window, perplexity

console = Console()
# Progress and messages go to stderr, so that --json leaves stdout to the JSON.
messages = Console(stderr=True)

SCORE_NAMES = ", ".join(SCORES)
PATTERN_HELP = "N:M, 10:16w or 12:16w."

ModelArgument = Annotated[str, typer.Argument(help="A model folder, a .gguf file, or 'smollm2'.")]
TextOption = Annotated[
    Path | None, typer.Option("--text", help="UTF-8 text file. [default: Python's own language reference]")
]
TokensOption = Annotated[int, typer.Option("--tokens", help="How many tokens of the text to use.")]
# Checked before a model is loaded.
WindowOption = Annotated[int, typer.Option("--window", help="Tokens per window.", callback=check_window)]
PatternOption = Annotated[str, typer.Option("--pattern", help=PATTERN_HELP)]
ScoreOption = Annotated[str, typer.Option("--score", help=f"One of: {SCORE_NAMES}.")]
TargetOption = Annotated[list[str], typer.Option("--target", help="Projection to prune; repeat for more.")]
RescaleOption = Annotated[str, typer.Option("--rescale", help="none or variance.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", help="Write a plot to this file, PNG unless its name ends otherwise.")
]


def load(model: str, dtype: str | None = None) -> LoadedModel:
    with messages.status(f"Loading {model}"):
        return load_model(model, dtype)


def text_tokens(loaded: LoadedModel, text: Path | None, count: int) -> torch.Tensor:
    return tokenize(loaded.tokenizer, read_text(text) if text else builtin_text(), count)


def print_json(data: object) -> None:
    # Flushed here, where what goes wrong still becomes a message.
    print(to_json(data), flush=True)


MEASURED_TOKENS = 8192

MeasureOption = Annotated[
    Path | None,
    typer.Option(
        help=f"UTF-8 text: measure perplexity on its first {MEASURED_TOKENS:,} tokens, for the model card."
    ),
]


class Measurement:
    """Perplexities on one text, for a model card; none where there is no text.

    Attributes:
        values: by what was measured.
    """

    def __init__(self, path: Path | None) -> None:
        """Raises ValueError when the file is no text."""
        self._path = path
        self._text = None if path is None else read_text(path)
        self._count = 0
        self.values: dict[str, float] = {}

    def take(self, name: str, loaded: LoadedModel) -> None:
        """Measures the model as it is now."""
        if self._text is not None:
            tokens = tokenize(loaded.tokenizer, self._text, MEASURED_TOKENS)
            self._count = len(tokens)
            self.values[name] = perplexity(
                loaded.model, tokens, progress=True, description=f"Perplexity, {name}"
            )

    def card(self, report: Report, model: str) -> str:
        """The card of what ``report`` made of ``model``, a folder or file of which only the name is told."""
        from amber_ext.integrations.model_card import model_card

        text = ""
        if self._path is not None:
            text = f"the first {self._count:,} tokens of `{self._path.name}`, in windows of {WINDOW:,}"
        return model_card(report, Path(model).resolve().name, self.values, text)
