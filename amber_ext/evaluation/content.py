"""What a comparison reads, by the hash of its content: a file that was edited is noticed, one that was moved is not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from amber_ext.evaluation.results import RESULTS
from amber_ext.evaluation.tasks import local_task_files, local_task_names
from amber_ext.models import model_files

_CHUNK = 1 << 20

Content = dict[str, str | None]


def text_content(name: str, text: str) -> Content:
    """Of a text that was read."""
    return {"name": name, "hash": hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}


def model_content(model: str) -> Content:
    """Of what `load_model` would load. Raises ValueError when there is no such model."""
    # Results may be kept in the model's own folder.
    files = [path for path in model_files(model) if path.name != RESULTS]
    return {"name": model, "hash": _files_hash((path.name, path) for path in files)}


def task_content(
    name: str, data: str | Path | None = None, include_path: str | Path | None = None
) -> Content:
    """Of a task's definition and data, as far as they lie in ``data`` or ``include_path`` (`load_tasks`).

    The hash is None for what lm-eval takes from the hub.

    Raises:
        ValueError: a file of the task is missing.
    """
    if data is not None and name in local_task_names():
        files = local_task_files(name, data)
        return {"name": str(data), "hash": _files_hash((path.name, path) for path in files)}
    if include_path is None:
        return {"name": name, "hash": None}
    folder = Path(include_path)
    if not folder.is_dir():
        raise ValueError(f"include_path: {str(folder)!r} is not a folder; it must hold task definitions")
    # A definition may name any file beside it.
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {"name": str(folder), "hash": _files_hash((str(path.relative_to(folder)), path) for path in files)}


def contents(
    model: str,
    tasks: Sequence[str],
    data: str | Path | None,
    include_path: str | Path | None,
    texts: dict[str, tuple[str, str] | None],
) -> dict[str, Content]:
    """Everything that a comparison reads, for `EvalRun`.

    Args:
        texts: what a text is for to its name and itself; None where there is none.
    """
    return {
        "model": model_content(model),
        **{what: text_content(*text) for what, text in texts.items() if text is not None},
        **{f"tasks, {task}": task_content(task, data, include_path) for task in tasks},
    }


def _files_hash(files: Iterable[tuple[str, Path]]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for name, path in files:
        content = hashlib.blake2b()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        total.update(name.encode(errors="surrogateescape") + b"\0" + content.digest())
    return total.hexdigest()
