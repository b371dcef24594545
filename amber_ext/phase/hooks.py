"""Hooks on a model that tell the layers inside whether a call of it is prefill or decode."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from amber_ext.phase.context import PREFILL, thread_state
from amber_ext.phase.continuous import TrackedBatching, phase_of_packed_call
from amber_ext.phase.decisions import phase_of_call
from amber_ext.phase.generation import CACHE_ARGUMENTS, TrackedGenerate
from amber_ext.phase.rows import Rows

# Where a model takes its tokens: a decoder's go first, since an encoder's stand beside them.
_TOKENS = ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds")

# With these a model carries a state from call to call.
_CACHING = ("use_cache", "use_mems")

_ATTRIBUTE = "_amber_phase"


@dataclass(eq=False, repr=False)
class Installation:
    """What `install_phase_hooks` did to one model.

    Attributes:
        cached_prompts: one of `CACHED_PROMPTS`.
        handles: of the hooks.
        replaced: modules, their methods that are tracked, and what stood in its place on the instance, or None.
        manager: of the continuous batching that runs or ran last.
    """

    cached_prompts: str
    handles: list[object] = field(default_factory=list)
    replaced: list[tuple[torch.nn.Module, str, object | None]] = field(default_factory=list)
    manager: weakref.ref | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "manager": None}  # a copy of the model has no batching that runs

    def track(self, module: torch.nn.Module, name: str, tracked: Callable[..., object]) -> None:
        """Puts ``tracked(method, self)`` into the place of a method of this module, where it has one."""
        method = getattr(module, name, None)
        if method is not None:
            self.replaced.append((module, name, module.__dict__.get(name)))
            setattr(module, name, tracked(method, self))


class ModelCall:
    """A call of a model that runs: its phase, the hook that began it, and the call around it."""

    def __init__(self, phase: Rows | str, hook: PhaseHook, outer: ModelCall | None) -> None:
        self.phase, self.hook, self.outer = phase, hook, outer


class PhaseHook:
    """The hooks of one module; an instance knows where the module's forward takes its arguments."""

    def __init__(self, module: torch.nn.Module, owner: Installation, is_encoder: bool) -> None:
        self.owner, self.is_encoder = owner, is_encoder
        self.positions = {
            name: index for index, name in enumerate(inspect.signature(module.forward).parameters)
        }

    def _first(self, names: tuple[str, ...], args: tuple, kwargs: dict) -> object | None:
        """The first of these arguments that is given, by position or by name."""
        for name in names:
            position = self.positions.get(name, len(args))
            value = args[position] if position < len(args) else kwargs.get(name)
            if value is not None:
                return value
        return None

    def before(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        state = thread_state()
        outer = self._outer(state.call)
        if self.is_encoder:
            phase = PREFILL  # what it encodes is prompt, whatever the decoder's cache holds
        elif outer is not None and outer.hook.owner is self.owner:
            phase = outer.phase
        else:
            phase = self._decide(args, kwargs)
        state.call = ModelCall(phase, self, outer)

    def after(self, module: torch.nn.Module, args: tuple, output: object) -> None:
        state = thread_state()
        state.call = self._outer(state.call)

    def _outer(self, call: ModelCall | None) -> ModelCall | None:
        """The call around this module's; one of its own that is still there was left by an interrupt."""
        found = call
        while found is not None:
            if found.hook is self:
                return found.outer
            found = found.outer
        return call

    def _decide(self, args: tuple, kwargs: dict) -> Rows | str:
        tokens = self._first(_TOKENS, args, kwargs)
        if not isinstance(tokens, torch.Tensor) or tokens.dim() < 2:
            tokens = None
        cache = self._first(CACHE_ARGUMENTS, args, kwargs)
        if kwargs.get("cu_seq_lens_q") is not None and not hasattr(cache, "get_seq_length"):
            return phase_of_packed_call(tokens, kwargs, self.owner.manager)
        generation = thread_state().generation
        if generation is not None and generation.owner is self.owner:
            return generation.phase_of_call(cache, tokens)
        return phase_of_call(cache, 1 if tokens is None else tokens.shape[1], self.owner.cached_prompts)


def install_phase_hooks(model: torch.nn.Module, cached_prompts: str = "sparse") -> None:
    """Makes ``model`` set the phase for its calls. Installing again changes ``cached_prompts`` alone.

    In a transformers model there are hooks on the model and on every model inside that takes a cache, since wrappers
    (peft), and some of transformers' own models, call what is inside past the outer one. The outermost call decides.

    Raises:
        ValueError: the model caches or generates, and nothing in it takes a cache by a name that is known here.
    """
    found = model.__dict__.get(_ATTRIBUTE)
    if found is not None:
        found.cached_prompts = cached_prompts
        return
    models = {name: m for name, m in model.named_modules() if m is model or _is_transformers_model(m)}
    parameters = {name: inspect.signature(m.forward).parameters.keys() for name, m in models.items()}
    takers = {name: m for name, m in models.items() if parameters[name] & set(CACHE_ARGUMENTS)}
    if not takers and any(names & set(_CACHING) for names in parameters.values()):
        raise ValueError(
            f"model: {type(model).__name__} caches, but its forward takes no {' or '.join(CACHE_ARGUMENTS[:2])}, so that "
            "prefill and decode cannot be told apart; allowed are models that keep their past in one of these"
        )
    generators = [m for m in models.values() if hasattr(m, "generation_config") and hasattr(m, "generate")]
    if not takers and generators:
        takers = {"": model}  # without a cache, such as GPT-1: every call has the whole prompt
    encoder = _encoder(model)
    hooked = dict.fromkeys((*takers.values(), *(() if encoder is None else (encoder,))))

    owner = Installation(cached_prompts)
    for module in hooked:
        hook = PhaseHook(module, owner, module is encoder)
        owner.handles += [
            module.register_forward_pre_hook(hook.before, with_kwargs=True),
            module.register_forward_hook(hook.after, always_call=True),
        ]
    for module in generators:
        owner.track(module, "generate", TrackedGenerate)
        owner.track(module, "init_continuous_batching", TrackedBatching)
    model.__dict__[_ATTRIBUTE] = owner


def remove_phase_hooks(model: torch.nn.Module) -> None:
    """Undoes `install_phase_hooks`."""
    owner = model.__dict__.pop(_ATTRIBUTE, None)
    if owner is None:
        return
    for handle in owner.handles:
        handle.remove()
    for module, name, before in owner.replaced:
        delattr(module, name)
        if before is not None:
            setattr(module, name, before)


def _is_transformers_model(module: torch.nn.Module) -> bool:
    # transformers is not imported here: models of torch alone can be pruned without it.
    return hasattr(type(module), "base_model_prefix")


def _encoder(model: torch.nn.Module) -> torch.nn.Module | None:
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return None
    encoder = model.get_encoder() if hasattr(model, "get_encoder") else None
    return None if encoder is model else encoder
