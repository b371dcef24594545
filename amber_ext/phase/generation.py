"""``generate()``: prefill until the first token is sampled, decode from then on.

transformers asks its stopping criteria after every sampled token, in each of its ways to generate, and takes more of
them from the caller. One more that never stops therefore tells when the prompt is done, with a public interface alone.
A loop of a user's own may not ask them; there the first call of the model is the prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch

from amber_ext.phase.context import DECODE, PREFILL, thread_state
from amber_ext.phase.decisions import is_empty, phase_of_call
from amber_ext.phase.rows import Rows, leading_rows

# What transformers calls the cache: from 5.24 on, before, and before for state space models.
CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params")

# Options of generate() with which drafts are verified, the first in the call of the prompt itself.
_DRAFTING = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")


class Generation:
    """One ``generate()`` that runs.

    Attributes:
        owner: the `hooks.Installation` of the model that generates.
        continues: every token was sampled: by the model that it drafts for, or by the one that it is a part of.
        chunked: the prompt may take several calls.
        given_length: the prompt's length where drafts may be verified together with it, else None.
        called: a call of the model has begun.
        sampled: the first token was sampled.
        prompt_length: tokens of the first call, for a model that runs without a cache.
    """

    def __init__(self, owner: object, continues: bool, chunked: bool, given_length: int | None) -> None:
        self.owner, self.continues, self.chunked, self.given_length = owner, continues, chunked, given_length
        self.called = self.sampled = False
        self.prompt_length = 0

    def phase_of_call(self, cache: object | None, tokens: torch.Tensor | None) -> Rows | str:
        """The phase of the model's next call, with tokens ``[B, T]`` or their embeddings, in this generation."""
        if self.continues:
            return DECODE
        length = 1 if tokens is None else tokens.shape[1]
        if not self.sampled and (self.chunked or not self.called):
            self.called = True
            if cache is None:
                self.prompt_length = length
            if self.given_length is not None and 0 < self.given_length < length:
                return leading_rows(tokens, self.given_length)
            return PREFILL
        if cache is None:
            return leading_rows(tokens, self.prompt_length) if length > self.prompt_length else PREFILL
        # Sampled tokens, unless the cache is empty: Whisper generates segment after segment, each from a new prompt.
        return phase_of_call(cache, length, "dense")

    def on_token(self, input_ids: torch.Tensor, scores: object, **options: object) -> torch.Tensor:
        """A stopping criterion that never stops: input_ids ``[B, T]`` to bool ``[B]``."""
        # Some versions of transformers ask about drafts, before the model has seen the prompt.
        self.sampled = self.called
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class TrackedGenerate:
    """Stands in a model's place of ``generate``, and says which of its calls are prefill.

    Args:
        generate: the model's own.
        owner: its `hooks.Installation`.
    """

    def __init__(self, generate: Callable[..., object], owner: object) -> None:
        self.generate, self.owner = generate, owner

    @property
    def __wrapped__(self) -> Callable[..., object]:
        # For inspect.signature and help.
        return self.generate

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Generates.

        Raises:
            RuntimeError: the prompt comes in chunks, and the loop that generates never asked its stopping criteria, so
                that its sampled tokens were taken for prompt.
        """
        bound = inspect.signature(self.generate).bind(*args, **kwargs)
        arguments = dict(bound.arguments)
        extra = next((p.name for p in bound.signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
        arguments |= arguments.pop(extra, {}) if extra else {}
        model = self.generate.__self__
        state = thread_state()
        outer = state.generation
        generation = _generation(model, self.owner, outer, arguments)
        if arguments.get("cache_implementation") != "paged":  # it refuses criteria, and needs none
            if "stopping_criteria" in bound.signature.parameters:
                bound.arguments["stopping_criteria"] = _with(
                    arguments.get("stopping_criteria"), generation.on_token
                )
            elif extra:
                more = _with(arguments.get("stopping_criteria"), generation.on_token)
                bound.arguments[extra] = {**bound.arguments.get(extra, {}), "stopping_criteria": more}
        state.generation = generation
        try:
            output = self.generate(*bound.args, **bound.kwargs)
        finally:
            state.generation = outer
        if generation.chunked and generation.called and not generation.sampled:
            raise RuntimeError(
                f"generate: the loop of {type(model).__name__} never asks its stopping criteria, so that with "
                "prefill_chunk_size prompt and sampled tokens cannot be told apart; leave prefill_chunk_size out"
            )
        return output


def _with(criteria: object | None, more: Callable[..., torch.Tensor]) -> object:
    from transformers import StoppingCriteriaList

    return StoppingCriteriaList([*(criteria or ()), more])


def _generation(
    model: torch.nn.Module, owner: object, outer: Generation | None, arguments: Mapping[str, object]
) -> Generation:
    configs = (arguments.get("generation_config"), getattr(model, "generation_config", None))

    def option(name: str) -> object | None:
        found = (arguments.get(name), *(getattr(config, name, None) for config in configs))
        return next((value for value in found if value is not None), None)

    caches = [arguments[name] for name in CACHE_ARGUMENTS if arguments.get(name) is not None]
    drafts_on = bool(getattr(configs[0], "is_assistant", False)) and any(not is_empty(c) for c in caches)
    is_part = outer is not None and outer.owner is owner and (outer.sampled or outer.continues)
    length = _prompt_length(model, arguments) if any(option(name) for name in _DRAFTING) else None
    return Generation(owner, drafts_on or is_part, option("prefill_chunk_size") is not None, length)


def _prompt_length(model: torch.nn.Module, arguments: Mapping[str, object]) -> int | None:
    if getattr(model.config, "is_encoder_decoder", False):
        start = arguments.get("decoder_input_ids")
        return 1 if start is None else start.shape[1]
    prompts = (arguments.get(name) for name in ("inputs_embeds", "input_ids", "inputs"))
    return next((prompt.shape[1] for prompt in prompts if isinstance(prompt, torch.Tensor)), None)
