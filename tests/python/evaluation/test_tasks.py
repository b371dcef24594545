"""The tasks that need no hub ask what lm-eval's own definitions ask, and bad data is named by line."""

import json
from pathlib import Path

import pytest
from helpers import RTE, write_data

from amber_ext.evaluation.tasks import load_tasks, local_task, local_task_names

pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install 'amber_ext[eval]')")

ARC = {
    "ours": {"question": "Why is it's sky blue?", "choices": ["Rayleigh's law", "No", "paint"], "gold": 1},
    "hub": {
        "question": "Why is it's sky blue?",
        "choices": {"text": ["Rayleigh's law", "No", "paint"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
}
BOOLQ = {"passage": "Salt is NaCl.", "question": "is salt a metal", "answer": False}
PIQA = {"goal": "dry a cup", "sol1": "use a towel", "sol2": 'say "dry"', "label": 0}
WINOGRANDE = {
    "sentence": "Ann thanked Bea since _ had won.",
    "option1": "Ann",
    "option2": "Bea",
    "answer": "2",
}
GSM8K = {"question": "What is 1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}

# Task: its definition in lm-eval, our document, the hub's.
CASES = {
    "arc_easy": ("arc/arc_easy", ARC["ours"], ARC["hub"]),
    "arc_challenge": ("arc/arc_challenge", ARC["ours"], ARC["hub"]),
    "boolq": ("super_glue/boolq/default", BOOLQ, {**BOOLQ, "label": 0}),
    "openbookqa": (
        "openbookqa/openbookqa",
        ARC["ours"],
        {**ARC["hub"], "question_stem": ARC["hub"]["question"]},
    ),
    "piqa": ("piqa/piqa", PIQA, PIQA),
    "rte": ("glue/rte/default", RTE, RTE),
    "winogrande": ("winogrande/default", WINOGRANDE, WINOGRANDE),
    "gsm8k": ("gsm8k/gsm8k", GSM8K, GSM8K),
}


def hub_task(name, document):
    """lm-eval's own task over one document."""
    import lm_eval.tasks
    from datasets import Dataset
    from lm_eval.tasks import TaskManager

    path = Path(lm_eval.tasks.__file__).parent / f"{CASES[name][0]}.yaml"
    splits = {split: Dataset.from_list([document] * 6) for split in ("train", "validation", "test")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.load_dataset", lambda *args, **options: splits)
        (task,) = TaskManager(include_defaults=False).load(str(path))["tasks"].values()
    return task


def requests(task, fewshot=0):
    task.set_config("num_fewshot", fewshot)
    task.set_fewshot_seed(seed=1234)
    task.build_all_requests(limit=1)
    return [(i.request_type, tuple(a for a in i.args if isinstance(a, str))) for i in task.instances]


@pytest.mark.parametrize("name", CASES)
def test_asks_what_lm_evals_own_task_asks(tmp_path, name):
    _, ours, hub = CASES[name]
    write_data(tmp_path, name, ours)
    mine, theirs = local_task(name, tmp_path), hub_task(name, hub)
    assert requests(mine) == requests(theirs)
    assert len(requests(mine)) == {"gsm8k": 1, "arc_easy": 3, "arc_challenge": 3, "openbookqa": 3}.get(
        name, 2
    )
    if name == "gsm8k":
        assert requests(mine, fewshot=5) == requests(theirs, fewshot=5)
    document = next(iter(mine.eval_docs))
    assert mine.doc_to_target(document) == theirs.doc_to_target(next(iter(theirs.eval_docs)))


def test_every_task_is_compared():
    assert local_task_names() == sorted(CASES)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "rte/validation.jsonl' is not a file"),
        ("\n \n", "is empty; it must hold one JSON object a line"),
        (json.dumps(RTE) + "\n{broken\n", "line 2 is not valid JSON"),
        (json.dumps(RTE) + "\n\n[1, 2]\n", "line 3 has no 'sentence1'; needed: sentence1, sentence2, label"),
        ('{"sentence1": "a", "sentence2": "b"}\n', "line 1 has no 'label'"),
    ],
)
def test_bad_data_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "rte").mkdir()
        (tmp_path / "rte" / "validation.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_tasks(["rte"], tmp_path)


def test_a_task_without_a_local_definition(tmp_path):
    with pytest.raises(ValueError, match="tasks: 'hella' has no local definition; there are: arc_challenge"):
        local_task("hella", tmp_path)


@pytest.mark.slow  # lm-eval reads thousands of definitions, each time
def test_unknown_tasks_and_own_definitions(tmp_path):
    with pytest.raises(ValueError, match="tasks: 'no_such' is not a task or group of lm-eval"):
        load_tasks(["no_such"], tmp_path)
    (tmp_path / "facts.jsonl").write_text('{"text": "a b", "answer": "c"}\n' * 3)
    (tmp_path / "own_facts.yaml").write_text(
        "task: own_facts\ndataset_path: json\noutput_type: loglikelihood\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'facts.jsonl'}}}}}\n"
        'doc_to_text: "{{text}}"\ndoc_to_target: "{{answer}}"\nmetric_list: [{metric: acc}]\n'
    )
    tasks = load_tasks(["own_facts"], include_path=tmp_path)
    assert len(list(tasks["own_facts"].eval_docs)) == 3
