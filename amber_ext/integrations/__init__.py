"""Where other libraries meet amber_ext. Only ``amber_ext/__init__.py`` and the command line import from here."""

from __future__ import annotations

from amber_ext.versions import transformers_problem


def register() -> None:
    """Makes transformers know saved models of ours, where a supported transformers is installed."""
    if transformers_problem() is None:
        from amber_ext.integrations import transformers as integration

        integration.register()
