import json

import pytest
import torch

from amber_ext import (
    AmberConfig,
    OutstandingSparseConfig,
    Pattern,
    plan,
    plan_for_cost,
    quantize_,
    sensitivity,
    sparsify_,
)


def test_round_trip(tmp_path):
    config = AmberConfig(
        pattern="10:16w",
        score="wanda",
        rescale="variance",
        targets=("q_proj", "down_proj"),
        skip_layers={"q_proj": (5, 1, 5)},
        layer_patterns={"down_proj": {"8:16": (2, 0), "2:4": (7,)}},
        backend="reference",
    )
    assert config.pattern == Pattern("10:16w") and config.skip_layers == {"q_proj": (1, 5)}
    assert config.layer_patterns == {"down_proj": {"8:16": (0, 2), "2:4": (7,)}}
    assert [str(config.pattern_of("down_proj", layer)) for layer in (0, 1, 7)] == ["8:16", "10:16w", "2:4"]
    assert [str(pattern) for pattern in config.patterns] == ["10:16w", "8:16", "2:4"]
    config.save(tmp_path / "config.json")
    assert AmberConfig.load(tmp_path / "config.json") == config
    assert json.loads((tmp_path / "config.json").read_text())["pattern"] == "10:16w"
    assert AmberConfig.from_dict({}) == AmberConfig()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"pattern": "4:2"}, "pattern: '4:2'"),
        ({"score": "norm"}, "score: 'norm' is not known; allowed: 'magnitude'"),
        ({"rescale": "std"}, "rescale: 'std'"),
        ({"backend": "gpu"}, "backend: 'gpu'"),
        ({"targets": ()}, r"targets: \(\) is not allowed"),
        ({"targets": "q_proj"}, "targets: 'q_proj' is not allowed; it must be a list"),
        ({"skip_layers": {"o_proj": (1,)}}, "skip_layers: 'o_proj' is not a target"),
        ({"layer_patterns": {"o_proj": {"2:4": (1,)}}}, "layer_patterns: 'o_proj' is not a target"),
        ({"layer_patterns": {"q_proj": {"9:8": (1,)}}}, "pattern: '9:8' is not allowed"),
        (
            {"layer_patterns": {"q_proj": {"2:4": (1, 3), "8:16": (3,)}}},
            "layer_patterns: q_proj layer 3 is named twice",
        ),
        (
            {"layer_patterns": {"q_proj": {"8:16": (3,)}}, "skip_layers": {"q_proj": (3,)}},
            "layer_patterns: q_proj layer 3 is named twice",
        ),
        (
            {"projection_scores": {"q_proj": "norm"}},
            "projection_scores: q_proj: 'norm' is not known; allowed",
        ),
        ({"projection_scores": {"o_proj": "wanda"}}, "projection_scores: 'o_proj' is not a target"),
        (
            {"projection_scores": "wanda"},
            "projection_scores: 'wanda' is not allowed; it must be a dict of names",
        ),
        ({"patern": "2:4"}, "AmberConfig field: 'patern' is not known; allowed: 'pattern'"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        AmberConfig.from_dict(fields)
    assert "\n" not in str(error.value)


def test_refuses_bad_files(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="a.json' is not valid JSON"):
        AmberConfig.load(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        AmberConfig.load(tmp_path / "b.json")


def test_unknown_preset():
    with pytest.raises(ValueError, match="preset: 'llama' is not known; allowed: 'llama-3.1-8b', 'qwen2-7b'"):
        AmberConfig.preset("llama")


def test_outstanding_sparse_round_trip(tmp_path):
    config = OutstandingSparseConfig(
        pattern="8:16",
        targets=(),
        direction="outstanding",
        alpha=0.1,
        dtype="e4m3",
        unquantized={"down_proj": "all", "o_proj": [3, 1, 3]},
    )
    assert config.unquantized == {"down_proj": "all", "o_proj": (1, 3)}
    assert config.keeps_dtype("down_proj", 7) and config.keeps_dtype("o_proj", 3)
    assert not config.keeps_dtype("o_proj", 2) and not config.keeps_dtype("q_proj", 1)
    config.save(tmp_path / "config.json")
    assert OutstandingSparseConfig.load(tmp_path / "config.json") == config
    preset = OutstandingSparseConfig.preset("llama-3.1-8b", dtype="int8")
    assert preset.skip_layers["q_proj"] == AmberConfig.preset("llama-3.1-8b").skip_layers["q_proj"]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"direction": "up"}, "direction: 'up' is not known; allowed: 'none', 'smoothquant', 'outstanding'"),
        ({"alpha": -0.1}, r"alpha: -0.1 is not allowed; it must be in \[0, 1\]"),
        ({"alpha": float("nan")}, "alpha: nan is not allowed"),
        ({"dtype": "fp4"}, "dtype: 'fp4' is not known; allowed: 'int8', 'e4m3'"),
        ({"targets": "q_proj"}, "targets: 'q_proj' is not allowed"),
        ({"unquantized": {"o_proj": "some"}}, "unquantized: o_proj: 'some' is not allowed"),
    ],
)
def test_outstanding_sparse_refusals(fields, message):
    with pytest.raises(ValueError, match=message):
        OutstandingSparseConfig(**fields)


def test_unknown_fields_are_named_with_their_class():
    with pytest.raises(ValueError, match="OutstandingSparseConfig field: 'beta' is not known"):
        OutstandingSparseConfig.from_dict({"beta": 1})


@pytest.mark.parametrize(
    "fields, message",
    [
        *(({name: value}, f"{name}: {value!r} is not allowed; it must be a dict")
          for name in ("skip_layers", "layer_patterns", "unquantized") for value in (None, 3, "q_proj")),
        *(({"targets": value}, "it must be a list of projection names") for value in (3, [1], [None], {"a": 1})),
        *(({"skip_layers": {"q_proj": value}}, "skip_layers: q_proj: .* it must be a list of layer numbers")
          for value in (3, None, "01", ["1"], [1.5], [True], {"1": 2})),
        ({"skip_layers": {3: [1]}}, "skip_layers: {3: .* it must be a dict of names to layer numbers"),
        ({"layer_patterns": {"q_proj": ["2:4"]}}, "layer_patterns: q_proj: .* it must be a dict"),
        ({"layer_patterns": {"q_proj": {"2:4": 3}}}, "layer_patterns: q_proj: 3 .* it must be a list"),
        *(({"alpha": value}, r"alpha: .* is not allowed; it must be in \[0, 1\]")
          for value in (None, "0.5", True, [1])),
        ({"unquantized": {"q_proj": [None]}}, "unquantized: q_proj: .* list of layer numbers or 'all'"),
        ({"targets": [torch.ones(9, 9)]}, "targets: "),
    ],
)  # fmt: skip
def test_fields_of_other_types(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        OutstandingSparseConfig.from_dict(fields)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize("fields", [None, "2:4", ["pattern"], 3])
def test_from_dict_takes_a_dict(fields):
    with pytest.raises(ValueError, match="fields: .* is not allowed; it must be a dict"):
        AmberConfig.from_dict(fields)


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"targets": 3}', b'{"pattern": "5:4"}', b"[" * 100_000])
def test_a_file_is_named_by_its_path(tmp_path, content):
    (tmp_path / "mine.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^path: '.*mine.json' is not ") as error:
        AmberConfig.load(tmp_path / "mine.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [None, "2:4", {"pattern": "2:4"}, 3])
def test_what_is_no_configuration(tiny_llama, snapshot, config):
    batches, unchanged = [torch.ones(1, 8, dtype=torch.int64)], snapshot(tiny_llama)
    calls = {
        "AmberConfig": [
            lambda: sparsify_(tiny_llama, config),
            lambda: sensitivity(tiny_llama, batches, config),
            *([] if config is None else [lambda: plan(tiny_llama, batches, config, skip=1)]),
            *([] if config is None else [lambda: plan_for_cost(tiny_llama, batches, 0.8, config)]),
        ],
        "OutstandingSparseConfig": [
            lambda: quantize_(tiny_llama, config, batches),
            lambda: quantize_(tiny_llama, AmberConfig(), batches),
        ],
    }
    for kind, functions in calls.items():
        for function in functions:
            with pytest.raises(TypeError, match=f"^config: .* is not allowed; it must be an {kind} "):
                function()
    unchanged()
