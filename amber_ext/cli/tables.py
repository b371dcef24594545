"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from amber_ext.config import AmberConfig
from amber_ext.layers.sites import LinearSite, decide


def plan_table(config: AmberConfig, sites: Sequence[LinearSite], coverage: float) -> Table:
    """Which layers of each projection run at which pattern, or dense."""
    table = Table("projection", "pattern", "layers", title=f"coverage {coverage:.1%} of linear FLOPs")
    groups: dict[tuple[str, str], list[int]] = {}
    for site in sites:
        if site.projection in config.targets and site.layer is not None:
            groups.setdefault((site.projection, str(decide(site, config).pattern or "dense")), []).append(
                site.layer
            )
    for (projection, pattern), layers in sorted(groups.items()):
        table.add_row(projection, pattern, _ranges(layers))
    return table


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 5``."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
