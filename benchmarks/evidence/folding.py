"""Whether magnitudes choose as scores do once these are folded into norms. Writes results/evidence_folding_choice.json.

SmolLM2-135M-Instruct, q and gate of every layer, tokens of C4, everything dense: the entries that robust norm keeps, against
those that magnitudes keep before and after the fold. Run it with ``benchmarks`` in PYTHONPATH.
"""

from __future__ import annotations

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


def main() -> None:
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_model("smollm2", dtype)
        model = loaded.model
        ids = tokenize(loaded.tokenizer, c4_text(), TOKENS)[None]
        before = inputs_of(model, ids)
        scales = {n: channel_scale(model.get_submodule(n).weight, "robust_norm") for n in before}
        sparsify_(model, AmberConfig(), fold_scores=True)
        densify_(model)
        after = inputs_of(model, ids)
        for pattern in PATTERNS:
            counts = {"magnitude": 0, "folded": 0}
            kept = 0
            for name, x in before.items():
                wanted = nm_mask(x, pattern, scales[name])
                kept += int(wanted.sum())
                counts["magnitude"] += int((wanted & ~nm_mask(x, pattern)).sum())
                counts["folded"] += int((wanted & ~nm_mask(after[name], pattern)).sum())
            shares = {name: count / kept for name, count in counts.items()}
            rows.append({"dtype": str(dtype).removeprefix("torch."), "pattern": pattern, "differ": shares})
            print(rows[-1], flush=True)
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
