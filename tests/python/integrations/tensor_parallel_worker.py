"""One process of a tensor-parallel group, started by test_tensor_parallel.py; writes what it computed for each case."""

import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from amber_ext import AmberConfig, OutstandingSparseConfig
from amber_ext.integrations.transformers import AmberQuantConfig

IDS = torch.arange(3, 43).view(2, 20)


def computed(folder: str, kind: str, pattern: str, rescale: str) -> dict[str, object]:
    if kind == "quantized":
        quantization = AmberQuantConfig(OutstandingSparseConfig(pattern=pattern), [IDS])
    else:
        quantization = AmberQuantConfig(AmberConfig(pattern=pattern, rescale=rescale))
    options = {}
    if "RANK" in os.environ:
        options["distributed_config"] = DistributedConfig(
            tp_size=int(os.environ["WORLD_SIZE"]), tp_plan="auto"
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantization, dtype=torch.float32, **options
    )
    scales = {
        name: (type(module).__name__, module.channel_scale)
        for name, module in model.named_modules()
        if hasattr(module, "channel_scale")
    }
    logits = model(IDS).logits
    found = model.generate(
        IDS[:1], max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    return {
        "logits": logits,
        "tokens": found.sequences,
        "steps": torch.stack(found.logits),
        "scales": scales,
    }


def main(folder: str, out: str, cases: str) -> None:
    results = {}
    with torch.inference_mode(False), torch.no_grad():
        for name, case in json.loads(cases).items():
            try:
                results[name] = computed(folder, **case)
            except ValueError as error:
                results[name] = str(error)
    torch.save(results, f"{out}.{os.environ.get('RANK', '0')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
