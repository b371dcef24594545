"""``amber-ext info``."""

from __future__ import annotations

from rich.table import Table

from amber_ext.cli.options import JsonOption, console, print_json
from amber_ext.ops.library import environment_info


def run(as_json: JsonOption = False) -> None:
    """What is installed, built and found."""
    data = environment_info()
    if as_json:
        return print_json(data)
    table = Table("what", "value", show_header=False)
    for name, value in data.items():
        if name not in ("build", "kernels"):
            table.add_row(name.replace("_", " "), str(value))
    for name, value in (data["build"] or {}).items():
        table.add_row(f"build: {name.replace('_', ' ')}", str(value))
    console.print(table)
    kernels = Table("kernel", "device", "target", "patterns", "dtypes")
    for kernel in data["kernels"]:
        kernels.add_row(*kernel.values())
    console.print(kernels)
