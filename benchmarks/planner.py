"""The planner against the paper's rule on SmolLM2-135M-Instruct. Writes results/planner.json and results/planner.png.

Everything is planned on C4 and scored on the first 40,960 tokens of WikiText-2 in windows of 1024. Costs are the
theoretical bounds of 2:4 hardware, relative to dense linear layers.
"""

from __future__ import annotations

import environment
from paper_table import DATA, c4_text

from amber_ext import AmberConfig, Pattern
from amber_ext.evaluation.plots import plot_frontier
from amber_ext.evaluation.text import read_text, tokenize
from amber_ext.layers.sites import decide, find_linears
from amber_ext.methods.sparsify import densify_, sparsify_
from amber_ext.models import load_model
from amber_ext.perplexity import WINDOW, perplexity
from amber_ext.planning.cost_model import bound
from amber_ext.planning.planner import plan, plan_for_cost

COVERAGE = 0.55  # what the paper's lists reach
CALIBRATION_TOKENS = 8192
TOKENS = 40_960


def main() -> None:
    loaded = load_model("smollm2")
    model = loaded.model
    batches = [ids[None] for ids in tokenize(loaded.tokenizer, c4_text(), CALIBRATION_TOKENS).split(WINDOW)]
    tokens = tokenize(loaded.tokenizer, read_text(DATA / "wikitext2_raw" / "wiki.test.raw"), TOKENS)
    sites = find_linears(model)

    def cost(config: AmberConfig) -> float:
        rows = [decide(site, config) for site in sites]
        spent = sum(row.macs * (bound(Pattern(row.pattern)) if row.sparse else 1.0) for row in rows)
        return spent / sum(row.macs for row in rows)

    paper = plan(model, batches, AmberConfig(), coverage=COVERAGE, progress=True)
    exact = AmberConfig(pattern="8:16")
    at_paper = plan_for_cost(model, batches, cost(paper), patterns=["2:4"], progress=True)
    at_exact = plan_for_cost(model, batches, cost(exact), progress=True)
    configs = {
        "the paper's rule": paper,
        "planned, 2:4 only": at_paper.config,
        "8:16 on q, gate, down": exact,
        "12:16w on q, gate, down": AmberConfig(pattern="12:16w"),
        "planned, all patterns": at_exact.config,
    }
    rows = []
    for name, config in configs.items():
        coverage = sparsify_(model, config).coverage
        value = perplexity(model, tokens, progress=True, description=name)
        rows.append(
            {
                "method": name,
                "coverage": coverage,
                "cost": cost(config),
                "perplexity": value,
                "config": config.to_dict(),
            }
        )
        print(name, rows[-1]["cost"], value, flush=True)
    densify_(model)
    path = environment.write(
        "planner",
        {
            "model": "SmolLM2-135M-Instruct (Q4_1 GGUF dequantised to bf16)",
            "text": "WikiText-2 raw test",
            "tokens": len(tokens),
            "window": WINDOW,
            "calibration": f"C4, {CALIBRATION_TOKENS:,} tokens",
            "dense": perplexity(model, tokens, progress=True),
            "measured_on_calibration": at_exact.measured,
            "rows": rows,
        },
    )
    plot_frontier(at_exact, path.with_suffix(".png"))
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    main()
