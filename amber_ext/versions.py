"""Which transformers the integration was written for."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

OLDEST, BELOW = (5, 17), (6, 0)


def transformers_problem() -> str | None:
    """Why the installed transformers cannot be used, or None."""
    try:
        found = version("transformers")
    except PackageNotFoundError:
        return "transformers is not installed; pip install 'amber_ext[models]'"
    major_minor = tuple(int(part) for part in found.split(".")[:2])
    if OLDEST <= major_minor < BELOW:
        return None
    return (
        f"transformers {found} is not supported; allowed: {OLDEST[0]}.{OLDEST[1]} or newer, below "
        f"{BELOW[0]}.{BELOW[1]}"
    )
