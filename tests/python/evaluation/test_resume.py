"""A later `amber-ext eval` goes on with results of the same model, texts, data and configurations, and of no other."""

import json
import shutil

import pytest
from helpers import saved_results

from amber_ext import AmberConfig

pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install 'amber_ext[eval]')")


def edit_text(model, data, tmp_path):
    (data / "text.txt").write_text("a b c " * 100)


def edit_model(model, data, tmp_path):
    path = model / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_task(model, data, tmp_path):
    path = data / "rte" / "validation.jsonl"
    path.write_text(path.read_text().replace('"label": 1', '"label": 0', 1))


def edit_configuration(model, data, tmp_path):
    AmberConfig(pattern="4:8").save(tmp_path / "mine.json")


def edit_calibration(model, data, tmp_path):
    (tmp_path / "calibration.txt").write_text("f e d " * 100)


@pytest.mark.parametrize(
    "edit, message",
    [
        (edit_text, "amber-ext: text: "),
        (edit_calibration, "amber-ext: calibration: "),
        (edit_model, "amber-ext: model: "),
        (edit_task, "amber-ext: tasks, rte: "),
        (edit_configuration, "has results of another configuration 'mine'"),
    ],
)
def test_a_changed_file_is_noticed(run, arguments, model_folder, data, tmp_path, monkeypatch, edit, message):
    from amber_ext.evaluation import run as module
    from amber_ext.evaluation.tasks import TaskScore

    monkeypatch.setattr(module, "run_task", lambda *a, **o: TaskScore("acc", 0.5, float("nan"), {}))
    AmberConfig(pattern="8:16").save(tmp_path / "mine.json")
    (tmp_path / "calibration.txt").write_text("a b c " * 100)
    command = [
        *arguments, "--methods", "", "--tasks", "rte", "--data", data, "--config", tmp_path / "mine.json",
        "--calibration", tmp_path / "calibration.txt",
    ]  # fmt: skip
    assert run(*command).returncode == 0
    before = saved_results(tmp_path / "out")
    assert run(*command).returncode == 0
    assert saved_results(tmp_path / "out") == before
    edit(model_folder, data, tmp_path)
    result = run(*command)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("amber-ext:")]
    assert result.returncode == 1 and message in line and "another folder" in line
    assert saved_results(tmp_path / "out") == before


def test_a_file_that_was_moved_is_the_same(run, arguments, model_folder, data, tmp_path):
    assert run(*arguments, "--methods", "").returncode == 0
    moved, text = (
        shutil.move(model_folder, tmp_path / "moved"),
        shutil.move(data / "text.txt", tmp_path / "t"),
    )
    renamed = {model_folder: moved, data / "text.txt": text}
    result = run(*(renamed.get(argument, argument) for argument in arguments), "--methods", "magnitude")
    assert result.returncode == 0, result.stderr
    assert list(saved_results(tmp_path / "out")["rows"]) == ["dense", "magnitude 2:4"]


def test_results_without_hashes_are_not_continued(run, arguments, tmp_path):
    assert run(*arguments, "--methods", "").returncode == 0
    found = saved_results(tmp_path / "out")
    del found["content"]
    (tmp_path / "out" / "results.json").write_text(json.dumps(found))
    result = run(*arguments)
    assert result.returncode == 1 and "does not say of which model and texts" in result.stderr
