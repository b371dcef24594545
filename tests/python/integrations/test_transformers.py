"""transformers: load with a configuration, save, load again; without amber_ext; LoRA; every way to generate."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import LAYERS, PROMPT, steps, tiny_llama_config

from amber_ext import AmberConfig, OutstandingSparseConfig, quantize_, sparsify_
from amber_ext.integrations.transformers import AmberQuantConfig, attach_config
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear

IDS = torch.randint(3, 97, (2, 17), generator=torch.Generator().manual_seed(0))
PRUNED = AmberConfig(
    pattern="8:16", rescale="variance", layer_patterns={"q_proj": {"2:4": (1,)}}, skip_layers={"q_proj": (0,)}
)
QUANTIZED = OutstandingSparseConfig(pattern="8:16", unquantized={"o_proj": "all", "down_proj": (2,)})


@pytest.fixture
def folder(tmp_path):
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(tiny_llama_config()).save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


def load(path, config=None, **options):
    from transformers import AutoModelForCausalLM

    if config is not None:
        options["quantization_config"] = AmberQuantConfig(
            config, [IDS] if isinstance(config, OutstandingSparseConfig) else None
        )
    return AutoModelForCausalLM.from_pretrained(path, **options)


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"device_map": {"": "cpu"}}, {"device_map": "auto"}], ids=str)
def test_a_pruned_model_is_what_sparsify_makes(folder, tmp_path, dtype, options):
    model = load(folder, PRUNED, dtype=dtype, **options)
    by_hand = load(folder, dtype=dtype)
    report = sparsify_(by_hand, PRUNED)
    assert torch.equal(logits(model), logits(by_hand))
    assert model.hf_quantizer.report == report
    for (name, layer), other in zip(model.named_modules(), by_hand.modules(), strict=True):
        assert type(layer) is type(other), name
        if isinstance(layer, AmberLinear):
            assert torch.equal(layer.channel_scale, other.channel_scale)

    model.save_pretrained(tmp_path / "pruned")
    again = load(tmp_path / "pruned", dtype=dtype, **options)
    assert torch.equal(logits(again), logits(model))
    assert again.config.quantization_config.config == PRUNED
    saved, plain = again.state_dict(), by_hand.state_dict()
    assert saved.keys() == plain.keys()  # a plain checkpoint: nothing of ours is in it
    assert all(torch.equal(saved[name], plain[name]) for name in plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantized_model_is_what_quantize_makes(folder, tmp_path, dtype):
    model = load(folder, QUANTIZED, dtype=dtype)
    by_hand = load(folder, dtype=dtype)
    report = quantize_(by_hand, QUANTIZED, [IDS])
    assert torch.equal(logits(model), logits(by_hand))
    assert model.hf_quantizer.report == report

    model.save_pretrained(tmp_path / "quantized")
    again = load(tmp_path / "quantized", dtype=dtype)
    assert torch.equal(logits(again), logits(model))
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name
    again.save_pretrained(tmp_path / "twice")
    assert torch.equal(logits(load(tmp_path / "twice", dtype=dtype)), logits(model))
    with torch.inference_mode():
        first, second = (m.generate(PROMPT, max_new_tokens=6, do_sample=False) for m in (model, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize("config", [PRUNED, QUANTIZED], ids=["pruned", "quantized"])
def test_in_a_fresh_process(folder, tmp_path, config):
    model = load(folder, config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "saved")
    torch.save({"ids": IDS, "logits": logits(model)}, tmp_path / "expected.pt")
    script = (
        "import torch\n{}from transformers import AutoModelForCausalLM\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'saved')!r}, dtype=torch.float32)\n"
        f"expected = torch.load({str(tmp_path / 'expected.pt')!r})\n"
        "with torch.inference_mode():\n"
        "    assert torch.equal(model(expected['ids']).logits, expected['logits'])\n"
    )

    def run(imports):
        command = [sys.executable, "-c", script.format(imports)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    result = run("import amber_ext\n")
    assert result.returncode == 0, result.stderr
    without = run("")
    # transformers names the missing package; 8-bit weights it refuses, a pruned checkpoint is a dense model.
    assert "Unknown quantization type, got amber_ext" in without.stderr
    assert without.returncode != 0
    expected = "AssertionError" if config is PRUNED else "RuntimeError: You set `ignore_mismatched_sizes`"
    assert expected in without.stderr


def test_a_saved_file_that_was_tampered_with(folder, tmp_path):
    load(folder, QUANTIZED).save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    original = json.loads(path.read_text())

    def rewritten(**changes):
        path.write_text(
            json.dumps({**original, "quantization_config": original["quantization_config"] | changes})
        )

    rewritten(layers={})
    with pytest.raises(ValueError, match="quantization_config: it has no 'layers'"):
        load(tmp_path / "saved")
    layers = original["quantization_config"]["layers"]
    rewritten(layers={**layers, "model.layers.9.mlp.up_proj": {"kind": "pruned"}})
    with pytest.raises(ValueError, match="its 'layers' do not fit this model"):
        load(tmp_path / "saved")
    rewritten(layers={name: {"kind": "quantized"} for name in layers})
    with pytest.raises(ValueError, match="its 'layers' do not fit this model"):
        load(tmp_path / "saved")
    rewritten(kind="other")
    with pytest.raises(TypeError, match="config: dict is not allowed"):
        load(tmp_path / "saved")
    rewritten(config=original["quantization_config"]["config"] | {"pattern": "9:8"})
    with pytest.raises(ValueError, match="pattern: '9:8' is not allowed"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("tensor", ["weight", "weight_scale", "channel_scale"])
@pytest.mark.parametrize("how", ["missing", "changed"])
def test_incomplete_and_changed_weights(folder, tmp_path, tensor, how):
    """transformers itself leaves missing tensors uninitialised."""
    from safetensors.torch import load_file, save_file

    load(folder, QUANTIZED).save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "model.safetensors"
    weights = load_file(path)
    name = f"model.layers.1.mlp.gate_proj.{tensor}"
    if how == "missing":
        del weights[name]
    else:
        weights[name].view(-1)[3] += 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="layer 'model.layers.1.mlp.gate_proj': its tensors are not those"):
        load(tmp_path / "saved")


def test_refuses():
    with pytest.raises(TypeError, match="config: NoneType is not allowed; it must be an AmberConfig"):
        AmberQuantConfig()
    with pytest.raises(ValueError, match="quant_method: 'gptq' is not allowed"):
        AmberQuantConfig(PRUNED, quant_method="gptq")


def test_errors_name_the_layer(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="layer 'model.layers.2.mlp.down_proj': weight: it contains NaN"):
        load(folder, PRUNED)
    with pytest.raises(ValueError, match="batches: None is not allowed; direction 'smoothquant' needs"):
        from transformers import AutoModelForCausalLM

        AutoModelForCausalLM.from_pretrained(folder, quantization_config=AmberQuantConfig(QUANTIZED))


@pytest.mark.parametrize("config", [AmberConfig(pattern="8:16"), QUANTIZED], ids=["pruned", "quantized"])
def test_gguf(tmp_path, config):
    """transformers refuses a quantization_config beside a GGUF file: those models are pruned once they are loaded."""
    from transformers import AutoModelForCausalLM

    from amber_ext.models import _builtin_path, load_model

    path = _builtin_path()
    with pytest.raises(ValueError, match="combine Quantization and loading a model from a GGUF"):
        AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, quantization_config=AmberQuantConfig(PRUNED)
        )
    model = load_model(str(path), torch.float32).model
    ids = torch.arange(100, 140)[None]
    if config is QUANTIZED:
        quantize_(model, config, [ids])
    else:
        sparsify_(model, config)
    attach_config(model, config)
    model.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved", dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.config.quantization_config.config == config


def test_a_configuration_is_attached_only_where_it_fits(tiny_llama):
    with pytest.raises(
        ValueError, match="model: it has only dense layers; this configuration needs pruned ones"
    ):
        attach_config(tiny_llama, PRUNED)
    sparsify_(tiny_llama, PRUNED)
    with pytest.raises(
        ValueError, match="model: it has pruned layers; this configuration needs quantized ones"
    ):
        attach_config(tiny_llama, QUANTIZED)
    quantize_(tiny_llama, QUANTIZED, [IDS])
    with pytest.raises(
        ValueError, match="it has pruned and quantized layers; this configuration needs pruned"
    ):
        attach_config(tiny_llama, PRUNED)


# ---- LoRA


def lora(model):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "gate_proj", "down_proj"], init_lora_weights=False)
    return get_peft_model(model, config).eval()


def test_lora_on_pruned_layers(folder):
    pytest.importorskip("peft", reason="peft is not installed (pip install peft)")
    everything = AmberConfig(pattern="16:16")
    dense = lora(load(folder))
    kept = lora(load(folder, everything))
    assert isinstance(kept.base_model.model.model.layers[0].mlp.gate_proj.base_layer, AmberLinear)
    assert torch.allclose(logits(kept), logits(dense), atol=1e-6)  # nothing pruned: the dense LoRA model

    pruned = lora(load(folder, PRUNED))
    layer = pruned.base_model.model.model.layers[1].mlp.gate_proj
    x = torch.randn(5, 64)
    with torch.inference_mode():
        # The adapter sees the whole token, the frozen layer the pruned one.
        update = layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
        assert torch.equal(layer(x), layer.base_layer(x) + update)
    error = (logits(pruned) - logits(dense)).norm() / logits(dense).norm()
    assert 0.01 < error < 0.3
    with torch.inference_mode(), pruned.disable_adapter():
        assert torch.equal(pruned(IDS).logits, logits(load(folder, PRUNED)))


def test_phases_under_lora(folder, calls):
    """peft calls the language model's forward past its hooks."""
    pytest.importorskip("peft", reason="peft is not installed (pip install peft)")
    model = lora(load(folder, AmberConfig()))

    def of_base_layers():
        found = [call for call in calls if call[0] in ("sparse", "dense")]
        calls.clear()
        return steps(found)

    with torch.inference_mode():
        cache = model(PROMPT, use_cache=True).past_key_values
        assert of_base_layers() == [("sparse", 10)]
        model(PROMPT[:, :2], past_key_values=cache)
        assert of_base_layers() == [("dense", 2)]
        model.generate(input_ids=PROMPT, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        assert of_base_layers() == [("sparse", 10), ("dense", 1), ("dense", 1)]
        assert LAYERS == 12


# ---- the ways to generate that test_phase.py does not have


@pytest.fixture
def pruned(tiny_llama):
    sparsify_(tiny_llama, AmberConfig())
    return tiny_llama


def test_sampling(pruned, calls):
    pruned.generate(PROMPT, max_new_tokens=4, min_new_tokens=4, do_sample=True, top_k=5)
    assert steps(calls) == [("sparse", 10)] + [("dense", 1)] * 3


def test_assisted_generation(pruned, tiny_llama_pair, calls):
    output = pruned.generate(PROMPT, max_new_tokens=6, do_sample=False, assistant_model=tiny_llama_pair)
    seen = steps(calls)
    assert seen[0][0] == "sparse" and seen[0][1] >= 10  # the prompt, with the assistant's first candidates
    assert len(seen) > 1 and all(kind == "dense" for kind, _ in seen[1:])
    assert output.shape == (1, 16)


@pytest.fixture
def tiny_llama_pair():
    """A dense assistant of the same vocabulary."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(5)
    return LlamaForCausalLM(tiny_llama_config(num_hidden_layers=1)).eval()


def test_chunked_prefill_of_generate(pruned, calls):
    pruned.generate(
        PROMPT, max_new_tokens=2, min_new_tokens=2, do_sample=False, prefill_chunk_size=4,
        cache_implementation="static", disable_compile=True,
    )  # fmt: skip
    seen = steps(calls)
    assert seen[0][0] == "sparse" and all(kind == "dense" for kind, _ in seen[1:])


def test_the_layer_kinds_of_a_saved_model(folder):
    model = load(folder, QUANTIZED)
    kinds = {name: type(m) for name, m in model.named_modules()}
    assert kinds["model.layers.0.self_attn.o_proj"] is torch.nn.Linear
    assert kinds["model.layers.2.mlp.down_proj"] is AmberLinear
    assert kinds["model.layers.1.mlp.down_proj"] is QuantizedLinear


@pytest.mark.parametrize(
    "installed, problem",
    [("5.16.3", "transformers 5.16.3 is not supported; allowed: 5.17 or newer, below 6.0"),
     ("6.0.1", "transformers 6.0.1 is not supported"), ("5.17.0", None), ("5.99.0.dev0", None)],
)  # fmt: skip
def test_unsupported_versions_are_named(monkeypatch, installed, problem):
    from amber_ext.integrations import versions
    from amber_ext.models import load_model

    monkeypatch.setattr(versions, "version", lambda name: installed)
    if problem is None:
        assert versions.transformers_problem() is None
        return
    with pytest.raises(ValueError, match=f"model: 'smollm2' cannot be loaded: {problem}"):
        load_model("smollm2")
    script = (
        "import importlib.metadata as m; v = m.version\n"
        f"m.version = lambda n: {installed!r} if n == 'transformers' else v(n)\n"
        "import amber_ext\n"  # works: only the integration is not there
        "import amber_ext.integrations.transformers\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"ImportError: amber_ext: {problem}" in result.stderr
