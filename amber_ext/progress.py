"""Progress bars, on stderr so that stdout stays for results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import track


def progress_bar(items: Sequence, description: str, show: bool) -> Iterable:
    """Iterates over ``items``, with a progress bar when ``show``."""
    return track(items, description, console=Console(stderr=True), disable=not show)
