"""Prefill or decode: pruned layers run sparse in prefill and dense in decode. This package alone decides which it is.

Prefill is every token of a prompt; decode is every token that was sampled. A sequence length does not tell them apart
(prompt lookup decodes several tokens at once, continuous batching packs several requests into one row), so the phase
is set from outside the layers. The first of these that knows it decides:

1. `prefill()` and `decode()`: for the calling thread or asyncio task, until they end (`context`).
2. ``generate()`` of a model with hooks: prefill until the first token is sampled, in however many chunks and behind
   whatever cache; decode from then on (`generation`). Without a cache, and where the first candidates of prompt lookup
   or assisted decoding are verified together with the prompt, one call has rows of both kinds, and each row runs as
   what it is (`rows`).
3. The hooks of a model, for a call of it alone (`hooks`): prefill when the cache is empty or there is none; decode when
   the cache holds tokens and one token comes; several tokens behind a cache that holds some are what ``cached_prompts``
   says (`AmberConfig`): the rest of a prompt, which is the default, or sampled tokens. In continuous batching the rows
   of each request are told apart.
4. A layer that is called by itself, outside such a model, runs in prefill.
"""

from amber_ext.phase.context import DECODE, MIXED, PREFILL, current_phase, decode, prefill
from amber_ext.phase.decisions import CACHED_PROMPTS
from amber_ext.phase.hooks import install_phase_hooks, remove_phase_hooks
from amber_ext.phase.rows import Rows, by_phase, rows_of_requests, run_rows

__all__ = [
    "CACHED_PROMPTS",
    "DECODE",
    "MIXED",
    "PREFILL",
    "Rows",
    "by_phase",
    "current_phase",
    "decode",
    "install_phase_hooks",
    "prefill",
    "remove_phase_hooks",
    "rows_of_requests",
    "run_rows",
]
