"""W8A8 checkpoints of compressed-tensors load as `QuantizedLinear`, with the same weights, and can be pruned."""

import json

import pytest
import torch
from helpers import IDS, PROMPT, logits
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from amber_ext import AmberConfig, densify_, load_quantized, prune_quantized_, save_quantized, sparsify_
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.models import load_model
from amber_ext.ops.reference import nm_mask
from amber_ext.ops.scores import channel_scale
from amber_ext.phase import decode

pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")


def quantized_layers(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantizedLinear)}


def distance(one, other):
    return float((one - other).norm() / other.norm())


def test_weights_are_those_of_the_files(w8a8, kind):
    stored = load_file(w8a8 / "model.safetensors")
    model = load_quantized(w8a8)
    layers = quantized_layers(model)
    assert len(layers) == 28 and not model.training and model.dtype == torch.float32
    for name, layer in layers.items():
        assert layer.dtype == {"int": "int8", "float": "e4m3"}[kind]
        assert torch.equal(layer.weight.view(torch.uint8), stored[f"{name}.weight"].view(torch.uint8))
        assert torch.equal(layer.weight_scale, stored[f"{name}.weight_scale"].flatten())
        if f"{name}.bias" in stored:
            assert torch.equal(layer.bias, stored[f"{name}.bias"])
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
        assert torch.equal(model.state_dict()[name], stored[name])


def test_logits_are_those_of_transformers_own_loader(w8a8):
    """But for rounding to 8 bits: there, an int8 token's largest value becomes 127.5, here 127, as in vLLM."""
    theirs = logits(AutoModelForCausalLM.from_pretrained(w8a8))
    assert distance(logits(load_quantized(w8a8)), theirs) < 0.02
    # What a wrong scale would do.
    wrong = load_quantized(w8a8)
    for layer in quantized_layers(wrong).values():
        layer.weight_scale.copy_(layer.weight_scale.flip(0))
    assert distance(logits(wrong), theirs) > 0.05


def test_one_layer_is_exactly_the_product_of_its_rounded_tokens(w8a8, kind):
    """Where both round a token alike, both products are the same: tokens whose values are 8-bit numbers already."""
    name = "model.layers.1.mlp.gate_proj"
    theirs = AutoModelForCausalLM.from_pretrained(w8a8)
    theirs(IDS)  # it decompresses its weights in its first call
    theirs, ours = theirs.get_submodule(name), load_quantized(w8a8).get_submodule(name)
    x = torch.randint(-8, 9, (5, ours.in_features)).float()
    x[:, 0] = 127 if kind == "int" else 448
    with torch.inference_mode():
        product = x @ theirs.weight.t()
        assert torch.allclose(ours(x), product, rtol=1e-5, atol=1e-4)
        assert distance(theirs(x), product) < 0.02


def test_pruning_on_top(w8a8, tiny_model_folder, tmp_path):
    model = load_quantized(w8a8)
    dense, weights = logits(model), {n: layer.weight for n, layer in quantized_layers(model).items()}
    config = AmberConfig(
        pattern="8:16", skip_layers={"q_proj": (0,)}, layer_patterns={"q_proj": {"2:4": (1,)}}
    )
    report = prune_quantized_(model, config)
    assert sum(row.sparse for row in report.rows) == 11 and all(row.quantized for row in report.rows)
    assert (
        report.coverage == sparsify_(AutoModelForCausalLM.from_pretrained(tiny_model_folder), config).coverage
    )
    layers = quantized_layers(model)
    assert all(
        torch.equal(layer.weight.view(torch.uint8), weights[n].view(torch.uint8))
        for n, layer in layers.items()
    )
    layer = layers["model.layers.2.mlp.down_proj"]
    scores = channel_scale(layer.weight.float() * layer.weight_scale[:, None], "robust_norm")
    assert torch.equal(layer.channel_scale, scores) and str(layer.pattern) == "8:16"
    x = torch.randn(3, layer.in_features)
    kept = nm_mask(x, layer.pattern, scores)
    with decode():
        expected = layer(torch.where(kept, x, 0.0))
    assert torch.allclose(layer(x), expected)

    pruned = logits(model)
    assert not torch.equal(pruned, dense) and distance(pruned, dense) < 0.5
    with decode():
        assert torch.equal(logits(model), dense)
    model.generate(PROMPT, max_new_tokens=3, do_sample=False)
    save_quantized(model, tmp_path / "out")
    again = load_quantized(tmp_path / "out")
    assert torch.equal(logits(again), pruned)
    # Another pruning takes the place of the first.
    assert prune_quantized_(again, AmberConfig(targets=("o_proj",))).coverage < report.coverage
    assert str(quantized_layers(again)["model.layers.2.mlp.down_proj"].pattern) == "1:1"


def test_layers_that_were_left_out_are_pruned_too(write_folder, tmp_path):
    folder = write_folder(
        tmp_path / "model", "int", activations={}, ignore=("lm_head", "re:.*down_proj"), dtype=torch.bfloat16,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = load_quantized(folder)
    assert len(quantized_layers(model)) == 24 and model.lm_head.weight is model.model.embed_tokens.weight
    prune_quantized_(model, AmberConfig())
    assert isinstance(model.model.layers[0].mlp.down_proj, AmberLinear)
    save_quantized(model, tmp_path / "out")
    assert torch.equal(logits(load_quantized(tmp_path / "out")), logits(model))


def test_from_the_command_line(run, w8a8, tiny_model_folder, tmp_path):
    folder, out, text = tmp_path / "model", tmp_path / "out", tmp_path / "text.txt"
    folder.mkdir()
    text.write_text(" ".join("abcdefghij" * 20))
    for file in [*w8a8.iterdir(), *tiny_model_folder.glob("tokenizer*")]:
        (folder / file.name).write_bytes(file.read_bytes())
    result = run("prune", folder, "--out", out, "--pattern", "8:16", "--measure", text)
    assert result.returncode == 0, result.stderr
    assert "28 of 28 linear projections in " in result.stdout and ": W8A8" in (out / "README.md").read_text()
    results = [
        json.loads(run("ppl", place, "--text", text, "--json").stdout)["results"] for place in (folder, out)
    ]
    assert [[row["pattern"] for row in rows] for rows in results] == [["dense"], ["dense", "8:16"]]
    assert results[0][0]["perplexity"] == results[1][0]["perplexity"]


@pytest.mark.parametrize(
    "scheme, message",
    [
        ({"activations": None}, "config_groups.group_0.input_activations = None is not allowed"),
        ({"activations": {"dynamic": False, "strategy": "tensor"}}, "input_activations.strategy = 'tensor'"),
        ({"activations": {}, "weights": {"strategy": "tensor"}}, "weights.strategy = 'tensor'"),
        ({"activations": {}, "weights": {"symmetric": False}}, "weights.symmetric = False"),
        ({"activations": None, "weights": {"num_bits": 4}}, "weights.num_bits = 4 is not allowed"),
    ],
    ids=str,
)
def test_other_schemes_are_refused_in_one_line(write_folder, tmp_path, scheme, message):
    folder = write_folder(tmp_path / "model", "int", **scheme)
    with pytest.raises(ValueError, match="8-bit weights by channel, and 8-bit activations by token") as error:
        load_model(str(folder))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_do_not_fit_are_refused(w8a8, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((w8a8 / "config.json").read_bytes())
    stored = load_file(w8a8 / "model.safetensors")
    norm, layer = "model.norm.weight", "model.layers.0.mlp.up_proj"
    for change, message in (
        ({norm: None}, f"its tensors do not fit its config.json: {norm}"),
        ({"stray": torch.ones(2)}, "its tensors do not fit its config.json: stray"),
        ({f"{layer}.weight": torch.ones(160, 64)}, f"layer '{layer}' is stored in torch.float32"),
        ({f"{layer}.weight_scale": torch.ones(1)}, f"layer '{layer}' has 1 scales for 160 channels"),
        ({f"{layer}.weight_zero_point": torch.ones(160, 1)}, f"layer '{layer}' is stored with zero points"),
    ):
        tensors = {name: tensor for name, tensor in {**stored, **change}.items() if tensor is not None}
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(ValueError, match=message):
            load_quantized(folder)


def test_a_weight_that_is_read_past_its_layer_is_refused(w8a8, monkeypatch):
    """As Mamba's mixers do; the small Llama is taken for such a model."""
    from amber_ext.layers import sites

    monkeypatch.setattr(sites, "READ_PAST_LAYER", {"LlamaMLP": ("up_proj",)})
    with pytest.raises(
        ValueError, match="mlp.up_proj' is 8-bit, but the model's code reads its weight past the layer"
    ):
        load_quantized(w8a8)


def test_what_other_libraries_quantised(write_folder, tmp_path, tiny_model_folder):
    """4-bit weights, as GPTQ and AWQ make them: pruned where transformers dequantises them, else refused."""
    folder = write_folder(tmp_path / "int4", "int", weights={"num_bits": 4}, activations=None)
    how = CompressedTensorsConfig(dequantize=True)
    with pytest.warns(UserWarning):
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=how)
    dense = logits(model)
    assert sparsify_(model, AmberConfig()).coverage > 0.5 and not torch.equal(logits(model), dense)
    densify_(model)
    assert torch.equal(logits(model), dense)

    for method in ("gptq", "awq"):
        other = tmp_path / method
        other.mkdir()
        fields = json.loads((tiny_model_folder / "config.json").read_text())
        fields["quantization_config"] = {"quant_method": method, "bits": 4}
        (other / "config.json").write_text(json.dumps(fields))
        with pytest.raises(
            ValueError, match=f"is quantised by '{method}'; it must be a model that is not"
        ) as error:
            load_model(str(other))
        assert "\n" not in str(error.value)


def test_on_an_error_the_model_is_as_it_was(w8a8):
    model = load_quantized(w8a8)
    model.model.layers[3].mlp.down_proj.weight_scale[5] = torch.nan
    modules = dict(model.named_modules())
    for config, message in (
        (AmberConfig(targets=("x_proj",)), "targets: 'x_proj' is not in this model"),
        (AmberConfig(), "layer 'model.layers.3.mlp.down_proj': weight: it contains NaN or Inf"),
    ):
        with pytest.raises(ValueError, match=message):
            prune_quantized_(model, config)
        now = dict(model.named_modules())
        assert now.keys() == modules.keys() and all(now[name] is modules[name] for name in modules)
        assert all(str(layer.pattern) == "1:1" for layer in quantized_layers(model).values())


def test_what_is_no_quantised_model_is_refused(pruned):
    with pytest.raises(
        ValueError, match="LlamaForCausalLM has no 8-bit layers of amber_ext; sparsify_ prunes"
    ):
        prune_quantized_(pruned, AmberConfig())
