"""The table of vLLM's throughput."""

from __future__ import annotations

from environment import load, markdown


def vllm() -> str:
    """Throughput of vLLM's engine over the dense model's, as the plugin was and as it is."""
    data = load("vllm")
    rows = [
        [
            row["phase"],
            row["pattern"],
            row["plugin"],
            f"{row['median']:.2f} ({row['least']:.2f}–{row['most']:.2f})",
        ]
        for row in sorted(
            data["throughput_over_dense"], key=lambda r: (r["phase"], r["pattern"], r["plugin"])
        )
    ]
    title = (
        f"{data['model']}, vLLM's CPU build, {data['environment']['threads']} threads: throughput over the dense model's in "
        f"the same turn, median and extremes of {data['rounds']} (`benchmarks/results/vllm.json`):"
    )
    return f"{title}\n\n" + markdown(["phase", "pattern", "plugin", "pruned / dense"], rows)
