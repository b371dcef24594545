"""The results of `amber-ext eval`: filled by several runs at once, of the configurations that they name, valid JSON."""

import json
import multiprocessing
import os
import subprocess
import sys

import pytest
import torch
from helpers import saved_results, strict_json

from amber_ext import AmberConfig, OutstandingSparseConfig
from amber_ext.evaluation.results import EvalRun
from amber_ext.evaluation.variants import Row, config_row, make_rows

CELL = {"metric": "perplexity", "value": 2.0, "stderr": None}


# ---- several runs at once


@pytest.mark.slow
def test_two_runs_at_once_keep_all_rows(arguments, tmp_path):
    command = [sys.executable, "-c", "from amber_ext.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    patterns = [("2:4", "4:8", "8:16", "1:4", "3:4"), ("2:8", "6:8", "4:16", "12:16", "1:2")]
    runs = [
        subprocess.Popen(
            [*command, "--methods", "magnitude", "--patterns", ",".join(part)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part in patterns
    ]
    for run in runs:
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
    rows = {"dense", *(f"magnitude {pattern}" for part in patterns for pattern in part)}
    assert saved_results(tmp_path / "out")["rows"].keys() == rows
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.count("| magnitude |") == len(rows) - 1


def fill(folder, number):
    results = EvalRun(folder, {"window": 4})
    for row in range(20):
        results.record(Row(f"m{number}", f"{row}"), 0.5, "perplexity", CELL)


def test_many_runs_at_once_keep_all_cells(tmp_path):
    runs = [multiprocessing.Process(target=fill, args=(tmp_path / "out", number)) for number in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0
    assert len(saved_results(tmp_path / "out")["rows"]) == 80


def test_runs_that_take_turns(tmp_path):
    one, two = (EvalRun(tmp_path / "out", {"limit": 3}) for _ in range(2))
    a, b = Row("a", "2:4"), Row("b", "2:4")
    one.record(a, 0.5, "rte", CELL)
    two.record(b, 0.5, "rte", CELL)
    two.record(a, 0.5, "piqa", CELL)
    one.record(b, 0.5, "piqa", CELL)
    assert {row["method"]: list(row["cells"]) for row in one.rows()} == {
        "a": ["rte", "piqa"],
        "b": ["rte", "piqa"],
    }
    # What the other run did is not done again.
    assert one.missing([a, b], ["rte", "piqa"]) == [] == two.missing([a, b], ["rte", "piqa"])
    with pytest.raises(ValueError, match="has results with limit = 3, not 4"):
        EvalRun(tmp_path / "out", {"limit": 4})


# ---- configurations


@pytest.mark.parametrize("name", ["dense", "magnitude", "w8a8"])
def test_a_configuration_that_is_named_like_a_method(run, arguments, tmp_path, name):
    AmberConfig(pattern="8:16").save(tmp_path / f"{name}.json")
    result = run(*arguments, "--config", tmp_path / f"{name}.json")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("amber-ext:")]
    assert result.returncode == 1
    assert (
        line.startswith(f"amber-ext: config: {name!r} is the name of a method") and "rename the file" in line
    )


def test_configurations_that_are_named_like_each_other(run, arguments, tmp_path):
    (tmp_path / "other").mkdir()
    AmberConfig(pattern="8:16").save(tmp_path / "mine.json")
    AmberConfig(pattern="2:4").save(tmp_path / "other" / "mine.json")
    result = run(*arguments, "--config", tmp_path / "mine.json", "--config", tmp_path / "other" / "mine.json")
    assert result.returncode == 1 and "is named like another configuration, 'mine'" in result.stderr
    with pytest.raises(ValueError, match="a line that is called 'wanda 2:4' like another"):
        make_rows(["wanda"], ["2:4"], {"wanda 2:4": OutstandingSparseConfig(targets=())})


def test_what_a_configuration_is_does_not_hang_on_its_name(tiny_llama):
    from amber_ext.evaluation.prepare import Calibration, prepared

    with prepared(tiny_llama, config_row("dense", AmberConfig(pattern="8:16")), Calibration()) as (
        _,
        coverage,
    ):
        assert coverage > 0


# ---- what JSON cannot hold, and what is no results file


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_perplexities_that_are_not_finite(run, arguments, model_folder, tmp_path, value):
    from safetensors.torch import load_file, save_file

    weights = load_file(model_folder / "model.safetensors")
    # Logits beyond what exp takes, or NaN.
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], value)
    save_file(weights, model_folder / "model.safetensors", {"format": "pt"})
    result = run(*arguments, "--methods", "magnitude", "--json")
    assert result.returncode == 0, result.stderr
    for found in (strict_json(result.stdout), saved_results(tmp_path / "out")):
        assert [row["cells"]["perplexity"]["value"] for row in found["rows"].values()] == [None, None]
    assert (tmp_path / "out" / "table.md").read_text().count("| not finite |") == 2
    result = run("ppl", model_folder, *arguments[4:8], "--json")
    assert [row["perplexity"] for row in strict_json(result.stdout)["results"]] == [None, None], result.stderr


ROW = {"method": "a", "pattern": "", "coverage": 0.0, "config": None, "cells": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"[" * 100_000,
        *(
            json.dumps(data).encode()
            for data in (
                {"settings": {}},
                {"settings": [], "rows": {}},
                {"settings": {}, "rows": []},
                {"settings": {}, "rows": {}, "content": 3},
                {"settings": {}, "rows": {}, "content": {"model": "abc"}},
                {"settings": {}, "rows": {"a": 3}},
                *(
                    {"settings": {}, "rows": {"a": {k: v for k, v in ROW.items() if k != name}}}
                    for name in ROW
                ),
                {"settings": {}, "rows": {"a": {**ROW, "coverage": "all"}}},
                {"settings": {}, "rows": {"a": {**ROW, "cells": []}}},
                {"settings": {}, "rows": {"a": {**ROW, "cells": {"rte": 0.5}}}},
                {"settings": {}, "rows": {"a": {**ROW, "cells": {"rte": {"metric": "acc", "value": "x"}}}}},
                {"settings": {}, "rows": {"a": {**ROW, "cells": {"rte": {"metric": "acc", "value": True}}}}},
            )
        ),
    ],
)
def test_malformed_results(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ValueError, match="^out: '.*results.json' is not a results file: ") as error:
        EvalRun(tmp_path, {})
    assert "\n" not in str(error.value) and "another folder" in str(error.value)


def test_results_that_are_a_folder(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(ValueError, match="is not a results file: IsADirectoryError"):
        EvalRun(tmp_path, {})
