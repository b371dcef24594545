"""What pruning one projection costs the model's predictions, in nats per token.

`sensitivity` measures ``e_q``, the error of a projection's output. Here that error is weighed by what the output
does to the model's predictions: to second order the KL divergence from the dense model's predictions is
``½ E[(g_t · ΔY_t)²]``, where ``ΔY_t = (X'_t − X_t) Wᵀ`` and ``g_t`` is the gradient at ``Y_t`` of ``−log p(y)`` with
labels y drawn from the model itself (the Fisher information). One forward and one backward of the dense model serve
every projection and pattern. Errors of different tokens and projections are taken as independent, so losses add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F

from amber_ext.config import AmberConfig
from amber_ext.layers.sites import LinearSite, score_for
from amber_ext.methods.calibration import list_batches
from amber_ext.ops.functional import nm_prune
from amber_ext.ops.pattern import Pattern
from amber_ext.ops.scores import selection_scale
from amber_ext.phase import decode
from amber_ext.progress import progress_bar

Losses = dict[tuple[str, Pattern], float]


def predicted_losses(
    model: torch.nn.Module,
    sites: Sequence[LinearSite],
    batches: Iterable[torch.Tensor],
    patterns: Sequence[Pattern],
    config: AmberConfig,
    *,
    progress: bool = False,
) -> Losses:
    """(site name, pattern) to the predicted rise of the negative log-likelihood, nats per token.

    Args:
        model: a transformers causal LM, dense or sparsified; it runs dense and is not changed.
        sites: projections that are ``nn.Linear``; K a multiple of every pattern's M.
        batches: token ids ``[B, T]`` int64. Memory: every site's input and output gradient of one batch.
        config: score and rescale.

    Raises:
        ValueError, TypeError: no batches, or not such; a site that a batch does not reach; predictions with NaN or Inf.
    """
    batches = list_batches(batches)
    modules = {site.name: model.get_submodule(site.module_name) for site in sites}
    scales = {
        site.name: selection_scale(modules[site.name].weight, score_for(site, config)) for site in sites
    }
    generator = torch.Generator().manual_seed(0)
    losses = {(site.name, pattern): 0.0 for site in sites for pattern in patterns}
    for batch in progress_bar(batches, "Measuring losses", progress):
        inputs, gradients = inputs_and_gradients(model, modules, batch, generator)
        for name, module in modules.items():
            x = inputs.pop(name)
            # g · ΔY = (g W) · ΔX: one product a site, whatever the number of patterns.
            input_gradient = gradients.pop(name).float() @ module.weight.detach().float()
            for pattern in patterns:
                change = nm_prune(x, pattern, scales[name], config.rescale).float() - x.float()
                effects = (input_gradient * change).sum(-1, dtype=torch.float64)
                losses[name, pattern] += 0.5 * float(effects.square().sum())
    tokens = sum(batch.numel() for batch in batches)
    return {key: loss / tokens for key, loss in losses.items()}


def inputs_and_gradients(
    model: torch.nn.Module,
    modules: dict[str, torch.nn.Module],
    batch: torch.Tensor,
    generator: torch.Generator,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Each module's input ``[tokens, K]``, and the gradient at its output ``[tokens, N]``."""
    inputs: dict[str, torch.Tensor] = {}
    gradients: dict[str, torch.Tensor] = {}

    def hook_of(name: str):
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            inputs[name] = args[0].detach().flatten(0, -2)
            output.register_hook(lambda g: gradients.__setitem__(name, g.detach().flatten(0, -2)))

        return hook

    def need_gradients(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        return output.detach().requires_grad_()

    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    handles.append(model.get_input_embeddings().register_forward_hook(need_gradients))
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        with torch.enable_grad(), decode():
            logits = model(batch, use_cache=False).logits.float().flatten(0, -2)
            if not logits.isfinite().all():
                raise ValueError(
                    f"model: {type(model).__name__} predicts NaN or Inf for these batches; every logit must be finite"
                )
            probabilities = logits.detach().softmax(-1).cpu()
            labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)
            F.cross_entropy(logits, labels, reduction="sum").backward()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in wanted:
            parameter.requires_grad_(True)
    if unreached := [name for name in modules if name not in gradients]:
        raise ValueError(
            f"batches: no token of them reached the layer '{unreached[0]}'; use more, or leave it out"
        )
    return inputs, gradients
