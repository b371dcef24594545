"""A real model against figures that an independent implementation measured (each within 1 %)."""

import copy

import pytest
import torch

from amber_ext import AmberConfig, OutstandingSparseConfig, densify_, quantize_, sparsify_
from amber_ext.config import DEFAULT_TARGETS
from amber_ext.evaluation.text import greedy_answer, read_text, tokenize
from amber_ext.perplexity import perplexity
from amber_ext.planning.paper_rule import plan_from
from amber_ext.planning.sensitivity import sensitivity

ALL_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def pruned_perplexity(loaded, path, config, count):
    ids = tokenize(loaded.tokenizer, read_text(path), count)
    if config is None:
        densify_(loaded.model)
    else:
        sparsify_(loaded.model, config)
    return perplexity(loaded.model, ids, 1024)


@pytest.mark.parametrize(
    "config, expected",
    [
        (None, 24.14),
        (AmberConfig(score="magnitude", targets=ALL_SEVEN), 116.6),
        (AmberConfig(), 39.07),
        (AmberConfig(rescale="variance"), 38.18),
    ],
    ids=["dense", "magnitude-everywhere", "robust-norm", "robust-norm-rescaled"],
)
def test_perplexity_on_wikitext(smollm2, wikitext_path, config, expected):
    got = pruned_perplexity(smollm2, wikitext_path, config, 40_960)
    assert got == pytest.approx(expected, rel=0.01)


def test_denser_patterns_and_skips_are_better(smollm2, wikitext_path):
    count = 6144
    measure = {}
    for score in ("magnitude", "wanda", "robust_norm"):
        for pattern in ("2:4", "4:8", "8:16"):
            config = AmberConfig(pattern=pattern, score=score)
            measure[score, pattern] = pruned_perplexity(smollm2, wikitext_path, config, count)
        assert measure[score, "2:4"] > measure[score, "4:8"] > measure[score, "8:16"], score

    # The skips are chosen on tokens that the perplexity does not see.
    calibration = tokenize(smollm2.tokenizer, read_text(wikitext_path), 60_000)[-2048:]
    for pattern in ("2:4", "8:16"):
        config = AmberConfig(pattern=pattern)
        measured = sensitivity(smollm2.model, [ids[None] for ids in calibration.split(1024)], config)
        skipping = plan_from(smollm2.model, measured, config, skip=5)
        assert {len(layers) for layers in skipping.skip_layers.values()} == {5}
        assert pruned_perplexity(smollm2, wikitext_path, skipping, count) < measure["robust_norm", pattern]


@pytest.mark.parametrize(
    "pattern, expected", [("dense", 29.18), ("8:16", 38.53), ("10:16w", 35.21), ("12:16w", 30.16)]
)
def test_filled_windows_beat_exact_8_16(smollm2, wikitext_path, pattern, expected):
    """Figures that another implementation measured, robust-norm on q, gate and down."""
    if pattern == "dense":
        tokens = tokenize(smollm2.tokenizer, read_text(wikitext_path), 8192)
        found = perplexity(smollm2.model, tokens)
    else:
        found = pruned_perplexity(smollm2, wikitext_path, AmberConfig(pattern=pattern), 8192)
    assert found == pytest.approx(expected, rel=0.01)


def test_w8a8(smollm2, wikitext_path):
    """SmoothQuant keeps dense W8A8 within 2 %, ahead of no smoothing; pruned too it beats the paper's inverse."""
    ids = tokenize(smollm2.tokenizer, read_text(wikitext_path), 60_000)
    scored, calibration = ids[:3072], [part[None] for part in ids[-1024:].split(512)]
    dense = perplexity(smollm2.model, scored)
    smoothings = {"smoothquant": 0.5, "none": 0.5, "outstanding": 0.1}
    quantized, sparse = {}, {}
    for direction, alpha in smoothings.items():
        for targets, results in (((), quantized), (DEFAULT_TARGETS, sparse)):
            model = copy.deepcopy(smollm2.model)
            config = OutstandingSparseConfig(
                pattern="8:16", targets=targets, direction=direction, alpha=alpha
            )
            quantize_(model, config, calibration)
            results[direction] = perplexity(model, scored)
    assert quantized["smoothquant"] == pytest.approx(dense, rel=0.02)
    assert min(quantized, key=quantized.get) == "smoothquant"
    assert sparse["smoothquant"] < sparse["outstanding"]
    assert all(sparse[direction] > quantized[direction] for direction in smoothings)


def test_it_still_answers(smollm2):
    sparsify_(smollm2.model, AmberConfig(pattern="8:16"))
    torch.manual_seed(0)
    answer = greedy_answer(smollm2.model, smollm2.tokenizer, "What is the capital of France?", 24)
    assert "Paris" in answer
