"""What several test files share that is no fixture."""

import json
import os
from pathlib import Path

import torch

import amber_ext
from amber_ext import AmberConfig, OutstandingSparseConfig

REPOSITORY = Path(__file__).resolve().parents[2]
SAVED_BY_0_1_0 = REPOSITORY / "tests" / "data" / "saved_by_0.1.0"
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


RTE = {"sentence1": "It rains in Bonn.", "sentence2": "Bonn is wet.", "label": 1}


def write_data(folder, name, document):
    """The files of one task, each of the same few documents."""
    import yaml

    # Of the package that is tested, which need not be the one beside these tests.
    definition = Path(amber_ext.__file__).parent / "evaluation" / "task_definitions" / f"{name}.yaml"
    for file in yaml.safe_load(definition.read_text())["data"].values():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(document) + "\n" for _ in range(6)))


# ---- phases of the small Llama

LAYERS = 12  # q, gate and down of 4 decoder layers
PROMPT = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])


def steps(calls):
    """One entry per model call, all its layers must agree: phase and tokens, or ``("mixed", prompt, sampled)``."""
    result, left = [], list(calls)
    while left:
        if left[:LAYERS] == left[:1] * LAYERS:
            result.append(left[0])
            left = left[LAYERS:]
        else:
            assert left[: 2 * LAYERS] == left[:2] * LAYERS, left[: 2 * LAYERS]
            (prompt, prompt_rows), (sampled, sampled_rows) = left[:2]
            assert (prompt, sampled) == ("sparse", "dense")
            result.append(("mixed", prompt_rows, sampled_rows))
            left = left[2 * LAYERS :]
    return result


# ---- tokens that do not hang on rounding

# Far above what fp32 rounding moves a small model's logits (1e-6), far below what usually separates two tokens.
LEAD = 1e-3


def greedy(model, ids, **options):
    """Greedy output of a small fp32 model, whose every choice rounding could not have turned.

    Other ways to compute the same, another product's shape or another processor, must then choose the same tokens.
    """
    found = model.generate(ids, do_sample=False, return_dict_in_generate=True, output_logits=True, **options)
    first, second = torch.stack(found.logits).topk(2).values.unbind(-1)
    assert (first - second).min() > LEAD, "two tokens are as likely; take another seed"
    return found.sequences


# ---- loading through transformers

IDS = torch.randint(3, 97, (2, 17), generator=torch.Generator().manual_seed(0))
PRUNED = AmberConfig(
    pattern="8:16", rescale="variance", layer_patterns={"q_proj": {"2:4": (1,)}}, skip_layers={"q_proj": (0,)}
)
QUANTIZED = OutstandingSparseConfig(pattern="8:16", unquantized={"o_proj": "all", "down_proj": (2,)})


def load(path, config=None, **options):
    from transformers import AutoModelForCausalLM

    from amber_ext.integrations.transformers import AmberQuantConfig

    if config is not None:
        options["quantization_config"] = AmberQuantConfig(
            config, [IDS] if isinstance(config, OutstandingSparseConfig) else None
        )
    return AutoModelForCausalLM.from_pretrained(path, **options)


def logits(model):
    with torch.inference_mode():
        return model(IDS.to(model.device)).logits.cpu()


# ---- results of `amber-ext eval`


def strict_json(text):
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def saved_results(folder):
    return strict_json((folder / "results.json").read_text())
