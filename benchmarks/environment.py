"""What a results file says of where and what it was measured with."""

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
