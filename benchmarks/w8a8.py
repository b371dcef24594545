"""Perplexity of SmolLM2-135M-Instruct on WikiText-2 in W8A8, pruned and not. Writes results/w8a8.json.

The protocol of perplexity.py: the first 40,960 tokens in windows of 1024, bf16, every token prefilled.
Calibration uses tokens behind those that are scored. Each line is a fresh copy of the model.
"""

from __future__ import annotations

import copy

import environment
import torch
from perplexity import CALIBRATION_TOKENS, DATA, TOKENS
from rich.progress import track

from amber_ext import OutstandingSparseConfig, quantize_
from amber_ext.evaluation.text import read_text, tokenize
from amber_ext.models import load_model
from amber_ext.perplexity import WINDOW, perplexity

PATTERNS = ("2:4", "4:8", "8:16")
SMOOTHINGS = (
    {"direction": "none"},
    {"direction": "smoothquant", "alpha": 0.5},
    {"direction": "outstanding", "alpha": 0.1},
)
METHODS = (
    ("magnitude", "magnitude", "none"),
    ("robust_norm", "robust_norm", "none"),
    ("robust_norm, rescale variance", "robust_norm", "variance"),
)


def configurations() -> list[tuple[str, OutstandingSparseConfig]]:
    """Every line of the table: its method, and what is run."""
    lines = []
    for smoothing in SMOOTHINGS:
        lines.append(("not pruned", OutstandingSparseConfig(targets=(), **smoothing)))
        for method, score, rescale in METHODS:
            for pattern in PATTERNS:
                config = OutstandingSparseConfig(pattern=pattern, score=score, rescale=rescale, **smoothing)
                lines.append((method, config))
    return lines


def main() -> None:
    loaded = load_model("smollm2", torch.bfloat16)
    text = read_text(DATA / "wikitext2_raw" / "wiki.test.raw")
    tokens = tokenize(loaded.tokenizer, text, TOKENS)
    calibration = tokenize(loaded.tokenizer, text, TOKENS + CALIBRATION_TOKENS)[TOKENS:]
    batches = [ids[None] for ids in calibration.split(WINDOW)]

    dense = perplexity(loaded.model, tokens)
    rows = []
    for method, config in track(configurations(), "W8A8"):
        model = copy.deepcopy(loaded.model)
        report = quantize_(model, config, batches)
        value = perplexity(model, tokens)
        rows.append(
            {
                "method": method,
                "pattern": str(config.pattern) if config.targets else "dense",
                "direction": config.direction,
                "coverage": report.coverage,
                "perplexity": value,
                "config": config.to_dict(),
            }
        )
        print(method, config.direction, config.pattern, value, flush=True)
    path = environment.write(
        "w8a8",
        {
            "model": "SmolLM2-135M-Instruct (Q4_1 GGUF dequantised to bf16)",
            "text": "WikiText-2 raw test",
            "tokens": len(tokens),
            "window": WINDOW,
            "calibration_tokens": len(calibration),
            "dense": dense,
            "rows": rows,
        },
    )
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    main()
