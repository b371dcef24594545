import pytest
import torch
from helpers import tiny_llama_config


@pytest.fixture
def folder(tmp_path):
    """A dense model's folder."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(tiny_llama_config()).save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"
