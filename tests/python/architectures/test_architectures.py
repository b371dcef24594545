"""What amber_ext does with small models of many architectures, and the phase of every call of theirs."""

import json
from collections import Counter

import pytest
from architectures.expected import CANNOT, DIFFERS
from architectures.outcomes import YES, outcome
from architectures.table import ARCHITECTURES
from architectures.ways import WAYS, expected
from helpers import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results" / "architectures.json"
COLUMNS = ("sparsify", "quantize", "save and load", "save and load quantized")

# One of each kind, and those that ran wrong once, without the slow rest.
QUICK = {"llama", "opt", "bert", "mixtral", "mamba", "qwen3_next", "t5", "llava"}


def measured():
    transformers = pytest.importorskip("transformers")
    results = json.loads(RESULTS.read_text())
    if results["transformers"] != transformers.__version__:
        pytest.skip(f"the table is of transformers {results['transformers']}, not {transformers.__version__}")
    return {(row["name"], row["kind"]): row for row in results["rows"]}


def test_the_table_is_wide():
    assert len({(a.name, a.kind) for a in ARCHITECTURES}) == len(ARCHITECTURES) >= 40
    kinds = Counter(a.kind for a in ARCHITECTURES)
    assert all(
        kinds[kind] >= 2 for kind in ("MoE", "SSM or hybrid", "encoder-decoder", "speech", "multimodal")
    )
    assert {*DIFFERS, *CANNOT} <= {(a.name, a.kind) for a in ARCHITECTURES}


def test_what_is_expected_comes_from_counting_tokens():
    calls = [(4, 1, {}), (4, 1, {}), (5, 1, {}), (1, 1, {})]
    assert expected(calls, 10, 0, True) == [(4, 0), (4, 0), (2, 3), (0, 1)]
    assert expected(calls[1:], 10, 7, True) == [(3, 1), (0, 5), (0, 1)]
    assert expected([(10, 1, {}), (11, 1, {})], 10, 0, False) == [(10, 0), (10, 1)]


def marked(architecture):
    marks = () if architecture.name in QUICK else pytest.mark.slow
    return pytest.param(architecture, marks=marks, id=f"{architecture.name}-{architecture.kind}")


@pytest.mark.parametrize("architecture", map(marked, ARCHITECTURES))
def test_architecture(architecture):
    known = measured()
    key = (architecture.name, architecture.kind)
    found = {"name": architecture.name, **outcome(architecture)}
    wrong = {
        column: found[column]
        for column in (*COLUMNS, "quantized phases")
        if column in found and not _as_expected(column, found[column], DIFFERS.get(key, {}).get(column))
    }
    assert not wrong
    assert DIFFERS.get(key, {}).keys() <= found.keys()
    if found["sparsify"] == YES:
        assert set(WAYS) - found["phases"].keys() == CANNOT.get(key, set())
        assert not {way: text for way, text in found["phases"].items() if "[" in text}
    assert found == known[key], "python tests/python/architectures/write_results.py"


def _as_expected(column, text, differs):
    if differs is not None:
        return differs in text
    return "[" not in text if column == "quantized phases" else text == YES
