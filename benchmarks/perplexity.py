"""Perplexity of SmolLM2-135M-Instruct on WikiText-2 by method and pattern. Writes results/perplexity.json.

Protocol: raw test text, GGUF weights dequantised to bf16, the first tokens in windows of 1024, no BOS,
every token prefilled. AMBER_DATA names the folder that holds wikitext2_raw/wiki.test.raw.
"""

from __future__ import annotations

import os
from pathlib import Path

import environment
import torch

from amber_ext import AmberConfig
from amber_ext.evaluation.prepare import Calibration
from amber_ext.evaluation.results import PERPLEXITY, EvalRun
from amber_ext.evaluation.run import run
from amber_ext.evaluation.text import read_text, tokenize
from amber_ext.evaluation.variants import DENSE, Row, config_row
from amber_ext.models import load_model
from amber_ext.perplexity import WINDOW
from amber_ext.planning.paper_rule import plan_from
from amber_ext.planning.sensitivity import sensitivity

DATA = Path(os.environ.get("AMBER_DATA", environment.ROOT.parent / "shared" / "data"))
TOKENS = 40_960
CALIBRATION_TOKENS = 4096
PATTERNS = ("2:4", "4:8", "8:16", "10:16w", "12:16w")
ALL_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    loaded = load_model("smollm2", torch.bfloat16)
    text = read_text(DATA / "wikitext2_raw" / "wiki.test.raw")
    tokens = tokenize(loaded.tokenizer, text, TOKENS)
    # Skips are planned on tokens behind those that are scored.
    calibration = tokenize(loaded.tokenizer, text, TOKENS + CALIBRATION_TOKENS)[TOKENS:]
    batches = [ids[None] for ids in calibration.split(WINDOW)]

    configs = {"magnitude, all seven projections": [AmberConfig(score="magnitude", targets=ALL_SEVEN)]}
    for score in ("magnitude", "wanda", "robust_norm"):
        configs[score] = [AmberConfig(pattern=p, score=score) for p in PATTERNS]
    configs["robust_norm, rescale variance"] = [AmberConfig(pattern=p, rescale="variance") for p in PATTERNS]
    skipping = []
    for pattern in ("2:4", "8:16"):
        config = AmberConfig(pattern=pattern)
        measured = sensitivity(loaded.model, batches, config, progress=True)
        skipping.append(plan_from(loaded.model, measured, config, skip=5))
    configs["robust_norm, 5 layers skipped"] = skipping

    lines = [config_row(label, config) for label, group in configs.items() for config in group]
    results = EvalRun(None, {})
    run(results, loaded.model, None, [Row(DENSE, ""), *lines], {}, Calibration(), tokens=tokens)
    dense, *found = results.rows()
    rows = [
        {
            **{key: row[key] for key in ("method", "pattern", "coverage", "config")},
            "perplexity": row["cells"][PERPLEXITY]["value"],
        }
        for row in found
    ]
    path = environment.write(
        "perplexity",
        {
            "model": "SmolLM2-135M-Instruct (Q4_1 GGUF dequantised to bf16)",
            "text": "WikiText-2 raw test",
            "tokens": len(tokens),
            "window": WINDOW,
            "dense": dense["cells"][PERPLEXITY]["value"],
            "rows": rows,
        },
    )
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    main()
