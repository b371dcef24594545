"""The card of a model that was pruned or quantised: what was done to it, what it costs in quality, how to load it."""

from __future__ import annotations

from collections.abc import Mapping

from amber_ext.methods.report import Report

CARD = "README.md"
# By this a card that may be replaced is told from one that somebody wrote.
MARK = "<!-- This card was written by amber_ext. -->"

_HEADER = """---
library_name: transformers
pipeline_tag: text-generation
tags: [amber_ext, activation-sparsity]
---
"""

_TRANSFORMERS = """import amber_ext  # tells transformers about these layers
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", dtype="auto")"""

_VLLM = """from vllm import LLM

model = LLM("THIS_FOLDER")  # amber_ext brings a plugin, which vLLM finds by itself"""


def model_card(
    report: Report, name: str, perplexities: Mapping[str, float] | None = None, text: str = ""
) -> str:
    """Markdown for a folder's README.md, with the fields that the Hugging Face hub reads.

    Args:
        report: of what made the model.
        name: of the model it was made from.
        perplexities: what was measured, by what it was measured of; None or empty for nothing.
        text: what they were measured on, in words.
    """
    quantized = any(row.quantized for row in report.rows)
    what = f"W8A8 {report.config.dtype}" if quantized else "pruned prefill"
    parts = [
        _HEADER + MARK,
        f"# {name}: {what}",
        f"Made of `{name}` by [amber_ext](https://arxiv.org/abs/2508.02128). {_what_was_done(report, quantized)}",
        f"**Coverage:** {report.coverage:.1%} of the linear layers' work in a prefill, the vocabulary head left out, runs "
        "on pruned inputs. Decode runs dense.",
        _layers(report),
        "## Perplexity",
        _perplexities(perplexities or {}, text),
        "## Load it",
        _code(_TRANSFORMERS),
        _code(_VLLM),
        "## Configuration",
        f"Scores: `{report.scores}`; rescale: `{report.config.rescale}`. All of it is in `config.json`, under "
        "`quantization_config`.",
    ]
    return "\n\n".join(parts) + "\n"


def _what_was_done(report: Report, quantized: bool) -> str:
    sparse = [row for row in report.rows if row.sparse]
    text = ""
    if quantized:
        count = sum(row.quantized for row in report.rows)
        text = f"{count} of its {len(report.rows)} linear projections have 8-bit weights and activations. "
    if not sparse:
        return text + "None has a pruned input."
    kept = "" if quantized else " The weights are those of the original."
    if report.folded_norms:
        kept = (
            f" Their scores are folded into {report.folded_norms} norms, and the weights that read these are divided by them: "
            "dense, the model computes what the original does, up to rounding."
        )
    return (
        f"{text}In prefill the inputs of {len(sparse)} of its {len(report.rows)} linear projections keep, token by token, "
        f"only their most important channels.{kept}"
    )


def _layers(report: Report) -> str:
    """How many layers of each projection have which pattern."""
    counts: dict[tuple[str, str, str], int] = {}
    for row in report.rows:
        weights = report.config.dtype if row.quantized else "as they were"
        key = (row.projection, row.pattern or "not pruned", weights)
        counts[key] = counts.get(key, 0) + 1
    lines = [
        f"| `{name}` | {count} | {pattern} | {weights} |"
        for (name, pattern, weights), count in counts.items()
    ]
    return "\n".join(
        ["| projection | layers | input in prefill | weights |", "| --- | --- | --- | --- |", *lines]
    )


def _perplexities(values: Mapping[str, float], text: str) -> str:
    if not values:
        return "Not measured."
    lines = [f"| {name} | {value:.2f} |" for name, value in values.items()]
    return "\n".join([f"On {text}:", "", "| model | perplexity |", "| --- | --- |", *lines])


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
