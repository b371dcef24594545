"""lm-eval tasks that need no hub: definitions from ``amber_ext/tasks``, data from a folder of JSONL files."""

from __future__ import annotations

import json
from pathlib import Path

TASKS = Path(__file__).parent / "tasks"


def local_task_names() -> list[str]:
    """The tasks that this package defines."""
    return sorted(path.stem for path in TASKS.glob("*.yaml"))


def local_task(name: str, folder: str | Path) -> object:
    """A task as lm-eval runs it.

    Args:
        name: one of `local_task_names`.
        folder: holds the files that the task's ``data`` names, such as ``arc_easy/test.jsonl``.

    Raises:
        ValueError: an unknown name, or a file that is missing, empty or malformed; a bad line is named by number.
    """
    import yaml
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    path = TASKS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"tasks: {name!r} has no local definition; there are: {', '.join(local_task_names())}"
        )
    config = yaml.safe_load(path.read_text())
    files, fields = config.pop("data"), config.pop("fields")
    splits = {
        split: Dataset.from_list(read_jsonl(Path(folder) / file, fields)) for split, file in files.items()
    }
    return ConfigurableTask(config={**config, "custom_dataset": lambda **options: splits})


def read_jsonl(path: Path, fields: list[str]) -> list[dict[str, object]]:
    """The objects of a JSONL file, reduced to ``fields``.

    Raises:
        ValueError: no such file, no lines, or a line that is not a JSON object with these fields.
    """
    if not path.is_file():
        raise ValueError(f"data: {str(path)!r} is not a file; it must hold one JSON object a line")
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"data: {str(path)!r} line {number} is not valid JSON: {error}") from None
            missing = [field for field in fields if not isinstance(row, dict) or field not in row]
            if missing:
                raise ValueError(
                    f"data: {str(path)!r} line {number} has no {missing[0]!r}; needed: {', '.join(fields)}"
                )
            rows.append({field: row[field] for field in fields})
    if not rows:
        raise ValueError(f"data: {str(path)!r} is empty; it must hold one JSON object a line")
    return rows
