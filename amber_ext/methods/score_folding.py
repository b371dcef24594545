"""Folding channel scales into the norm before a layer, so that the choice is by plain magnitude.

A norm's output x that is multiplied by c, and a weight divided by c, give the same product, and ``|x · c|`` is the score
``|x| · c``. So hardware that keeps the 2 of 4 entries of largest magnitude makes the choice of any score of this package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from amber_ext.config import AmberConfig
from amber_ext.layers.sharding import is_sharded
from amber_ext.layers.sites import LinearSite, SiteDecision
from amber_ext.methods.norm_folding import fold_into_norm, owns_weight, readers_of_norm
from amber_ext.ops.scores import MAGNITUDE, channel_scale, needs_scale


@dataclasses.dataclass(frozen=True)
class FoldedScores:
    """What folding changes.

    Attributes:
        weights: module's name to its new weight, of norms and of the linears that read them.
        norms: how many of them are norms.
        config: the configuration with ``"magnitude"`` for the projections that were folded.
    """

    weights: dict[str, torch.Tensor]
    norms: int
    config: AmberConfig

    def apply(self, model: torch.nn.Module) -> None:
        """Puts the new weights into the model's own parameters."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                model.get_submodule(name).weight.copy_(weight)


def fold_scores(
    model: torch.nn.Module, decisions: Mapping[LinearSite, SiteDecision], config: AmberConfig
) -> FoldedScores:
    """New weights with which the pruned projections that read a norm are pruned by magnitude; the model is not changed.

    The norm's weight is rounded to its dtype, and the linears are divided by the factor that it then really applies, so that
    the choice is that of the scores up to this rounding (2⁻⁹ of a score in bf16), and so is the product.

    Args:
        decisions: of `decide`, for every linear of the model.

    Raises:
        ValueError: no pruned projection reads a norm, one does so in some of its layers alone, two that read the same norm
            are pruned by scores of their own, or a weight has NaN or Inf.
    """
    norm_of = _norms(model, decisions)
    pruned = [
        site for site, d in decisions.items() if d.sparse and not site.is_fused and needs_scale(d.score)
    ]
    folded = sorted({site.projection for site in pruned if site.name in norm_of})
    if not folded:
        raise ValueError(
            "fold_scores: True is not allowed here: no pruned projection with a channel scale alone reads a norm's output"
        )
    chosen = [site for site in pruned if site.projection in folded]
    for site in chosen:
        if site.name not in norm_of:
            raise ValueError(
                f"fold_scores: '{site.name}' does not read a norm that can take its scores, as others of {site.projection} "
                "do; skip this layer, or leave fold_scores out"
            )
    scored: dict[str, LinearSite] = {}
    for site in chosen:
        if (other := scored.setdefault(norm_of[site.name], site)) is not site:
            raise ValueError(
                f"fold_scores: '{other.name}' and '{site.name}' read the same norm, which can take the scores of one; "
                "prune one of them, or leave fold_scores out"
            )
    weights: dict[str, torch.Tensor] = {}
    for norm, site in scored.items():
        try:
            scale = channel_scale(model.get_submodule(site.module_name).weight, decisions[site].score)
        except ValueError as error:
            raise ValueError(f"layer '{site.name}': {error}") from None
        new = fold_into_norm(model.get_submodule(norm).weight, scale)
        if new is None:
            raise ValueError(
                f"fold_scores: the weight of '{norm}' times the scores of '{site.name}' overflows"
            )
        weights[norm], applied = new
        for reader in (name for name, other in norm_of.items() if other == norm):
            weight = model.get_submodule(reader).weight.detach()
            weights[reader] = (weight.float() / applied).to(weight.dtype)
    scores = {**config.projection_scores, **dict.fromkeys(folded, MAGNITUDE)}
    return FoldedScores(weights, len(scored), dataclasses.replace(config, projection_scores=scores))


def _norms(model: torch.nn.Module, decisions: Mapping[LinearSite, SiteDecision]) -> dict[str, str]:
    """Linear's name to the norm whose output it reads, where that norm and all its readers may be changed."""
    plain = {
        site.name
        for site in decisions
        if not site.is_fused
        and site.obstacle is None
        and not is_sharded(model.get_submodule(site.module_name).weight)
    }
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if getattr(getattr(module, "weight", None), "ndim", 0) != 1:
            continue
        readers = readers_of_norm(model, name)
        if readers and all(r in plain and owns_weight(model, model.get_submodule(r)) for r in readers):
            found.update(dict.fromkeys(readers, name))
    return found
