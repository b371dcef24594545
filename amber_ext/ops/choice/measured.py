"""Times that were measured: on this machine by `amber_ext.tune`, and those that are shipped with the package.

`tune` keeps its times in the user's cache folder, a file for each kind of GPU. They hold for the machine and build that
are in the file's stamp; with another stamp they are left out.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch

from amber_ext.files import write_text
from amber_ext.ops import library
from amber_ext.ops.choice.devices import Device
from amber_ext.ops.sparse_gemms import Problem

SHIPPED = Path(__file__).parent / "shipped.json"


@dataclass(frozen=True)
class Entry:
    """The times of one weight's product under one pattern.

    Attributes:
        dtype: as `Problem.table_dtype`.
        ms: tokens to kernel to median time in ms; `DENSE` is the layer that is not pruned.
        refused: kernels that did not pass their check, and why: they are not taken for this weight at all.
    """

    out_features: int
    in_features: int
    pattern: str
    dtype: str
    ms: Mapping[int, Mapping[str, float]]
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, int, str, str]:
        """What it was measured for."""
        return self.out_features, self.in_features, self.pattern, self.dtype

    def __str__(self) -> str:
        return name_of(self.key)

    def at(self, tokens: int) -> dict[str, float]:
        """ms by kernel, on the straight line between the nearest measured tokens; empty outside of them."""
        below = max((t for t in self.ms if t <= tokens), default=None)
        above = min((t for t in self.ms if t >= tokens), default=None)
        if below is None or above is None:
            return {}
        low, high = self.ms[below], self.ms[above]
        share = (tokens - below) / (above - below) if above > below else 0.0
        return {name: low[name] + share * (high[name] - low[name]) for name in low if name in high}

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        return {**vars(self), "ms": {str(tokens): dict(ms) for tokens, ms in sorted(self.ms.items())}}

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Entry:
        """The inverse of `to_dict`."""
        entry = cls(**fields)
        ms = {
            int(tokens): {str(name): float(time) for name, time in times.items()}
            for tokens, times in entry.ms.items()
        }
        return cls(*entry.key, ms, dict(entry.refused))


def key_of(problem: Problem) -> tuple[int, int, str, str]:
    """`Entry.key` of a product."""
    return problem.out_features, problem.in_features, str(problem.pattern), problem.table_dtype


def name_of(key: tuple[int, int, str, str]) -> str:
    """What an `Entry.key` says, in a line."""
    out_features, in_features, pattern, dtype = key
    return f"[{out_features}, {in_features}] {pattern} {dtype}"


def find(device: Device, problem: Problem) -> tuple[Entry | None, str]:
    """The times of a product and where they are from: this machine's come before the shipped ones."""
    for entries, source in ((tuned(device), "measured here"), (shipped(device.name), "measured (shipped)")):
        if (entry := entries.get(key_of(problem))) is not None:
            return entry, source
    return None, ""


@cache
def shipped(name: str) -> dict[tuple, Entry]:
    """The package's own table for a GPU of this very name."""
    tables = json.loads(SHIPPED.read_text(encoding="utf-8"))["devices"]
    return _by_key(map(Entry.from_dict, tables.get(name, ())))


@cache
def tuned(device: Device) -> dict[tuple, Entry]:
    """This machine's times; none, with one line saying why, where the file is damaged or has another stamp."""
    path = tuning_file(device)
    try:
        return _read(path, stamp_of(device))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"amber_ext: {path} is left out: {error}", stacklevel=2)
        return {}


def keep(device: Device, entries: Iterable[Entry]) -> None:
    """Adds entries to this machine's file, whole or not at all; entries of another stamp go.

    Of processes that do so at once, each keeps what the others wrote.
    """
    path, stamp = tuning_file(device), stamp_of(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            known = _read(path, stamp)
        except (OSError, ValueError):
            known = {}
        for entry in entries:
            # What was measured at other numbers of tokens stays.
            before = known[entry.key].ms if entry.key in known else {}
            known[entry.key] = replace(entry, ms={**before, **entry.ms})
        content = {"stamp": stamp, "entries": [entry.to_dict() for entry in known.values()]}
        write_text(path, json.dumps(content, indent=1) + "\n")


def tuning_file(device: Device) -> Path:
    """Where the times of this kind of GPU are kept."""
    cache_folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = re.sub(r"[^a-z0-9]+", "_", device.name.lower())
    return Path(cache_folder) / "amber_ext" / f"tuning_{name}.json"


@cache
def stamp_of(device: Device) -> dict[str, object]:
    """What times depend on."""
    return {
        "device": device.name,
        "multiprocessors": device.multiprocessors,
        "driver": _driver(),
        "torch": torch.__version__,
        "build": library.build_id(),
    }


def _driver() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return "unknown"


def _read(path: Path, stamp: Mapping[str, object]) -> dict[tuple, Entry]:
    """Raises OSError, or ValueError that says what is wrong with the content."""
    content = path.read_text(encoding="utf-8")
    try:
        data = json.loads(content)
        found, entries = data["stamp"], _by_key(map(Entry.from_dict, data["entries"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("it is damaged; tune anew, or delete it") from None
    if found != stamp:
        differs = next(name for name in stamp if found.get(name) != stamp[name])
        raise ValueError(
            f"{differs}: {found.get(differs)!r} was measured, but here is {stamp[differs]!r}; tune anew"
        )
    return entries


def _by_key(entries: Iterable[Entry]) -> dict[tuple, Entry]:
    return {entry.key: entry for entry in entries}
