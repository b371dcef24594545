"""Fixtures: small random models, the real SmolLM2, and the evaluation text."""

import copy
import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("AMBER_DATA", REPOSITORY.parent / "shared" / "data"))


def tiny_llama_config(**fields):
    from transformers import LlamaConfig

    return LlamaConfig(
        **{
            "vocab_size": 97,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            **fields,
        }
    )


@pytest.fixture
def tiny_llama():
    """A random Llama of 4 layers in fp32, eval mode."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_llama_config()).eval()


@pytest.fixture
def tiny_qwen3_moe():
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=256,
    )
    return Qwen3MoeForCausalLM(config).eval()


@pytest.fixture(scope="session")
def _smollm2():
    from amber_ext.models import load_model

    return load_model("smollm2")


@pytest.fixture
def smollm2(_smollm2):
    """SmolLM2-135M-Instruct in bf16, dense; shared, so it is taken back to dense afterwards."""
    from amber_ext import densify_

    yield _smollm2
    densify_(_smollm2.model)


@pytest.fixture(scope="session")
def wikitext_path():
    path = DATA / "wikitext2_raw" / "wiki.test.raw"
    if not path.is_file():
        pytest.skip(f"no WikiText-2 test text: {path} (set AMBER_DATA to a folder that has wikitext2_raw/)")
    return path


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """A folder with a random Llama and a word tokenizer, as from_pretrained takes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_model")
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{chr(97 + i): i + 3 for i in range(26)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_llama_config()).save_pretrained(folder)
    return folder


@pytest.fixture
def snapshot():
    """Tells whether a model is what it was: same module objects, same parameters."""

    def take(model):
        modules = dict(model.named_modules())
        weights = copy.deepcopy(model.state_dict())
        hooks = {n: (len(m._forward_pre_hooks), len(m._forward_hooks)) for n, m in modules.items()}

        def unchanged():
            now = dict(model.named_modules())
            assert now.keys() == modules.keys()
            assert all(now[name] is modules[name] for name in modules)
            assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
            assert {n: (len(m._forward_pre_hooks), len(m._forward_hooks)) for n, m in now.items()} == hooks

        return unchanged

    return take
