"""Tasks, run through lm-eval on a model that is already prepared; with JSONL files at hand, tasks that need no hub."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

# A task's score is the first of these that it reports; length-normalised accuracy where there is one.
MAIN_METRICS = ("acc_norm", "acc", "exact_match")


DEFINITIONS = Path(__file__).parent / "task_definitions"


@dataclass(frozen=True)
class TaskScore:
    """A task's main metric with its standard error, and all that lm-eval reported."""

    metric: str
    value: float
    stderr: float
    metrics: dict[str, float] = field(repr=False)


def load_tasks(
    names: Sequence[str], data: str | Path | None = None, include_path: str | Path | None = None
) -> dict[str, object]:
    """Name to task, with its data loaded.

    Args:
        names: tasks or groups of lm-eval.
        data: a folder of JSONL files; tasks that `local_task_names` lists then come from it and need no hub.
        include_path: a folder of further task definitions, in lm-eval's YAML.

    Raises:
        ValueError: an unknown task, data that is missing or malformed, or no lm-eval to run tasks with.
    """
    if names and importlib.util.find_spec("lm_eval") is None:
        raise ValueError("tasks: they need lm-eval; pip install 'amber_ext[eval]'")
    _quieten()
    local = set(local_task_names()) if data is not None else set()
    tasks: dict[str, object] = {name: local_task(name, data) for name in names if name in local}
    others = [name for name in names if name not in local]
    if others:
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=None if include_path is None else str(include_path))
        allowed = {*manager.all_subtasks, *manager.all_groups}
        for name in others:
            if name not in allowed:
                hint = f"; with data, also: {', '.join(local_task_names())}" if data is None else ""
                raise ValueError(
                    f"tasks: {name!r} is not a task or group of lm-eval or of include_path{hint}"
                )
            try:
                loaded = manager.load(name)
            except Exception as error:  # the hub's own errors have no common class
                text = " ".join(str(error).split())
                raise ValueError(
                    f"tasks: {name!r} cannot be loaded: {type(error).__name__}: {text}"
                ) from error
            tasks[name] = loaded["groups"].get(name) or loaded["tasks"][name]
    return {name: tasks[name] for name in names}


def run_task(
    model: torch.nn.Module,
    tokenizer: object,
    name: str,
    task: object,
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 16,
) -> TaskScore:
    """One task's score. Log-likelihoods are all prefill; generation prefills its prompt and decodes dense.

    Args:
        model: a transformers causal LM, pruned or not.
        name, task: of `load_tasks`.
        limit: how many documents, the first ones; None for all.
        num_fewshot: examples in the prompt; None leaves it to the task.

    Raises:
        ValueError: the task reports none of `MAIN_METRICS`.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    _quieten()
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    results = simple_evaluate(
        lm,
        tasks=[task],
        limit=limit,
        num_fewshot=num_fewshot,
        log_samples=False,
        task_manager=TaskManager(include_defaults=False),  # else it reads thousands of definitions, each time
    )
    scores = results["groups" if name in results.get("groups", {}) else "results"][name]
    for metric in MAIN_METRICS:
        for key, value in scores.items():
            if key.partition(",")[0] == metric:
                stderr = scores.get(key.replace(metric, f"{metric}_stderr", 1), math.nan)
                numbers = {k: v for k, v in scores.items() if isinstance(v, float)}
                return TaskScore(metric, float(value), float(stderr), numbers)
    raise ValueError(
        f"tasks: {name!r} reports {', '.join(map(repr, scores))}; needed is one of {', '.join(MAIN_METRICS)}"
    )


def _quieten() -> None:
    """lm-eval logs a page for each run, of settings that the caller chose."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def local_task_names() -> list[str]:
    """The tasks that this package defines."""
    return sorted(path.stem for path in DEFINITIONS.glob("*.yaml"))


def local_task(name: str, folder: str | Path) -> object:
    """A task as lm-eval runs it.

    Args:
        name: one of `local_task_names`.
        folder: holds the files that the task's ``data`` names, such as ``arc_easy/test.jsonl``.

    Raises:
        ValueError: an unknown name, or a file that is missing, empty or malformed; a bad line is named by number.
    """
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    config = _definition(name)
    files, fields = config.pop("data"), config.pop("fields")
    splits = {
        split: Dataset.from_list(read_jsonl(Path(folder) / file, fields)) for split, file in files.items()
    }
    return ConfigurableTask(config={**config, "custom_dataset": lambda **options: splits})


def local_task_files(name: str, folder: str | Path) -> list[Path]:
    """What `local_task` reads: the definition, and the data in ``folder``. Raises ValueError as it does."""
    data = [Path(folder) / file for file in _definition(name)["data"].values()]
    for path in data:
        _check_file(path)
    return [_definition_path(name), *data]


def _definition_path(name: str) -> Path:
    return DEFINITIONS / f"{name}.yaml"


def _definition(name: str) -> dict[str, object]:
    import yaml

    path = _definition_path(name)
    if not path.is_file():
        raise ValueError(
            f"tasks: {name!r} has no local definition; there are: {', '.join(local_task_names())}"
        )
    return yaml.safe_load(path.read_text())


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"data: {str(path)!r} is not a file; it must hold one JSON object a line")


def read_jsonl(path: Path, fields: list[str]) -> list[dict[str, object]]:
    """The objects of a JSONL file, reduced to ``fields``.

    Raises:
        ValueError: no such file, no lines, or a line that is not a JSON object with these fields.
    """
    _check_file(path)
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
