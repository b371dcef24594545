"""lm-eval's own command line with ``--model amber``: the scores that `amber-ext eval` computes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY

from amber_ext import AmberConfig, AmberLinear, sparsify_
from amber_ext.evaluation.tasks import load_tasks, run_task
from amber_ext.models import load_model

pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install 'amber_ext[eval]')")

COMMAND = Path(sys.executable).parent / "amber-lm-eval"


@pytest.fixture
def task_folder(data, tmp_path):
    """The local rte task as a file that lm-eval's command line takes."""
    import yaml

    definition = REPOSITORY / "amber_ext" / "evaluation" / "task_definitions" / "rte.yaml"
    config = yaml.safe_load(definition.read_text())
    del config["data"], config["fields"]
    config |= {
        "task": "letters",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(data / "rte" / "validation.jsonl")}},
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "letters.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "tasks"


@pytest.mark.slow
def test_the_command_line(data, task_folder, tiny_model_folder, tmp_path, monkeypatch):
    config = AmberConfig(pattern="2:4", score="wanda", rescale="variance")
    config.save(tmp_path / "config.json")
    loaded = load_model(str(tiny_model_folder))
    sparsify_(loaded.model, config)
    expected = run_task(loaded.model, loaded.tokenizer, "rte", load_tasks(["rte"], data)["rte"])

    def arguments(how, out):
        return list(map(str, [
            "run", "--model", "amber", "--model_args", f"pretrained={tiny_model_folder},{how}",
            "--tasks", "letters", "--include_path", task_folder, "--device", "cpu", "--output_path", out,
            "--batch_size", "16",  # as run_task: products of other shapes round otherwise
        ]))  # fmt: skip

    installed = [COMMAND, *arguments("pattern=2:4,score=wanda,rescale=variance", tmp_path / "installed")]
    result = subprocess.run(installed, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # The other way to say it in this process: a second start takes half a minute.
    here = ["amber-lm-eval", *arguments(f"config={tmp_path / 'config.json'}", tmp_path / "here")]
    monkeypatch.setattr(sys, "argv", here)
    from amber_ext.integrations.lm_eval import main

    main()
    for out in ("installed", "here"):
        (file,) = (tmp_path / out).rglob("results*.json")
        scores = json.loads(file.read_text())["results"]["letters"]
        assert scores["acc,none"] == pytest.approx(expected.value)
        assert scores["acc_stderr,none"] == pytest.approx(expected.stderr)


def test_the_model_is_pruned_as_its_arguments_say(tiny_model_folder, tmp_path):
    from amber_ext.integrations.lm_eval import AmberLM

    config = AmberConfig(pattern="2:4", score="wanda", rescale="variance")
    config.save(tmp_path / "config.json")
    for options in (
        {"pattern": "2:4", "score": "wanda", "rescale": "variance"},
        {"config": str(tmp_path / "config.json")},
    ):
        lm = AmberLM(str(tiny_model_folder), device="cpu", **options)
        layers = [module for module in lm.model.modules() if isinstance(module, AmberLinear)]
        assert len(layers) == 12
        found = {(str(layer.pattern), layer.score, layer.rescale) for layer in layers}
        assert found == {("2:4", "wanda", "variance")}
    dense = AmberLM(str(tiny_model_folder), device="cpu")
    assert not any(isinstance(module, AmberLinear) for module in dense.model.modules())


def test_refuses(tiny_model_folder):
    from amber_ext.integrations.lm_eval import AmberLM

    with pytest.raises(ValueError, match="config, pattern: 'a.json' and '2:4' are both given"):
        AmberLM(tiny_model_folder, pattern="2:4", config="a.json")
    with pytest.raises(ValueError, match="dtype: 'int33' is not allowed"):
        AmberLM(str(tiny_model_folder), dtype="int33")
    with pytest.raises(ValueError, match="pattern: '4:2' is not allowed"):
        AmberLM(str(tiny_model_folder), pattern="4:2")
    with pytest.raises(ValueError, match="model: 'nowhere' is not there"):
        AmberLM("nowhere", pattern="2:4")
