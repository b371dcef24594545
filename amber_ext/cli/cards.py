"""The model cards of `amber-ext prune` and `amber-ext quantize`, and the perplexities that stand in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amber_ext.evaluation.text import read_text, tokenize
from amber_ext.methods.report import Report
from amber_ext.models import LoadedModel
from amber_ext.perplexity import WINDOW, perplexity

TOKENS = 8192

MeasureOption = Annotated[
    Path | None,
    typer.Option(help=f"UTF-8 text: measure perplexity on its first {TOKENS:,} tokens, for the model card."),
]


class Measurement:
    """Perplexities on one text, or none where there is no text.

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
            tokens = tokenize(loaded.tokenizer, self._text, TOKENS)
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
