"""Choose patterns layer by layer for a wanted prefill cost, and see what they do to perplexity.

python examples/plan.py
"""

from amber_ext import plan_for_cost, sparsify_
from amber_ext.evaluation.text import builtin_text, tokenize
from amber_ext.models import load_model
from amber_ext.perplexity import perplexity

loaded = load_model("smollm2")
ids = tokenize(loaded.tokenizer, builtin_text(), 2048)
calibration, scored = [part[None] for part in ids[:1024].split(512)], ids[1024:]

dense = perplexity(loaded.model, scored)
found = plan_for_cost(loaded.model, calibration, cost=0.8)
print(sparsify_(loaded.model, found.config))
print(f"cost {found.cost:.3f} of dense; perplexity {dense:.2f} -> {perplexity(loaded.model, scored):.2f}")
