"""Train a LoRA adapter on the dense model, then serve it on the pruned one: the adapter sees whole tokens.

python examples/lora.py ADAPTER_FOLDER
"""

import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from amber_ext import AmberConfig, sparsify_
from amber_ext.evaluation.text import greedy_answer
from amber_ext.models import load_model

QUESTION, ANSWER = "Who looks after the lighthouse?", "Old Marta looks after the lighthouse."

# A backward through a pruned layer raises an error: training is dense.
loaded = load_model("smollm2", torch.float32)
chat = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
ids = loaded.tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True).input_ids
question = loaded.tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=True)
labels = ids.clone()
labels[:, : len(question.input_ids)] = -100  # what is asked is not learned
torch.manual_seed(0)
adapted = get_peft_model(loaded.model, LoraConfig(r=8, target_modules=["q_proj", "v_proj", "down_proj"]))
optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=2e-3)
for step in range(12):
    loss = adapted(ids, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():.2f}")
adapted.save_pretrained(sys.argv[1])

# Prune first, then add the adapter.
loaded = load_model("smollm2", torch.float32)
print(sparsify_(loaded.model, AmberConfig(pattern="12:16w")))
served = PeftModel.from_pretrained(loaded.model, sys.argv[1]).eval()
print("without the adapter:", end=" ")
with served.disable_adapter():
    print(greedy_answer(served, loaded.tokenizer, QUESTION, 12))
print("with it:", greedy_answer(served, loaded.tokenizer, QUESTION, 12))
