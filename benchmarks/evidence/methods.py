"""Perplexity of SmolLM2-135M-Instruct by method: the paper's steps and its neighbours. Writes results/evidence_<group>.json.

The first tokens of WikiText-2 in windows of 1024, every token prefilled; calibration on C4. AMBER_DATA names the folder that
holds both. It can be stopped and started again: finished rows lie in build/evidence. Run it as ``python benchmarks/evidence/methods.py [GROUP ...]`` with ``benchmarks`` in PYTHONPATH.
"""

from __future__ import annotations

import sys

import environment
import paper_table

from amber_ext.evaluation.prepare import Calibration
from amber_ext.evaluation.results import EvalRun
from amber_ext.evaluation.run import run
from amber_ext.evaluation.text import read_text, tokenize
from amber_ext.evaluation.variants import LADDER, Row, make_rows
from amber_ext.models import load_model
from amber_ext.perplexity import WINDOW

TOKENS = 4096
PATTERNS = ("2:4", "8:16")

# What each results file holds: methods, and their patterns.
GROUPS: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "ladder": [
        (LADDER, PATTERNS),
        (("robust_norm", "robust_norm_trimmed", "outstanding", "outstanding_trimmed"), PATTERNS),
    ],
    "weight_masks": [
        (("robust_norm", "weight_magnitude", "weight_wanda", "weight_maskpro", "weight_lbc"), ("2:4",))
    ],
    # What has no pattern drops the same share at both.
    "neighbours": [
        (("magnitude",), PATTERNS),
        (("teal_uniform", "acttail"), ("2:4",)),
        (("robust_norm_folded", "clact", "shift"), ("2:4",)),
        (("robust_norm",), ("12:16w", "6:8")),
        (("robust_norm_folded", "clact", "shift"), PATTERNS),
        (("robust_norm_rescale",), PATTERNS),
        (("outstanding_unquantized",), PATTERNS),
        (("teal",), ("2:4",)),
    ],
}


def rows(group: str) -> list[Row]:
    """The lines of a group's table, the dense model first."""
    found = [row for methods, patterns in GROUPS[group] for row in make_rows(methods, patterns, {})]
    return list({row.key: row for row in found}.values())


def main() -> None:
    groups = sys.argv[1:] or list(GROUPS)
    if unknown := [group for group in groups if group not in GROUPS]:
        sys.exit(f"group: {unknown[0]!r} is not known; allowed: {', '.join(GROUPS)}")
    settings = {
        "tokens": TOKENS,
        "window": WINDOW,
        "calibration_tokens": paper_table.CALIBRATION_TOKENS,
        "skip": paper_table.SKIP,
        "seed": 0,  # of MaskPro's draws; the others draw nothing
    }
    loaded = load_model("smollm2")
    text = read_text(paper_table.DATA / "wikitext2_raw" / "wiki.test.raw")
    tokens = tokenize(loaded.tokenizer, text, TOKENS)
    calibration = tokenize(loaded.tokenizer, paper_table.c4_text(), paper_table.CALIBRATION_TOKENS)
    batches = [ids[None] for ids in calibration.split(WINDOW)]
    for group in groups:
        results = EvalRun(environment.ROOT / "build" / "evidence" / group, settings)
        try:
            run(
                results,
                loaded.model,
                loaded.tokenizer,
                rows(group),
                {},
                Calibration(batches, paper_table.SKIP),
                tokens=tokens,
                report=lambda message: print(message, flush=True),
            )
        finally:  # stopped, what is finished is written
            write(group, settings, results)


def write(group: str, settings: dict[str, object], results: EvalRun) -> None:
    """The results file of a group."""
    path = environment.write(
        f"evidence_{group}",
        {
            "model": "SmolLM2-135M-Instruct (Q4_1 GGUF dequantised to bf16)",
            "text": "WikiText-2 raw test",
            "calibration": "C4",
            "settings": settings,
            "rows": results.rows(),
        },
    )
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    main()
