"""Results files: what they say of where and with what they were measured, reading them, and printing tables of them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import torch

from amber_ext.ops.library import environment_info

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def describe() -> dict[str, object]:
    """Versions, processor and git commit (AMBER_COMMIT where the tree is a copy without git)."""
    git = ["git", "describe", "--always", "--dirty"]
    described = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    commit = described or os.environ.get("AMBER_COMMIT", "unknown")
    info = environment_info()
    return {
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": _processor(),
        "cpu_capability": info["cpu_capability"],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def write(name: str, data: dict[str, object]) -> Path:
    """Writes ``benchmarks/results/<name>.json``."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": describe(), **data}, indent=2) + "\n")
    return path


def load(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def percent(share: float, digits: int = 1) -> str:
    return f"{share:.{digits}%}".replace("%", " %")
