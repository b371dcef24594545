"""`Planned`: layers that hold the plans of their products, so that no call has to choose a kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import MappingProxyType

import torch

from amber_ext.layers.sharding import is_sharded
from amber_ext.ops.backends import Decision
from amber_ext.ops.choice.plan import Plan
from amber_ext.ops.choice.products import decide, plan_key, plan_of, problem_of
from amber_ext.ops.pattern import Pattern
from amber_ext.ops.sparse_gemms import are_aligned


class Planned(torch.nn.Module):
    """A mixin for layers with a ``weight`` whose products are those of `linear` or `linear_w8a8`.

    Plans are made where the layer is made, moved, loaded or tuned, for every number of tokens (`Plan`). A compiled
    graph holds them as constants. A call that finds none, since the weight is not what it was then, makes its own.
    """

    in_features: int
    pattern: Pattern
    rescale: str
    backend: str
    bias: torch.Tensor | None
    allow_unpruned: bool = False
    plans: Mapping[tuple, Plan] = MappingProxyType({})

    def input_dtypes(self) -> tuple[torch.dtype, ...]:
        """The dtypes of inputs to make plans for, the likeliest first."""
        raise NotImplementedError

    def products(self) -> list[dict[str, object]]:
        """The keyword arguments of every product that this layer may run, that of prefill first."""
        raise NotImplementedError

    def make_plans(self) -> None:
        """Chooses the kernels of this layer where its weight lies now."""
        self.plans = {}
        for arguments in self._local_products():
            if arguments["weight"].dim() != 2:  # saved 8-bit weights are flat until they are loaded
                continue
            aligned = are_aligned(arguments["weight"], self.bias)
            for dtype in self.input_dtypes():
                # An explicit backend that cannot run: the call itself says so.
                with contextlib.suppress(RuntimeError, ValueError):
                    plan = plan_of(*self._key(dtype, arguments, aligned))
                    self.plans[self._key(dtype, arguments)] = plan

    def with_plan(self, dtype: torch.dtype, arguments: dict[str, object]) -> dict[str, object]:
        """The arguments of a product, and its plan for inputs of this dtype; None where there is none."""
        plan = None
        if are_aligned(arguments["weight"], self.bias):
            plan = self.plans.get(self._key(dtype, arguments))
        return {**arguments, "plan": plan}

    def expected(self, tokens: int) -> Decision:
        """What a prefill of so many tokens would run.

        Raises:
            RuntimeError, ValueError: the explicit backend cannot run.
        """
        key = self.prefill_key(self.input_dtypes()[0])
        return decide(problem_of(*key), plan_of(*key), tokens)

    def prefill_key(self, dtype: torch.dtype) -> tuple:
        """The `plan_key` of a prefill with inputs of this dtype."""
        arguments = self._local_products()[0]
        return self._key(dtype, arguments, are_aligned(arguments["weight"], self.bias))

    def _key(self, dtype: torch.dtype, arguments: Mapping[str, object], aligned: bool = True) -> tuple:
        weight = arguments["weight"]
        # K of the part of the weight that this process holds, without copies.
        columns = min(self.in_features, weight.shape[1])
        names = ("pattern", "rescale", "backend", "allow_unpruned")
        return plan_key(dtype, columns, weight, aligned, *(arguments[name] for name in names))

    def _local_products(self) -> list[dict[str, object]]:
        """`products` with the part of the weight that this process holds."""
        return [
            {**arguments, "weight": weight.to_local()}
            if is_sharded(weight := arguments["weight"])
            else arguments
            for arguments in self.products()
        ]
