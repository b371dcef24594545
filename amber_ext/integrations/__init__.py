"""Where other libraries meet amber_ext. Nothing else in the package depends on these modules."""

from __future__ import annotations

import importlib.util


def register() -> None:
    """Makes transformers know ``quant_method: amber_ext``, where a supported transformers is installed."""
    if importlib.util.find_spec("transformers") is not None:
        from amber_ext.integrations import transformers as integration

        integration.register()
