"""What the heuristic knows of a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch

# Bytes that an SM can read from L2 in a cycle, on every architecture here.
L2_BYTES_PER_CYCLE = 64


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        name: as CUDA calls it; of a `KNOWN` one the part by which it is recognised.
        arch: compute capability, major * 10 + minor.
        clock_ghz: boost clock.
        half, int8, e4m3: operations of an SM's tensor cores in a cycle, dense, with fp32 or int32 sums; a
            multiply-add is two, 0 is none.
        memory_gb_s: of the data sheet.
        l2_mb: size of the L2 cache.
    """

    name: str
    arch: int
    multiprocessors: int
    clock_ghz: float
    half: int
    int8: int
    e4m3: int
    memory_gb_s: float
    l2_mb: float

    def rate(self, operands: str) -> float:
        """Dense operations an SM does in a second; 0 where its tensor cores do not take these operands."""
        of_operands = {"16-bit": self.half, "int8": self.int8, "e4m3": self.e4m3}
        return of_operands.get(operands, 0) * self.clock_ghz * 1e9

    @property
    def l2_bytes_s(self) -> float:
        """What one SM can read from L2 in a second."""
        return L2_BYTES_PER_CYCLE * self.clock_ghz * 1e9


# From NVIDIA's data sheets and architecture papers. The clock is the one at which SMs, clock and rate give the data
# sheet's tensor-core figures.
KNOWN = (
    Device("A100", 80, 108, 1.41, 2048, 4096, 0, 2039, 40),
    Device("RTX 3090", 86, 82, 1.70, 512, 2048, 0, 936, 6),
    Device("RTX 4090", 89, 128, 2.52, 512, 2048, 1024, 1008, 72),
    Device("H100", 90, 132, 1.83, 4096, 8192, 8192, 3350, 50),
    Device("H20", 90, 78, 1.85, 1024, 2048, 2048, 4000, 60),
    Device("H200", 90, 132, 1.83, 4096, 8192, 8192, 4800, 50),
    Device("B200", 100, 148, 1.85, 8192, 16384, 16384, 8000, 126),
    Device("RTX 5080", 120, 84, 2.62, 512, 2048, 1024, 960, 64),
    Device("RTX 5090", 120, 170, 2.41, 512, 2048, 1024, 1792, 96),
    Device("GB10", 121, 48, 2.50, 1024, 2048, 2048, 273, 24),
)


def describe(name: str, arch: int, multiprocessors: int) -> Device:
    """The known device of this name, with its own number of SMs; else the nearest known one of its architecture."""
    named = [device for device in KNOWN if device.name in name]
    older = [device for device in KNOWN if device.arch <= arch] or [KNOWN[0]]
    # "H200" also holds "H20".
    known = max(named, key=lambda d: len(d.name)) if named else max(older, key=lambda d: d.arch)
    return replace(known, name=name, arch=arch, multiprocessors=multiprocessors)


@cache
def device_of(device: torch.device) -> Device:
    """The description of a CUDA device of this machine."""
    found = torch.cuda.get_device_properties(device)
    return describe(found.name, found.major * 10 + found.minor, found.multi_processor_count)
