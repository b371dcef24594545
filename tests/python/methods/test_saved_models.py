"""What `save_quantized` takes and keeps: classes, generation settings; what it refuses, the old folder left as it was."""

import shutil

import pytest
import torch
from helpers import SAVED_BY_0_1_0, tiny_llama_config

from amber_ext import OutstandingSparseConfig, load_quantized, quantize_, save_quantized
from amber_ext.models import load_model

W8A8 = OutstandingSparseConfig(direction="none", targets=())


def quantized_llama():
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama_config(num_hidden_layers=1)).eval()
    quantize_(model, W8A8)
    return model


@pytest.mark.parametrize("old", [False, True], ids=["now", "0.1.0"])
def test_the_generation_config_is_kept(old, tmp_path):
    if old:
        shutil.copytree(SAVED_BY_0_1_0 / "save_quantized", tmp_path / "model")
        model = load_quantized(tmp_path / "model")
    else:
        model = quantized_llama()
    model.generation_config.eos_token_id = [2, 7, 9]
    model.generation_config.max_new_tokens = 5
    if old:
        model.generation_config.save_pretrained(tmp_path / "model")
    else:
        save_quantized(model, tmp_path / "model")
    loaded = load_quantized(tmp_path / "model")
    assert loaded.generation_config.to_dict() == model.generation_config.to_dict()
    assert loaded.generation_config.eos_token_id == [2, 7, 9]


SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
BART = {
    "vocab_size": 97, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
}  # fmt: skip
T5 = {"vocab_size": 97, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}


@pytest.mark.parametrize(
    "name, config, fields",
    [
        ("T5ForConditionalGeneration", "T5Config", T5),
        ("BartForConditionalGeneration", "BartConfig", BART),
        (
            "LlamaForSequenceClassification",
            "LlamaConfig",
            {**SIZES, "intermediate_size": 64, "pad_token_id": 0},
        ),
        ("LlamaModel", "LlamaConfig", {**SIZES, "intermediate_size": 64}),
        ("BertForMaskedLM", "BertConfig", {**SIZES, "intermediate_size": 64}),
    ],
)
def test_other_classes_come_back_as_themselves(name, config, fields, tmp_path):
    """`AutoModelForCausalLM` makes another class of these configurations, or none."""
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**fields)).eval()
    quantize_(model, W8A8)
    save_quantized(model, tmp_path)
    loaded = load_quantized(tmp_path)
    assert type(loaded) is type(model)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(ValueError, match=f"is a {name}, which is no causal language model"):
        load_model(str(tmp_path))


def several_dtypes(model):
    model.model.norm.to(torch.float64)


def another_head(model):
    model.lm_head = torch.nn.Linear(64, 97)


def more_tokens(model):
    model.model.embed_tokens = torch.nn.Embedding(98, 64)


def own_class(model):
    model.__class__ = type("MyLlama", (type(model),), {})


def bad_generation_config(model):
    model.generation_config.temperature = 0.5


def with_adapters(model):
    model._hf_peft_config_loaded = True  # as transformers' add_adapter does


@pytest.mark.parametrize(
    "change, message",
    [
        (several_dtypes, "'model.norm.weight' has dtype torch.float64; in a .* it has torch.float32"),
        (
            another_head,
            "it could not be loaded again: 'lm_head.bias' is not in a LlamaForCausalLM of its config",
        ),
        (more_tokens, r"'model.embed_tokens.weight' has shape \(98, 64\); in a .* it has \(97, 64\)"),
        (own_class, "MyLlama is not allowed; it must be a class of transformers"),
        (with_adapters, "it has adapters, of which alone"),
        (bad_generation_config, "transformers does not save it: GenerationConfig is invalid"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_could_not_be_loaded_again_is_not_saved(change, message, tmp_path):
    model = quantized_llama()
    save_quantized(model, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    change(model)
    with pytest.raises(ValueError, match=f"model: .*{message}") as error:
        save_quantized(model, tmp_path / "model")
    assert len(str(error.value).splitlines()) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_only_quantised_models_are_saved(tiny_llama, tmp_path):
    with pytest.raises(ValueError, match="model: it has no quantised layers; call quantize_ first"):
        save_quantized(tiny_llama, tmp_path)
