"""Which of compressed-tensors' schemes are read: 8 bits, one scale a channel of a weight and one a token of its input."""

from __future__ import annotations

from collections.abc import Mapping

FORMATS = ("int-quantized", "float-quantized", "naive-quantized")

WEIGHTS = {"num_bits": 8, "symmetric": True, "strategy": "channel", "dynamic": False}
ACTIVATIONS = {"num_bits": 8, "symmetric": True, "strategy": "token", "dynamic": True}
# What a field is that a file leaves out.
DEFAULTS = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False}

# Parts of a configuration that change what a model computes, and are not read.
UNREAD = ("kv_cache_scheme", "transform_config", "sparsity_config", "moe_sparsity_config")

ALLOWED = "8-bit weights by channel, and 8-bit activations by token as they come, is what is"


def check_scheme(quantization: Mapping[str, object]) -> None:
    """Raises ValueError, naming what does not fit, unless every layer that is quantised is W8A8 as `ALLOWED` says.

    Args:
        quantization: the ``quantization_config`` of a ``config.json``.
    """
    for field in UNREAD:
        value = quantization.get(field)
        if value and value != {"format": "dense"}:
            raise _unread(field, value)
    groups = quantization.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise _unread("config_groups", groups)
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            raise _unread(f"config_groups.{name}", group)
        if group.get("output_activations") is not None:
            raise _unread(f"config_groups.{name}.output_activations", group["output_activations"])
        weights = _fields(group, name, "weights", WEIGHTS)
        activations = _fields(group, name, "input_activations", ACTIVATIONS)
        if activations["type"] != weights["type"]:
            raise _unread(f"config_groups.{name}.input_activations.type", activations["type"])
        stored = group.get("format") or quantization.get("format")
        if stored not in FORMATS:
            raise _unread(f"config_groups.{name}.format", stored)


def _fields(
    group: Mapping[str, object], name: str, part: str, wanted: Mapping[str, object]
) -> Mapping[str, object]:
    found = group.get(part)
    if not isinstance(found, Mapping):
        raise _unread(f"config_groups.{name}.{part}", found)
    found = {**DEFAULTS, **found}
    for field, value in wanted.items():
        if found.get(field) != value:
            raise _unread(f"config_groups.{name}.{part}.{field}", found.get(field))
    return found


def _unread(field: str, value: object) -> ValueError:
    return ValueError(f"quantization_config: {field} = {value!r} is not allowed; {ALLOWED} read")
