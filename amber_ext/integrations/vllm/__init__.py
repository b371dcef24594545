"""vLLM: serves pruned and 8-bit models, every prompt token sparse and every sampled one dense.

vLLM loads this through the entry point ``vllm.general_plugins``, in each of its processes. What happens then:

- `config` reads the folder's ``quantization_config``, refuses what cannot be served, and gives each linear layer a method.
- `parts`: vLLM merges q, k, v and gate, up into one weight; each part keeps its own pattern and scores. Under tensor
  parallelism the scores are those of the whole weight.
- `pruned`, `quantized`, `compressed_tensors`: the methods, for weights of 16 or 32 bits and of 8 bits.
- `runners` tells `step`, once per step, which rows of the batch are prompt; `op` hides that from torch.compile.
"""

from __future__ import annotations

from vllm.model_executor.layers.quantization import register_quantization_config

from amber_ext.integrations.vllm.config import AmberVllmConfig, check_engines
from amber_ext.methods.checkpoint import QUANT_METHOD


def register() -> None:
    """The entry point: tells vLLM; again changes nothing."""
    register_quantization_config(QUANT_METHOD)(AmberVllmConfig)
    check_engines()
