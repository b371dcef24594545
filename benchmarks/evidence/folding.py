"""Whether magnitudes choose as scores do once these are folded into norms. Writes results/evidence_folding_choice.json.

SmolLM2-135M-Instruct, q and gate of every layer, tokens of C4, everything dense: the entries that robust norm keeps, against
those that magnitudes keep before and after the fold. It can be stopped and started again: finished rows lie in build/evidence. Run it
with ``benchmarks`` in PYTHONPATH.
"""

from __future__ import annotations

import json

import environment
import torch
from paper_table import c4_text

from amber_ext import AmberConfig, channel_scale, densify_, nm_mask, sparsify_
from amber_ext.evaluation.text import tokenize
from amber_ext.layers.sites import find_linears
from amber_ext.models import load_model

TOKENS = 1024
PATTERNS = ("2:4", "8:16")
PROJECTIONS = ("q_proj", "gate_proj")
DTYPES = (torch.float32, torch.bfloat16)
FINISHED = environment.ROOT / "build" / "evidence" / "folding_choice.json"


def inputs_of(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Name of each q and gate to its input ``[tokens, K]``."""
    found: dict[str, torch.Tensor] = {}

    def hook_of(name: str):
        return lambda module, args: found.update({name: args[0].flatten(0, -2)})

    names = [site.name for site in find_linears(model) if site.projection in PROJECTIONS]
    handles = [model.get_submodule(name).register_forward_pre_hook(hook_of(name)) for name in names]
    with torch.inference_mode():
        model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def rows_of(dtype: torch.dtype) -> list[dict[str, object]]:
    """A row for each pattern."""
    loaded = load_model("smollm2", dtype)
    model = loaded.model
    before = inputs_of(model, ids := tokenize(loaded.tokenizer, c4_text(), TOKENS)[None])
    scales = {name: channel_scale(model.get_submodule(name).weight, "robust_norm") for name in before}
    sparsify_(model, AmberConfig(), fold_scores=True)
    densify_(model)
    after = inputs_of(model, ids)
    rows = []
    for pattern in PATTERNS:
        dropped = {"magnitude": 0, "folded": 0}
        kept = 0
        for name, x in before.items():
            wanted = nm_mask(x, pattern, scales[name])
            kept += int(wanted.sum())
            dropped["magnitude"] += int((wanted & ~nm_mask(x, pattern)).sum())
            dropped["folded"] += int((wanted & ~nm_mask(after[name], pattern)).sum())
        shares = {name: count / kept for name, count in dropped.items()}
        rows.append({"dtype": str(dtype).removeprefix("torch."), "pattern": pattern, "differ": shares})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    rows = json.loads(FINISHED.read_text()) if FINISHED.exists() else []
    for dtype in DTYPES[len(rows) // len(PATTERNS) :]:
        rows += rows_of(dtype)
        FINISHED.parent.mkdir(parents=True, exist_ok=True)
        FINISHED.write_text(json.dumps(rows))
    path = environment.write(
        "evidence_folding_choice",
        {
            "model": "SmolLM2-135M-Instruct (Q4_1 GGUF dequantised)",
            "text": "C4",
            "settings": {"tokens": TOKENS, "score": "robust_norm", "projections": list(PROJECTIONS)},
            "rows": rows,
        },
    )
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    main()
