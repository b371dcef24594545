"""Allocators of `amber-ext plan --cost` side by side on SmolLM2-135M-Instruct. Writes results/evidence_allocators.json.

Each plans on the same tokens of C4; its own plan is scored, not the best of the candidates that `plan_for_cost` measures. The
first tokens of WikiText-2 in windows of 1024. Costs are the bounds of 2:4 hardware. It can be stopped and started again:
finished plans and rows lie in build/evidence/allocators. Run it with ``benchmarks`` in PYTHONPATH.
"""

from __future__ import annotations

import environment
from paper_table import DATA, c4_text

from amber_ext import AmberConfig, Pattern
from amber_ext.evaluation.prepare import Calibration
from amber_ext.evaluation.results import EvalRun
from amber_ext.evaluation.run import run
from amber_ext.evaluation.text import read_text, tokenize
from amber_ext.evaluation.variants import config_row, make_rows
from amber_ext.layers.sites import decide, find_linears
from amber_ext.models import load_model
from amber_ext.perplexity import WINDOW
from amber_ext.planning.cost_model import bound
from amber_ext.planning.planner import ALLOCATORS, PATTERNS, plan_for_cost

TOKENS = 4096
CALIBRATION_TOKENS = 1024
# Where plans are compared: a cost, and the patterns to choose from.
POINTS = {"2:4 alone": (0.72, ("2:4",)), "all patterns": (0.85, PATTERNS)}
FOLDER = environment.ROOT / "build" / "evidence" / "allocators"


def main() -> None:
    loaded = load_model("smollm2")
    model = loaded.model
    sites = find_linears(model)
    calibration = tokenize(loaded.tokenizer, c4_text(), CALIBRATION_TOKENS)
    batches = [ids[None] for ids in calibration.split(WINDOW)]
    targets = tuple(dict.fromkeys(site.projection for site in sites))

    def cost(config: AmberConfig) -> float:
        decisions = [decide(site, config) for site in sites]
        spent = sum(d.macs * (bound(Pattern(d.pattern)) if d.sparse else 1.0) for d in decisions)
        return spent / sum(d.macs for d in decisions)

    FOLDER.mkdir(parents=True, exist_ok=True)
    configs = {}
    for point, (wanted, patterns) in POINTS.items():
        for allocator in ALLOCATORS:
            name = f"{allocator}, {point}"
            path = FOLDER / f"{name}.json"
            if not path.exists():
                print(f"planning: {name}", flush=True)
                base = AmberConfig(targets=targets)
                plan_for_cost(
                    model, batches, wanted, base, patterns=patterns, allocator=allocator
                ).planned.save(path)
            configs[name] = AmberConfig.load(path)
    rows = [*make_rows([], [], {}), *(config_row(name, config) for name, config in configs.items())]
    results = EvalRun(FOLDER, {"tokens": TOKENS, "window": WINDOW, "calibration_tokens": CALIBRATION_TOKENS})
    tokens = tokenize(loaded.tokenizer, read_text(DATA / "wikitext2_raw" / "wiki.test.raw"), TOKENS)
    run(results, model, loaded.tokenizer, rows, {}, Calibration(), tokens=tokens, report=print)
    found = [
        {**row, "cost": cost(configs[row["method"]]) if row["config"] else 1.0} for row in results.rows()
    ]
    path = environment.write(
        "evidence_allocators",
        {
            "model": "SmolLM2-135M-Instruct (Q4_1 GGUF dequantised to bf16)",
            "text": "WikiText-2 raw test",
            "calibration": "C4",
            "settings": {"tokens": TOKENS, "window": WINDOW, "calibration_tokens": CALIBRATION_TOKENS},
            "points": {point: wanted for point, (wanted, _) in POINTS.items()},
            "rows": found,
        },
    )
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    main()
