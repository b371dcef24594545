"""Quantise to int8 with pruned prefill (Outstanding-sparse), save, load, and compare.

python examples/quantize_save_reload.py OUT_FOLDER
"""

import sys

import torch

from amber_ext import OutstandingSparseConfig, load_quantized, quantize_, save_quantized
from amber_ext.evaluation.text import builtin_text, greedy_answer, tokenize
from amber_ext.models import load_model

loaded = load_model("smollm2")
ids = tokenize(loaded.tokenizer, builtin_text(), 2048)
report = quantize_(loaded.model, OutstandingSparseConfig(pattern="8:16"), [ids[None]])
print(report)

save_quantized(loaded.model, sys.argv[1], loaded.tokenizer)
again = load_quantized(sys.argv[1])
with torch.inference_mode():
    same = torch.equal(again(ids[None, :64]).logits, loaded.model(ids[None, :64]).logits)
print("the same logits after saving and loading:", same)
print(greedy_answer(again, loaded.tokenizer, "What is the capital of France?", 16))
