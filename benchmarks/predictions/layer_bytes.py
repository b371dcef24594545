"""The bytes that a decoder layer of Llama-3.1-8B moves outside its products and its attention. Writes layer_bytes.json.

Counted from shapes, not measured: what each op must read and write once, at 2:4 with q, gate and down pruned. What stays in a
cache between two ops is counted; a product's reading of its operands and its writing of a 16-bit result are not. The int32
results of dense 8-bit products are, for they are there only for the pass that scales them. The residual's sums are left out, as
are rotary embeddings.

Usage: PYTHONPATH=benchmarks python benchmarks/predictions/layer_bytes.py
"""

from __future__ import annotations

import environment

TOKENS, HIDDEN, KEYS, INTERMEDIATE = 8192, 4096, 1024, 14336
BLOCKS = ("norms", "attention", "MLP")


def stored(columns: int, itemsize: int = 2) -> int:
    """Bytes of a dense tensor of all tokens."""
    return TOKENS * columns * itemsize


def form(columns: int, itemsize: int = 2) -> int:
    """Bytes of a compressed form at 2:4: half the values, a bit of E for each element, scales of 8-bit values."""
    return TOKENS * columns * itemsize // 2 + TOKENS * columns // 8 + (4 * TOKENS if itemsize == 1 else 0)


def quantised_product(columns: int, outputs: int) -> int:
    """Quantising the input of a dense 8-bit product, and the pass over its int32 results."""
    before = stored(columns) + stored(columns, 1) + 4 * TOKENS
    return before + 2 * stored(outputs, 4) + stored(outputs)


def layer(itemsize: int, fused: bool) -> dict[str, int]:
    """Bytes of each block; ``itemsize`` 1 is W8A8."""
    norm = 2 * stored(HIDDEN)
    compressed = stored(HIDDEN) + form(HIDDEN, itemsize)
    attention = mlp = compressed  # of q, of gate
    if itemsize == 1:
        attention += 2 * quantised_product(HIDDEN, KEYS) + quantised_product(HIDDEN, HIDDEN)
        mlp += quantised_product(HIDDEN, INTERMEDIATE)
    mlp += 2 * stored(INTERMEDIATE) + form(INTERMEDIATE, itemsize)
    if not fused:
        mlp += 2 * stored(INTERMEDIATE)  # silu(gate) * up is written and read again
    return dict(zip(BLOCKS, (2 * norm, attention, mlp), strict=True))


def counts() -> dict[str, object]:
    """All of it, as the results file holds it."""
    rows = [
        {"dtype": dtype, "fused": fused, "bytes": layer(itemsize, fused)}
        for dtype, itemsize in (("bf16", 2), ("W8A8", 1))
        for fused in (False, True)
    ]
    return {"tokens": TOKENS, "pattern": "2:4", "rows": rows}


def table() -> str:
    """Megabytes by block."""
    data = environment.load("layer_bytes")
    rows = []
    for row in data["rows"]:
        sizes = [*row["bytes"].values(), sum(row["bytes"].values())]
        rows.append(
            [row["dtype"], "yes" if row["fused"] else "no", *(f"{size / 1e6:,.0f}" for size in sizes)]
        )
    caption = (
        f"Counted from shapes, not measured (`benchmarks/results/layer_bytes.json`): the MB that a decoder layer of "
        f"Llama-3.1-8B moves outside its products and its attention at T = {data['tokens']}, {data['pattern']} on q, gate and "
        "down. Fused is `AmberConfig(fuse=True)`:"
    )
    header = ["dtype", "MLP fused", *(f"{block}" for block in BLOCKS), "all"]
    return caption + "\n\n" + environment.markdown(header, rows)


def main() -> None:
    print(f"wrote {environment.write('layer_bytes', counts())}")


if __name__ == "__main__":
    main()
