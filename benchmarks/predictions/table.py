"""The tables of predicted.json."""

from __future__ import annotations

from environment import load, markdown

SHOWN = ("1", "16", "128", "512", "1024", "2048", "8192", "16384")


def predicted() -> str:
    """What `auto` would run, and how fast, by device, shape and tokens."""
    rows = []
    for row in load("predicted")["rows"]:
        cells = [_cell(*row["tokens"][count]) for count in SHOWN]
        rows.append([row["device"], row["shape"], *cells])
    caption = (
        "**Predicted, not measured** (`benchmarks/results/predicted.json`): bf16 at 2:4. In each cell the time in ms, how "
        "many times as fast as the dense layer that is, and the tile of the sparse GEMM; without one masked dense runs, "
        "since it is predicted to be faster or this build has no sparse GEMM for that GPU:"
    )
    return caption + "\n\n" + markdown(["GPU", "layer", *(f"T = {count}" for count in SHOWN)], rows)


def _cell(kernel: str, ms: float, dense_ms: float) -> str:
    tile = next((part for part in kernel.split("_") if part.count("x") == 2), "")
    return " ".join([f"{ms:.3g}", f"{dense_ms / ms:.2f}×", *([tile] if tile else [])])


def public_ratios() -> str:
    """The prediction for a library's sparse product, beside the public figures."""
    rows = []
    for row in load("predicted")["public"]:
        least, largest = row["least"], row["largest"]
        public = f"{least:.2f}" if least == largest else f"{least:.2f} to {largest:.2f}"
        found = f"{min(row['predicted']):.2f} to {max(row['predicted']):.2f}"
        rows.append([row["device"], row["dtype"], f"{row['columns']:g}", public, found])
    caption = (
        "cuSPARSELt over cuBLASLt at T = 8192, the product alone, predicted for the six layers above. The rows at "
        "K'/K = 1 are what the model was calibrated with, and agree for that reason; those at 1.5 it did not know:"
    )
    return caption + "\n\n" + markdown(["GPU", "dtype", "K'/K", "public figures", "predicted"], rows)
