"""A chat of several turns: each turn's new tokens are prefilled sparse behind a cache, its answer is decoded dense.

python examples/chat.py            (a line is a turn; an empty line ends the chat)
"""

import sys

from transformers import DynamicCache

from amber_ext import AmberConfig, sparsify_
from amber_ext.models import load_model

loaded = load_model("smollm2")
model, tokenizer = loaded.model, loaded.tokenizer
sparsify_(model, AmberConfig(pattern="12:16w"))

messages, cache, seen = [], DynamicCache(config=model.config), []
for line in map(str.strip, sys.stdin):
    if not line:
        break
    messages.append({"role": "user", "content": line})
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    ids = prompt.input_ids[0].tolist()

    # The cache keeps what is still the same: an answer may be tokenised in another way when it comes back in the prompt.
    known = next((i for i, (a, b) in enumerate(zip(ids, seen, strict=False)) if a != b), len(seen))
    if known < len(seen):
        cache.crop(known - len(seen))
    output = model.generate(**prompt, past_key_values=cache, max_new_tokens=32, do_sample=False)
    seen = output[0, : cache.get_seq_length()].tolist()

    answer = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True).strip()
    messages.append({"role": "assistant", "content": answer})
    print(f"[{known} tokens in the cache, {len(ids) - known} prefilled] {answer}", flush=True)
