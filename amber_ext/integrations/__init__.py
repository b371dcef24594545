"""Where other libraries meet amber_ext. The rest of the package uses only `register`, and `versions` to load models."""

from __future__ import annotations

from amber_ext.integrations.versions import transformers_problem

QUANT_METHOD = "amber_ext"  # in the config.json of a saved model


def register() -> None:
    """Makes transformers know `QUANT_METHOD`, where a supported transformers is installed."""
    if transformers_problem() is None:
        from amber_ext.integrations import transformers as integration

        integration.register()
