"""Where other libraries meet amber_ext. The rest of the package uses only `register`, and `versions` to load models."""

from __future__ import annotations

from amber_ext.integrations.versions import transformers_problem


def register() -> None:
    """Makes transformers know ``quant_method: amber_ext``, where a supported transformers is installed."""
    if transformers_problem() is None:
        from amber_ext.integrations import transformers as integration

        integration.register()
