"""Linear layers whose weight a model's code reads past them: they stay dense, and say so."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from architectures.table import ARCHITECTURES

from amber_ext import (
    AmberConfig,
    AmberQuantConfig,
    OutstandingSparseConfig,
    attach_config,
    load_quantized,
    quantize_,
    save_quantized,
    sparsify_,
)
from amber_ext.families import READ_PAST_LAYER
from amber_ext.methods.direct_reads import _QUESTIONS

IDS = torch.arange(3, 27).view(1, 24)
MIXERS = {"mamba": "MambaMixer", "falcon_mamba": "FalconMambaMixer", "jamba": "JambaMambaMixer"}
TARGETS = ("in_proj", "x_proj", "dt_proj", "out_proj")

# Read for training alone, or with an option of the configuration that no published model sets.
NOT_IN_PREFILL = {
    ("BambaMixer", "out_proj"),
    ("BloomAttention", "dense"),
    ("BloomMLP", "dense_4h_to_h"),
    ("FalconH1Mixer", "out_proj"),
    ("FalconMambaMixer", "out_proj"),
    ("FalconMambaMixer", "x_proj"),
    ("Gemma3nTextAltUp", "correction_coefs"),
    ("Gemma3nTextAltUp", "prediction_coefs"),
    ("GraniteMoeHybridMambaLayer", "out_proj"),
    ("Mamba2Mixer", "out_proj"),
    ("MambaMixer", "out_proj"),
    ("MambaMixer", "x_proj"),
    ("NemotronHMamba2Mixer", "out_proj"),
    ("Zamba2MambaMixer", "out_proj"),
}
# The vocabulary head is never pruned.
HEADS = {"lm_head"}


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(params=MIXERS)
def kind(request):
    return request.param


@pytest.fixture
def model(kind):
    return next(a for a in ARCHITECTURES if a.name == kind).build()


def test_they_stay_dense_and_the_report_says_why(model, kind):
    report = sparsify_(model, AmberConfig(targets=TARGETS))
    rows = [row for row in report.rows if row.projection == "dt_proj"]
    assert rows and {(row.sparse, row.reason) for row in rows} == {
        (False, f"{MIXERS[kind]} reads its weight past it")
    }
    assert type(model.get_submodule(rows[0].name)) is torch.nn.Linear
    assert {row.projection for row in report.rows if row.sparse} == {"in_proj", "x_proj", "out_proj"}


@pytest.mark.parametrize("quantized", [False, True])
def test_saved_and_loaded_models_give_the_same_logits(model, quantized, tmp_path):
    if quantized:
        config = OutstandingSparseConfig(targets=TARGETS, direction="none", unquantized={"dt_proj": "all"})
        quantize_(model, config)
        save_quantized(model, tmp_path / "saved")
        again = load_quantized(tmp_path / "saved")
    else:
        sparsify_(model, AmberConfig(targets=TARGETS))
        attach_config(model)
        model.save_pretrained(tmp_path / "saved")
        again = type(model).from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(logits(again), logits(model))


def test_pruning_at_loading_is_pruning_in_memory(model, tmp_path):
    config = AmberConfig(targets=TARGETS)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, quantization_config=AmberQuantConfig(config)).eval()
    sparsify_(model, config)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.slow
def test_transformers_source_reads_no_other():
    """A version of transformers that reads one more past its layer must get its line in `READ_PAST_LAYER`."""
    folder = Path(importlib.util.find_spec("transformers").origin).parent
    found = set().union(*map(reads, sorted(folder.glob("models/*/modeling_*.py"))))
    known = {(owner, name) for owner, names in READ_PAST_LAYER.items() for name in names}
    assert {pair for pair in found if pair[1] not in HEADS} - known - NOT_IN_PREFILL == set()


def test_a_source_that_reads_a_weight(tmp_path):
    path = tmp_path / "modeling_one.py"
    path.write_text(
        """
class Base(nn.Module):
    def __init__(self):
        self.a, self.norm = None, Norm()
        self.dt = nn.Linear(2, 2)
class Mixer(Base):
    def forward(self, x):
        return self.dt.weight @ x + self.norm.weight
class Other(Base):
    def forward(self, x):
        return self.dt(x.to(self.dt.weight.dtype))
    def init_weights(self):
        init.zeros_(self.dt.weight)
"""
    )
    assert reads(path) == {("Mixer", "dt")}


def reads(path):
    """Of one source file: the classes, and the linears in them whose weight is read for more than `_QUESTIONS`."""
    text = path.read_text()
    if not re.search(r"self\.\w+\.weight\b", text):
        return set()
    tree = ast.parse(text)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = set()
    for name, node in classes.items():
        linears = linears_of(node, classes)
        for method in node.body:
            if not isinstance(method, ast.FunctionDef) or method.name.lstrip("_").startswith("init"):
                continue
            asked = {
                id(part)
                for outer in ast.walk(method)
                for part in (
                    [outer.value]
                    if isinstance(outer, ast.Attribute) and outer.attr in _QUESTIONS
                    else outer.args
                    if isinstance(outer, ast.Call) and ast.unparse(outer.func) == "isinstance"
                    else ()
                )
            }
            found |= {
                (name, part.value.attr)
                for part in ast.walk(method)
                if isinstance(part, ast.Attribute)
                and part.attr == "weight"
                and id(part) not in asked
                and isinstance(part.value, ast.Attribute)
                and ast.unparse(part.value.value) == "self"
                and part.value.attr in linears
            }
    return found


def linears_of(node, classes):
    bases = (classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes)
    own = {
        target.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Assign)
        and isinstance(part.value, ast.Call)
        and ast.unparse(part.value.func) in ("nn.Linear", "torch.nn.Linear")
        for target in part.targets
        if isinstance(target, ast.Attribute)
    }
    return own.union(*(linears_of(base, classes) for base in bases))
