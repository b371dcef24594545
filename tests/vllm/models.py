"""Small models of random weights, pruned and saved by transformers, and loaded again to compare with."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from amber_ext import AmberConfig
from amber_ext.integrations.transformers import AmberQuantConfig

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
CLASSES = {"llama": (LlamaConfig, LlamaForCausalLM), "phi3": (Phi3Config, Phi3ForCausalLM)}


def save_dense(folder, kind="llama", **sizes):
    """A dense model's folder."""
    torch.manual_seed(0)
    config, model = CLASSES[kind]
    model(config(**{**SIZES, **sizes})).save_pretrained(folder)
    return folder


def save_pruned(dense, folder, config):
    """A folder that `AmberQuantConfig` pruned."""
    load(dense, config).save_pretrained(folder)
    return folder


def load(folder, config: AmberConfig | None = None):
    """As transformers runs it, in fp32; ``config`` prunes a dense folder."""
    options = {} if config is None else {"quantization_config": AmberQuantConfig(config)}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
