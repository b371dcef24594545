"""Changes a module's class without touching the module."""

from __future__ import annotations

import copy
import functools

import torch


def recast(module: torch.nn.Module, cls: type) -> torch.nn.Module:
    """A shallow copy of ``module`` as a ``cls``: the same parameters and hooks, its own registries."""
    new = copy.copy(module)
    new.__class__ = cls
    for registry in ("_parameters", "_buffers", "_modules"):
        new.__dict__[registry] = dict(module.__dict__[registry])
    new._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    return new


class MixedIn:
    """The base of mixins for classes of modules that only a model brings; `mixed_class` makes the class."""

    @classmethod
    def original_class(cls) -> type:
        """The class that the mixin was mixed into."""
        return cls.__mro__[cls.__mro__.index(MixedIn) + 1]

    def __reduce__(self):
        # The class is made at run time, so pickle cannot find it by name.
        mixin = type(self).__mro__[1]
        return _unpickle, (mixin, self.original_class(), self.__dict__)


@functools.cache
def mixed_class(mixin: type[MixedIn], cls: type) -> type:
    """The subclass of ``mixin`` and ``cls``."""
    return type(f"Amber{cls.__name__}", (mixin, cls), {})


def _unpickle(mixin: type[MixedIn], cls: type, state: dict[str, object]) -> torch.nn.Module:
    made = mixed_class(mixin, cls)
    module = made.__new__(made)
    module.__dict__.update(state)
    return module
