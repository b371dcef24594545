"""What a comparison has measured: its cells, in one JSON file that several runs may fill at once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from amber_ext.evaluation.variants import Row
from amber_ext.files import write_text

RESULTS = "results.json"
LOCK = "results.lock"
PERPLEXITY = "perplexity"

# What each entry of the file must have, and of which type; a bool is no number.
_NUMBER = (int, float)
_ROW = {"method": str, "pattern": str, "coverage": _NUMBER, "config": (dict, type(None)), "cells": dict}
_CELL = {"metric": str, "value": (*_NUMBER, type(None)), "stderr": (*_NUMBER, type(None))}
_CONTENT = {"name": str, "hash": (str, type(None))}


class EvalRun:
    """The cells of one comparison, kept in ``<folder>/results.json``.

    The file is replaced whole after each cell, so that stopping at any time loses one cell at the most. A later
    run with the same settings computes only what is not there; it may ask for other methods, patterns and tasks.
    Several runs may fill one folder at once: each takes in what the others wrote before it writes, under a lock.

    Args:
        folder: is made if it is not there. None keeps the cells in memory alone.
        settings: what a cell's value depends on, plain JSON types.
        content: the same, for what is read from files: what it is (``"model"``, ``"text"``, ...) to its ``name`` and
            the ``hash`` of its content (`amber_ext.evaluation.content`). Names may change, hashes may not.

    Raises:
        ValueError: the folder's file is not readable, or has other settings or other content.
    """

    def __init__(
        self,
        folder: str | Path | None,
        settings: dict[str, object],
        content: Mapping[str, Mapping[str, str | None]] | None = None,
    ) -> None:
        self.path = None if folder is None else Path(folder) / RESULTS
        self._settings, self._content = settings, dict(content or {})
        self.data: dict[str, object] = {"settings": settings, "content": self._content, "rows": {}}
        if self.path is not None:
            self._refresh()
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def missing(self, rows: Sequence[Row], columns: Sequence[str]) -> list[tuple[Row, list[str]]]:
        """Each row that has cells to compute, and its columns that are not there.

        Raises:
            ValueError: a row's configuration is not the one that its name stands for in the file.
        """
        work = [(row, self.left(row, columns)) for row in rows]
        return [(row, left) for row, left in work if left]

    def left(self, row: Row, columns: Sequence[str]) -> list[str]:
        """The columns that this row has no cell in, as the file now is. Raises as `missing`."""
        self._refresh()
        self._check_config(row)
        found = self.data["rows"].get(row.key, {"cells": {}})
        return [column for column in columns if column not in found["cells"]]

    def record(self, row: Row, coverage: float, column: str, cell: dict[str, object]) -> None:
        """Adds a cell and writes the file. Numbers that are not finite, which JSON has not, become None."""
        with self.locked():
            self._refresh()
            self._check_config(row)
            entry = self.data["rows"].setdefault(
                row.key,
                {
                    "method": row.method,
                    "pattern": row.pattern,
                    "coverage": coverage,
                    "config": _config(row),
                    "cells": {},
                },
            )
            entry["cells"][column] = _finite(cell)
            if self.path is None:
                return
            write_text(self.path, to_json(self.data, indent=1) + "\n")

    def rows(self) -> list[dict[str, object]]:
        """What the file holds, in the order in which it was asked for."""
        self._refresh()
        return list(self.data["rows"].values())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Within it, no other run writes into the folder."""
        if self.path is None:
            yield
            return
        # A file of its own: results.json is replaced, and a lock would stay with the file that was.
        with self.path.with_name(LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _refresh(self) -> None:
        """Takes in what other runs have written."""
        if self.path is None or not os.path.lexists(self.path):
            return
        found = self._read()
        if found["rows"]:
            self._check_settings(found)
            self.data = {
                "settings": found["settings"],
                "content": {**found["content"], **self._content},
                "rows": {**found["rows"], **_cells_beside(self.data["rows"], found["rows"])},
            }

    def _read(self) -> dict[str, object]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self._malformed(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
        # Version 0.1.0 wrote no content.
        self._check_entry("", data, {"settings": dict, "rows": dict})
        data.setdefault("content", {})
        self._check_entry("", data, {"content": dict})
        for name, entry in data["content"].items():
            self._check_entry(f"content {name!r}: ", entry, _CONTENT)
        for key, row in data["rows"].items():
            self._check_entry(f"row {key!r}: ", row, _ROW)
            for column, cell in row["cells"].items():
                self._check_entry(f"row {key!r}, cell {column!r}: ", cell, _CELL)
        return data

    def _check_entry(self, where: str, entry: object, fields: Mapping[str, object]) -> None:
        if not isinstance(entry, dict):
            raise self._malformed(f"{where}{type(entry).__name__} is not an object")
        for name, kind in fields.items():
            value = entry.get(name, ...)
            if not isinstance(value, kind) or isinstance(value, bool):
                what = "is missing" if value is ... else f"may not be of type {type(value).__name__}"
                raise self._malformed(f"{where}{name!r} {what}")

    def _malformed(self, problem: str) -> ValueError:
        return ValueError(
            f"out: {str(self.path)!r} is not a results file: {problem}; remove it or use another folder"
        )

    def _check_settings(self, found: Mapping[str, Mapping]) -> None:
        for name, value in self._settings.items():
            if found["settings"].get(name) != value:
                raise ValueError(
                    f"out: {str(self.path)!r} has results with {name} = {found['settings'].get(name)!r}, not "
                    f"{value!r}; use the same settings or another folder"
                )
        if self._content and not found["content"]:
            raise ValueError(
                f"out: {str(self.path)!r} does not say of which model and texts its results are (an earlier version "
                "wrote it); use another folder"
            )
        for what, now in self._content.items():
            before = found["content"].get(what, now)
            if before["hash"] != now["hash"]:
                raise ValueError(
                    f"{what}: {now['name']!r} has the content {now['hash']}, but {str(self.path)!r} has results of "
                    f"{before['name']!r} with the content {before['hash']}; use the same, or another folder"
                )

    def _check_config(self, row: Row) -> None:
        if self.path is None:
            return  # nothing from before
        for found in self.data["rows"].values():
            # By the method's name: at another pattern, a configuration that was edited has another key.
            same = found["method"] == row.method and (row.config or found["config"]) is not None
            if same and found["config"] != _config(row):
                raise ValueError(
                    f"config: {str(self.path)!r} has results of another configuration {row.method!r}; "
                    "rename the file or use another folder"
                )


def to_json(data: object, indent: int = 2) -> str:
    """Valid JSON: a number that is not finite becomes null."""
    return json.dumps(_finite(data), indent=indent, allow_nan=False)


def _finite(data: object) -> object:
    if isinstance(data, Mapping):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _cells_beside(mine: Mapping[str, dict], found: Mapping[str, dict]) -> dict[str, dict]:
    """My rows, with the cells that ``found`` has beside mine."""
    return {
        key: {**row, "cells": {**found.get(key, row)["cells"], **row["cells"]}} for key, row in mine.items()
    }


def _config(row: Row) -> dict[str, object] | None:
    return None if row.config is None else row.config.to_dict()
