"""lm-eval's command line with pruned models: ``--model amber``.

lm-eval finds models of other packages only when they are imported, so this starts its own command line::

    amber-lm-eval run --model amber --model_args pretrained=smollm2,pattern=8:16 --tasks arc_easy
"""

from __future__ import annotations

import logging

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from amber_ext.config import AmberConfig
from amber_ext.methods.sparsify import sparsify_
from amber_ext.models import load_model

logger = logging.getLogger("lm_eval")


@register_model("amber")
class AmberLM(HFLM):
    """A transformers model as lm-eval drives it, pruned.

    Args:
        pretrained: as for `load_model`: a folder, a ``.gguf`` file, or ``"smollm2"``.
        pattern, score, rescale: of the `AmberConfig`; without a pattern the model runs as it is.
        config: an `AmberConfig` JSON file instead of these three.
        dtype: name of a torch dtype; by default `load_model`'s.
        device: where to put the model.
        options: what else lm-eval's ``hf`` model takes.

    Raises:
        ValueError: an argument is not allowed, or both ``config`` and ``pattern`` are given.
    """

    def __init__(
        self,
        pretrained: str,
        pattern: str | None = None,
        score: str = "robust_norm",
        rescale: str = "none",
        config: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        **options: object,
    ) -> None:
        if config is not None and pattern is not None:
            raise ValueError(f"config, pattern: {config!r} and {pattern!r} are both given; give one of them")
        wanted = None
        if config is not None:
            wanted = AmberConfig.load(config)
        elif pattern is not None:
            wanted = AmberConfig(pattern=pattern, score=score, rescale=rescale)
        named = dtype not in (None, "auto")
        if named and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ValueError(
                f"dtype: {dtype!r} is not allowed; it must be a torch dtype, for example 'bfloat16'"
            )
        loaded = load_model(pretrained, getattr(torch, dtype) if named else None)
        if device is not None:
            loaded.model.to(device)
        if wanted is not None:
            logger.info("%s", sparsify_(loaded.model, wanted))
        super().__init__(pretrained=loaded.model, tokenizer=loaded.tokenizer, **options)


def main() -> None:
    """lm-eval's command line, which knows ``amber`` now."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
