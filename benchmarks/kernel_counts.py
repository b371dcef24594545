"""What each CUDA kernel does, counted on the emulated GPU (tests/gpu_emulator). Writes results/kernel_counts.json.

Counts are exact and the same on every machine: bytes, sectors, bank conflicts, instructions of the PTX, wgmma groups in
flight. They say nothing of time. Needs the programs that `make test` builds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import environment
from rich.progress import track

PROGRAM = environment.ROOT / "build" / "package" / "tests" / "cpp" / "amber_kernel_counts"
CAPABILITIES = ("9.0", "8.0")


def launches(capability: str) -> list[tuple[dict, dict]]:
    """(what was launched, the emulator's report of it) for every launch."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "launches.jsonl"
        variables = {
            "GPU_EMULATOR_CAPABILITY": capability,
            "GPU_EMULATOR_REPORT": str(report),
            "GPU_EMULATOR_STRICT": "1",
        }
        done = subprocess.run(
            [PROGRAM], env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=True
        )
        said = [json.loads(line) for line in done.stdout.splitlines()]
        counted = [json.loads(line) for line in report.read_text().splitlines()]
    return list(zip(said, counted, strict=True))


def in_flight(waits: dict[str, int]) -> dict[str, int]:
    """Groups of wgmma still in flight after a wait -> how often, waits with none in flight before left out."""
    left: dict[str, int] = {}
    for text, count in waits.items():
        allowed, before = map(int, re.findall(r"\d+", text))
        if before > 0:
            after = str(min(allowed, before))
            left[after] = left.get(after, 0) + count
    return left


def row(capability: str, said: dict, counted: dict) -> dict[str, object]:
    shared = ("shared_load", "shared_store", "ldmatrix", "stmatrix")
    loads, stores = counted["global_load"], counted["global_store"]
    tma = counted.get("tma", {})
    return {
        "capability": capability,
        **said,
        "loaded": loads["unique_bytes"],
        "stored": stores["unique_bytes"],
        "load_requests": loads["requests"],
        "store_requests": stores["requests"],
        "load_efficiency": loads["efficiency"],
        "store_efficiency": stores["efficiency"],
        "bulk_loaded": tma.get("load_bytes", 0),
        "copied_async": counted.get("cp_async_bytes", 0),
        "thread_instructions": counted["thread_instructions"],
        "matrix_instructions": sum(counted.get("matrix", {}).values()),
        "bank_conflict_degree": {
            name: counted[name]["bank_conflict_degree"] for name in shared if name in counted
        },
        "wgmma_left_in_flight": in_flight(counted.get("wgmma_waits", {})),
        "wgmma_serialised": counted.get("wgmma_serialised", 0),
    }


def by_capability(rows: list[dict], keep: Callable[[dict], bool]) -> dict[tuple[str, str], list[dict]]:
    """Rows of the same kernel and variant, capability 9.0 first."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in filter(keep, rows):
        found.setdefault((row["kernel"], row["variant"]), []).append(row)
    return found


def selection_table(counted: list[dict]) -> tuple[list[str], list[list[str]]]:
    """What the kernels that read or write X move, ask for and execute."""
    rows = []
    found = by_capability(counted, lambda row: row["kernel"] != "sparse_gemm")
    for (kernel, variant), both in found.items():

        def cells(value: Callable[[dict], str], both: list[dict] = both) -> str:
            return " / ".join(dict.fromkeys(value(row) for row in both))

        rows.append(
            [
                f"`{kernel}` {variant}",
                cells(lambda row: f"{(row['loaded'] + row['stored']) / row['elements']:.3f}"),
                cells(lambda row: f"{(row['least_loaded'] + row['least_stored']) / row['elements']:.3f}"),
                cells(lambda row: f"{row['load_efficiency']:.2f}"),
                cells(lambda row: f"{row['store_efficiency']:.2f}"),
                cells(lambda row: f"{row['thread_instructions'] / row['elements']:.1f}"),
            ]
        )
    header = ["kernel", "bytes moved", "least", "load efficiency", "store efficiency", "PTX instructions"]
    return header, rows


def gemm_table(counted: list[dict]) -> tuple[list[str], list[list[str]]]:
    """What the sparse GEMMs move, and how their shared memory and tensor cores are used."""
    rows = []
    found = by_capability(counted, lambda row: row["kernel"] == "sparse_gemm")
    for (_, variant), (row,) in found.items():
        read = row["bulk_loaded"] + row["copied_async"]
        moved = (row["loaded"] + row["stored"]) / (row["least_loaded"] + row["least_stored"])
        conflicts = ", ".join(
            f"{name.replace('_', ' ')} {degree:.2f}"
            for name, degree in row["bank_conflict_degree"].items()
            if degree > 1
        )
        waits = row["wgmma_left_in_flight"]
        left = ", ".join(f"{groups} ({count}×)" for groups, count in waits.items()) or "no wgmma"
        cells = [f"{moved:.2f}", f"{read / row['least_loaded']:.2f}", str(row["matrix_instructions"])]
        rows.append([f"`{variant}`", *cells, conflicts or "none", left])
    header = ["kernel", "distinct bytes / least", "bytes read / least", "matrix instructions"]
    return [*header, "bank conflicts", "wgmma groups in flight after a wait"], rows


def main() -> None:
    rows = [
        row(capability, said, counted)
        for capability in track(CAPABILITIES, "Counting")
        for said, counted in launches(capability)
        if said["kernel"] != "input"
    ]
    commit = environment.describe()["commit"]
    path = environment.RESULTS / "kernel_counts.json"
    path.write_text(json.dumps({"commit": commit, "rows": rows}, indent=2) + "\n")
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    main()
