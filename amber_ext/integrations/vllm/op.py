"""The op that compiled code calls for a pruned layer: what the step is, it asks when it runs, not when it is traced."""

from __future__ import annotations

import torch
from torch.library import Library
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.utils.torch_utils import direct_register_custom_op

from amber_ext.integrations.vllm.step import phase_of
from amber_ext.phase import run_rows

NAME = "amber_vllm::pruned_linear"

_library = Library("amber_vllm", "FRAGMENT")


def pruned_linear(x: torch.Tensor, bias: torch.Tensor | None, output: torch.Tensor, layer_name: str) -> None:
    """x ``[rows, K]`` to output ``[rows, N]``: the layer of this name in the running model.

    The output is the caller's: where vLLM captures what follows in a graph, that reads it from where it lay then.
    """
    layer = get_forward_context().no_compile_layers[layer_name]
    output.copy_(layer.quant_method.run(layer, x, bias))


def _fake(x: torch.Tensor, bias: torch.Tensor | None, output: torch.Tensor, layer_name: str) -> None:
    return None


direct_register_custom_op(
    "pruned_linear", pruned_linear, mutates_args=["output"], fake_impl=_fake, target_lib=_library
)


def call(layer: torch.nn.Module, layer_name: str, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Runs a layer's method: in compiled code as one op, elsewhere without it."""
    if not torch.compiler.is_compiling():
        return layer.quant_method.run(layer, x, bias)
    output = x.new_empty(*x.shape[:-1], sum(layer.output_partition_sizes))
    torch.ops.amber_vllm.pruned_linear(x, bias, output, layer_name)
    return output


class ByPhase:
    """A mixin for methods of vLLM's linear layers: pruned rows by ``prefill``, the others by ``decode``.

    Attributes:
        name: of the layer.
    """

    name: str

    def apply(
        self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x ``[rows, K]`` to ``[rows, N]``."""
        return call(layer, self.name, x, bias)

    def run(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """As `apply`, in the phase of this step."""
        return run_rows(
            phase_of(x),
            lambda rows: self.prefill(layer, rows, bias),
            lambda rows: self.decode(layer, rows, bias),
            x,
        )


def add_layer(config: VllmConfig, layer_name: str, layer: torch.nn.Module) -> None:
    """Makes a layer known by its name to the op, and keeps the op out of CUDA graphs of mixed batches.

    Raises:
        ValueError: there is such a layer already.
    """
    compilation = config.compilation_config
    if layer_name in compilation.static_forward_context:
        raise ValueError(f"layer '{layer_name}': there are two of this name in one model")
    compilation.static_forward_context[layer_name] = layer
    # Where vLLM cuts the graph at attention, it cuts here as well: the pieces between are what it captures.
    if compilation.splitting_ops and NAME not in compilation.splitting_ops:
        compilation.splitting_ops.append(NAME)
