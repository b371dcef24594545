"""One process of a tensor-parallel group, started by test_tensor_parallel.py; writes what it computed."""

import os
import sys

import torch
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from amber_ext import AmberConfig, OutstandingSparseConfig
from amber_ext.integrations.transformers import AmberQuantConfig


def main(folder: str, out: str, kind: str, pattern: str, rescale: str) -> None:
    config = AmberConfig(pattern=pattern, rescale=rescale)
    ids = torch.arange(3, 43).view(2, 20)
    if kind == "quantized":
        quantization = AmberQuantConfig(OutstandingSparseConfig(pattern=pattern), [ids])
    else:
        quantization = AmberQuantConfig(config)
    options = {}
    if "RANK" in os.environ:
        options["distributed_config"] = DistributedConfig(
            tp_size=int(os.environ["WORLD_SIZE"]), tp_plan="auto"
        )
    with torch.inference_mode(False), torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=quantization, dtype=torch.float32, **options
        )
        scales = {
            name: (type(module).__name__, module.channel_scale)
            for name, module in model.named_modules()
            if hasattr(module, "channel_scale")
        }
        logits = model(ids).logits
        tokens = model.generate(ids[:1], max_new_tokens=6, do_sample=False)
    torch.save({"logits": logits, "tokens": tokens, "scales": scales}, f"{out}.{os.environ.get('RANK', '0')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
