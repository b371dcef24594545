"""Prune a model while it loads, generate, save, and load it again.

python examples/prune_and_generate.py MODEL_FOLDER OUT_FOLDER
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from amber_ext import AmberConfig, AmberQuantConfig

folder, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
config = AmberQuantConfig(AmberConfig(pattern="8:16", score="robust_norm"))
model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
print(model.hf_quantizer.report)

prompt = tokenizer("The capital of France is", return_tensors="pt")
tokens = model.generate(input_ids=prompt.input_ids, max_new_tokens=8, do_sample=False)
print(tokenizer.decode(tokens[0]))

model.save_pretrained(out)
again = AutoModelForCausalLM.from_pretrained(out)  # its config.json says how it is pruned
with torch.inference_mode():
    same = torch.equal(again(prompt.input_ids).logits, model(prompt.input_ids).logits)
print("the same logits after saving and loading:", same)
