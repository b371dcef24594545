"""``amber-ext tune``."""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.table import Table

from amber_ext.cli.options import JsonOption, ModelArgument, PatternOption, console, load, print_json
from amber_ext.config import AmberConfig


def run(
    model: ModelArgument,
    pattern: PatternOption = "2:4",
    tokens: Annotated[
        list[int], typer.Option(help="Tokens to measure at; repeat for more. [default: 16 to 16384]")
    ] = [],
    budget: Annotated[float, typer.Option(help="Seconds after which no measurement begins.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Measure which kernels are fastest on this GPU, for a model's shapes. A model that is not pruned is, to --pattern."""
    from amber_ext.layers.planned import Planned
    from amber_ext.methods.sparsify import sparsify_
    from amber_ext.tuning.tune import TOKENS, tune

    if not torch.cuda.is_available():
        raise ValueError("device: torch finds no CUDA GPU; tune measures on one")
    config = AmberConfig(pattern=pattern)
    loaded = load(model).model.to("cuda", torch.bfloat16)
    if not any(isinstance(module, Planned) for module in loaded.modules()):
        sparsify_(loaded, config)
    report = tune(loaded, tokens or TOKENS, budget, progress=True)
    if as_json:
        entries = [entry.to_dict() for entry in report.entries]
        return print_json({"path": str(report.path), "entries": entries, "left_out": list(report.left_out)})
    table = Table("N", "K", "pattern", "dtype", "T", "fastest", "of dense's speed")
    for entry, count, kernel, speedup in report.rows():
        sizes = (str(size) for size in entry.key)
        table.add_row(*sizes, str(count), kernel, f"{speedup:.2f}x {'won' if speedup > 1 else 'lost'}")
    console.print(table)
    for entry in report.entries:
        for kernel, why in entry.refused.items():
            console.print(f"{kernel} is not used for {entry}: {why}", highlight=False, markup=False)
    for line in report.left_out:
        console.print(line, highlight=False, markup=False)
    console.print(f"kept in {report.path}", highlight=False)
