"""Prefill and decode of vLLM's engine on this CPU, dense and pruned, in turns. Writes results/vllm.json.

    PYTHONPATH=.:build/metadata .venv-vllm/bin/python benchmarks/serving/throughput.py

Each variant runs in a process of its own (`one_engine.py`); they take turns, and ratios are of the same turn. "before" is
the plugin as it was before it used the pruned products (commit 03965a7), where a checkout of that is given.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import environment  # noqa: E402

ROUNDS = 5
PATTERNS = ("2:4", "8:16")


def save_models(folder: Path) -> dict[str, Path]:
    """Name of each variant to its folder."""
    from amber_ext import AmberConfig, sparsify_
    from amber_ext.integrations.transformers import attach_config
    from amber_ext.models import load_model

    folders = {}
    for pattern in (None, *PATTERNS):
        loaded = load_model("smollm2")
        name = "dense" if pattern is None else pattern
        if pattern is not None:
            sparsify_(loaded.model, AmberConfig(pattern=pattern))
            attach_config(loaded.model)
        folders[name] = folder / name.replace(":", "_")
        loaded.model.save_pretrained(folders[name])
        if pattern is not None:
            # The plugin of "before" does not know these fields; without them they have their defaults.
            path = folders[name] / "config.json"
            fields = json.loads(path.read_text())
            for field in ("allow_unpruned", "projection_scores", "fuse"):
                del fields["quantization_config"]["config"][field]
            path.write_text(json.dumps(fields))
    return folders


def measure(folder: Path, package: Path) -> dict[str, float]:
    """Seconds of prefill and of decode, medians within one engine."""
    here = Path(__file__).resolve()
    paths = os.pathsep.join([str(package), str(environment.ROOT / "build" / "metadata")])
    command = [sys.executable, str(here.with_name("one_engine.py")), str(folder)]
    environment_variables = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment_variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{folder.name} with {package}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(before: Path | None = None, rounds: int = ROUNDS) -> None:
    """``--before`` is a checkout of the plugin as it was, built."""
    environment.describe()  # what it lacks shows now, not when all is measured
    packages = {"after": environment.ROOT} | ({} if before is None else {"before": before.resolve()})
    ratios: dict[tuple[str, str, str], list[float]] = {}
    dense: dict[str, list[float]] = {"prefill": [], "decode": []}
    with tempfile.TemporaryDirectory() as folder:
        folders = save_models(Path(folder))
        for _ in range(rounds):
            base = measure(folders["dense"], environment.ROOT)
            for phase, seconds in base.items():
                dense[phase].append(seconds)
            for pattern in PATTERNS:
                for when, package in packages.items():
                    found = measure(folders[pattern], package)
                    for phase, seconds in found.items():
                        ratios.setdefault((pattern, when, phase), []).append(base[phase] / seconds)
    rows = [
        {
            "pattern": pattern,
            "plugin": when,
            "phase": phase,
            "median": statistics.median(values),
            "least": min(values),
            "most": max(values),
        }
        for (pattern, when, phase), values in ratios.items()
    ]
    environment.write(
        "vllm",
        {
            "model": "SmolLM2-135M-Instruct, bf16",
            "rounds": rounds,
            "dense_seconds": {phase: statistics.median(values) for phase, values in dense.items()},
            "throughput_over_dense": rows,
        },
    )


if __name__ == "__main__":
    typer.run(main)
