"""What is installed, built and found: the data behind ``amber-ext info``."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import torch

from amber_ext import ops


def environment_info() -> dict[str, object]:
    """Version, torch, op library, CUDA, CUTLASS, CPU capability and kernel catalogue."""
    info: dict[str, object] = {
        "version": _version(),
        "torch": torch.__version__,
        "torch_cuda_available": torch.cuda.is_available(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "op_library": "loaded" if ops.LOAD_ERROR is None else ops.LOAD_ERROR,
    }
    if importlib.util.find_spec("amber_ext._introspect") is None:
        return {**info, "build": None, "cpu_capability": None, "kernels": []}
    from amber_ext import _introspect

    return {
        **info,
        "build": _introspect.build_info(),
        "cpu_capability": _introspect.cpu_capability(),
        "kernels": _introspect.kernel_catalogue(),
    }


def _version() -> str:
    try:
        return importlib.metadata.version("amber_ext")
    except importlib.metadata.PackageNotFoundError:
        return "not installed (used from a source tree)"
