"""Fixtures: small random models, the real SmolLM2, and the evaluation text."""

import copy
import json
import random
import sys
from dataclasses import dataclass

import pytest
import torch
from helpers import DATA, RTE, tiny_llama_config, write_data
from helpers_tuning import fake_gpu_switch


@pytest.fixture
def tiny_llama():
    """A random Llama of 4 layers in fp32, eval mode."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_llama_config()).eval()


@pytest.fixture
def pruned(tiny_llama):
    """The same, pruned to 2:4."""
    from amber_ext import AmberConfig, sparsify_

    sparsify_(tiny_llama, AmberConfig())
    return tiny_llama


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


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the tool in this process: starting one for each command takes seconds."""

    from amber_ext.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["amber-ext", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        output = capsys.readouterr()
        return Result(exit.value.code or 0, output.out, output.err)

    return run


@pytest.fixture
def data(tmp_path):
    """Letters instead of words: what the small model's tokenizer knows."""
    rng = random.Random(0)

    def words(count):
        return " ".join(rng.choice("abcdefgh") for _ in range(count))

    folder = tmp_path / "data"
    for name in ("rte", "piqa"):
        write_data(folder, name, RTE)
    (folder / "rte" / "validation.jsonl").write_text(
        "".join(
            json.dumps({"sentence1": words(9), "sentence2": words(5), "label": i % 2}) + "\n"
            for i in range(12)
        )
    )
    (folder / "piqa" / "validation.jsonl").write_text(
        "".join(
            json.dumps({"goal": words(6), "sol1": words(4), "sol2": words(4), "label": i % 2}) + "\n"
            for i in range(12)
        )
    )
    (folder / "text.txt").write_text(words(300))
    return folder


@pytest.fixture
def calls(monkeypatch):
    """The phase and tokens of every call of a pruned layer, by which path it took."""
    from amber_ext.layers import pruned_linear

    log = []
    sparse, dense = pruned_linear.functional.linear, pruned_linear.F.linear

    def sparse_path(x, *args, **kwargs):
        log.append(("sparse", x.shape[-2]))
        return sparse(x, *args, **kwargs)

    class Functional:
        @staticmethod
        def linear(x, *args):
            log.append(("dense", x.shape[-2]))
            return dense(x, *args)

    monkeypatch.setattr(pruned_linear.functional, "linear", sparse_path)
    monkeypatch.setattr(pruned_linear, "F", Functional)
    return log


fake_gpu = pytest.fixture(fake_gpu_switch)


@pytest.fixture(autouse=True)
def fresh_plans():
    """Plans are made once in a process; tests that change what they depend on leave none behind."""
    from amber_ext.ops.choice.products import forget_plans

    forget_plans()
    yield
    forget_plans()
