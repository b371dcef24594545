"""`amber-ext eval`: its cells, its table, that it goes on where it was stopped, and its one-line errors."""

import json
import math

import pytest
import torch
from helpers import tiny_llama_config

from amber_ext import AmberConfig, AmberLinear, plan_for_cost
from amber_ext.evaluation.prepare import Calibration, prepared
from amber_ext.evaluation.table import markdown_table, table_rows
from amber_ext.evaluation.text import read_text, tokenize
from amber_ext.evaluation.variants import LADDER, METHODS, Row, make_rows
from amber_ext.models import load_model
from amber_ext.perplexity import perplexity

pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install 'amber_ext[eval]')")


@pytest.fixture
def evaluate(run, tiny_model_folder, data, tmp_path):
    def call(*arguments, out=tmp_path / "out"):
        return run(
            "eval", tiny_model_folder, "--out", out, "--data", data, "--calibration", data / "text.txt",
            "--calibration-tokens", 128, "--window", 64, "--skip", 1, *arguments,
        )  # fmt: skip

    return call


@pytest.mark.slow
def test_the_whole_comparison(evaluate, tiny_model_folder, data, tmp_path):
    config = tmp_path / "mine.json"
    AmberConfig(targets=("down_proj",), layer_patterns={"down_proj": {"8:16": (1,)}}).save(config)
    methods = ",".join(m for m in METHODS if m != "dense")
    options = ["--tasks", "rte,piqa", "--text", data / "text.txt", "--tokens", 200, "--config", config]
    result = evaluate(*options, "--methods", methods, "--patterns", "2:4", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "out" / "results.json").read_text())
    rows = found["rows"]
    assert list(rows) == [
        "dense",
        *(m if m == "w8a8" else f"{m} 2:4" for m in methods.split(",")),
        "mine 2:4, 8:16",
    ]
    for row in rows.values():
        assert list(row["cells"]) == ["perplexity", "rte", "piqa"]
        assert row["cells"]["piqa"]["metric"] == "acc_norm" and row["cells"]["rte"]["metric"] == "acc"
        value, stderr = row["cells"]["rte"]["value"], row["cells"]["rte"]["stderr"]
        assert stderr == pytest.approx(math.sqrt(value * (1 - value) / 11))  # 12 documents
    loaded = load_model(str(tiny_model_folder))
    ids = tokenize(loaded.tokenizer, read_text(data / "text.txt"), 200)
    assert rows["dense"]["cells"]["perplexity"]["value"] == perplexity(loaded.model, ids, 64)
    # Each line is another model, but for a fold that changes no choice, a budget that 8 bits keep, and few steps from Wanda.
    alike = ("robust_norm_folded", "outstanding_unquantized", "weight_maskpro")
    values = [row["cells"]["perplexity"]["value"] for row in rows.values() if row["method"] not in alike]
    assert len(set(values)) == len(values)
    assert (tmp_path / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "out" / "table.md").read_text()
    assert table == markdown_table(list(rows.values()))
    assert table in evaluate(*options, "--methods", methods, "--patterns", "2:4").stdout


def test_goes_on_where_it_was_stopped(evaluate, monkeypatch, tmp_path):
    from amber_ext.evaluation import run as eval_run

    ran, real = [], eval_run.run_task

    def interrupted(model, tokenizer, name, task, **options):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(name)
        return real(model, tokenizer, name, task, **options)

    monkeypatch.setattr(eval_run, "run_task", interrupted)
    options = ["--tasks", "rte,piqa", "--methods", "magnitude", "--patterns", "2:4,8:16"]
    result = evaluate(*options)
    assert result.returncode == 1 and "stopped with 3 cells to go" in result.stderr
    assert "the same command goes on from there" in result.stderr and "Traceback" not in result.stderr

    ran.clear()
    monkeypatch.setattr(eval_run, "run_task", lambda *a, **o: ran.append(a[2]) or real(*a, **o))
    assert evaluate(*options).returncode == 0
    assert ran == ["piqa", "rte", "piqa"]
    ran.clear()
    # Nothing is left; what is new is added, even with nothing of the model loaded before.
    assert evaluate(*options).returncode == 0 and ran == []
    assert evaluate("--tasks", "rte", "--methods", "wanda", "--patterns", "2:4").returncode == 0
    assert ran == ["rte"]
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["rows"]) == 4


def test_results_of_other_settings_are_not_mixed(evaluate, tmp_path):
    options = ["--tasks", "rte", "--methods", "magnitude", "--patterns", "2:4"]
    config = tmp_path / "c.json"
    AmberConfig().save(config)
    assert evaluate(*options, "--limit", 4, "--config", config).returncode == 0
    result = evaluate(*options, "--limit", 5)
    assert result.returncode == 1 and "has results with limit = 4, not 5" in result.stderr
    AmberConfig(pattern="2:4", score="wanda").save(config)
    result = evaluate(*options, "--limit", 4, "--config", config)
    assert result.returncode == 1 and "has results of another configuration 'c'" in result.stderr
    (tmp_path / "out" / "results.json").write_text('{"rows": [')
    result = evaluate(*options, "--limit", 4)
    assert result.returncode == 1 and "is not a results file" in result.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "tasks: nothing to measure"),
        (["--tasks", "rte", "--methods", "l1"], "methods: 'l1' is not known; allowed: dense, magnitude"),
        (["--tasks", "rte", "--patterns", "5:4"], "pattern: '5:4' is not allowed"),
        (
            ["--tasks", "rte", "--methods", "weight_wanda", "--patterns", "10:16w"],
            "'10:16w' is not for weight_wanda",
        ),
        (["--tasks", "boolq"], "boolq/validation.jsonl' is not a file"),
        pytest.param(
            ["--tasks", "nosuch"],
            "tasks: 'nosuch' is not a task or group of lm-eval",
            marks=pytest.mark.slow,  # lm-eval reads thousands of definitions
        ),
        (["--tasks", "rte", "--text", "missing.txt"], "text: 'missing.txt' is not a file"),
        (["--tasks", "rte", "--config", "missing.json"], "path: 'missing.json' is not a file"),
    ],
)
def test_errors_are_one_line(evaluate, arguments, message):
    result = evaluate(*arguments)
    assert result.returncode == 1 and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr and not result.stdout


def test_a_model_that_cannot_be_loaded(run, data, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("no/such", "model: 'no/such' is not there"),
        (tmp_path / "empty", "cannot be loaded"),
    ):
        result = run("eval", name, "--out", tmp_path / "out", "--tasks", "rte", "--data", data)
        assert result.returncode == 1 and message in result.stderr and "Traceback" not in result.stderr


def test_few_shot(evaluate, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    prompts, real = [], HFLM.loglikelihood
    monkeypatch.setattr(
        HFLM,
        "loglikelihood",
        lambda self, requests: prompts.extend(r.args[0] for r in requests) or real(self, requests),
    )
    assert evaluate("--tasks", "rte", "--methods", "", "--num-fewshot", 2, "--limit", 3).returncode == 0
    assert len(prompts) == 6 and all(prompt.count("True or False?") == 3 for prompt in prompts)


def test_without_lm_eval(evaluate, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "lm_eval" else real(name, *a)
    )
    result = evaluate("--tasks", "rte")
    assert result.returncode == 1 and "pip install 'amber_ext[eval]'" in result.stderr


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_method_works_and_leaves_the_model_as_it_was(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    fields = {
        **tiny_llama_config().to_dict(),
        "model_type": kind,
        "sliding_window": None,
        "layer_types": None,
    }
    for name in ("architectures", "transformers_version", "head_dim"):
        fields.pop(name, None)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields)).eval()
    batches = [torch.randint(3, 97, (1, 32))]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = batches[0]
    dense = model(ids).logits
    for row in make_rows(list(METHODS), ["2:4"], {"own": AmberConfig(score="wanda")}):
        with prepared(model, row, Calibration(batches, 1)) as (ready, coverage):
            assert torch.equal(ready(ids).logits, dense) == (row.method == "dense")
            assert (coverage > 0) == (row.method not in ("dense", "w8a8"))
        assert torch.equal(model(ids).logits, dense), row
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert plan_for_cost(model, batches, 0.8).cost <= 0.8


def cells(rte, piqa):
    return {
        "rte": {"metric": "acc", "value": rte, "stderr": 0.03},
        "piqa": {"metric": "acc", "value": piqa, "stderr": 0.04},
    }


def test_the_tables_arithmetic():
    rows = [
        {"method": "dense", "pattern": "", "coverage": 0.0, "cells": cells(0.5, 0.7)},
        {"method": "wanda", "pattern": "2:4", "coverage": 0.6, "cells": cells(0.4, 0.6)},
        {"method": "wanda", "pattern": "4:8", "coverage": 0.6, "cells": {"rte": cells(0.45, 0)["rte"]}},
    ]
    tasks, (dense, wanda, partial) = table_rows(rows)
    assert tasks == ["rte", "piqa"]
    assert dense.average == pytest.approx(0.6) and dense.average_stderr == pytest.approx(0.025)
    assert wanda.drop == pytest.approx(0.1) and partial.average is None and partial.drop is None
    table = markdown_table(rows)
    assert "| wanda | 2:4 | 60.0% | 40.0 ± 3.0 | 60.0 ± 4.0 | 50.0 ± 2.5 | +10.0 |" in table
    assert "| wanda | 4:8 | 60.0% | 45.0 ± 3.0 |  |  |  |" in table


def test_rows():
    rows = make_rows(["w8a8", "wanda", "wanda"], ["2:4", "8:16"], {})
    assert rows == [Row("dense", ""), Row("w8a8", ""), Row("wanda", "2:4"), Row("wanda", "8:16")]


def test_the_papers_steps(tiny_llama):
    """Naive prunes every projection; the next two leave o, up, k and v dense, and q and gate in one layer."""
    batches = [torch.randint(3, 97, (1, 32))]
    found = {}
    for row in make_rows(LADDER, ["2:4"], {}):
        with prepared(tiny_llama, row, Calibration(batches, 1)) as (ready, coverage):
            layers = [m for m in ready.modules() if isinstance(m, AmberLinear)]
            found[row.method] = (len(layers), {layer.score for layer in layers}, coverage)
    assert found["dense"] == (0, set(), 0.0)
    assert found["naive"] == (28, {"magnitude"}, 1.0)
    assert found["layer_skip"][:2] == (10, {"magnitude"})
    assert found["robust_norm_skips"][:2] == (10, {"robust_norm"})
    assert found["layer_skip"][2] == pytest.approx((3 * (64 * 64 + 64 * 160) + 4 * 64 * 160) / (4 * 43008))
