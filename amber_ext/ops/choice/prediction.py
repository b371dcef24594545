"""The heuristic: how long each kernel takes, from what is known of the GPU; nothing is run.

A product takes the longest of three: its tiles in waves over the SMs at a share of the tensor cores' rate, its tiles'
operands through L2, and everything once through memory. Pruning, compressing and quantising are passes through memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from amber_ext.ops.choice.devices import Device
from amber_ext.ops.pattern import extra_windows
from amber_ext.ops.sparse_gemms import DENSE, MASKED_DENSE, Problem, SparseGemm

# Share of the dense rate that cuBLAS reaches with many tokens. Estimates: times depend on them, ratios do not.
DENSE_EFFICIENCY = {80: 0.85, 86: 0.9, 89: 0.9, 90: 0.7, 100: 0.75, 120: 0.9, 121: 0.8}

# 2:4 products of cuSPARSELt, compressed beforehand, over cuBLASLt's dense ones at M = 8192, in the middle of the public
# figures: A100 1.36 bf16 and 2.06 int8; RTX 4090 1.43 to 1.70 bf16 and 2.05 fp8; H100 1.58 to 1.66 bf16 and 1.60 to
# 1.73 fp8; B200 1.75 to 1.85; RTX 5080 1.70; GB10 0.6. Without a figure, 8-bit dtypes have that of the other one, and
# an architecture has that of the nearest before it.
LIBRARY_GAIN = {
    80: {"16-bit": 1.36, "int8": 2.06},
    89: {"16-bit": 1.56, "int8": 2.05, "e4m3": 2.05},
    90: {"16-bit": 1.62, "int8": 1.66, "e4m3": 1.66},
    100: {"16-bit": 1.80, "int8": 1.80, "e4m3": 1.80},
    120: {"16-bit": 1.70, "int8": 1.70, "e4m3": 1.70},
    121: {"16-bit": 0.6, "int8": 0.6, "e4m3": 0.6},
}
# The same of our kernels, by the architecture they are for. SM90: CUTLASS' example 62 on an H100, which is built like
# them. The others have no public figure and are taken to be as fast as cuSPARSELt.
OUR_GAIN = {90: 1.2}

# Whose kernels have run nowhere yet, not even emulated: a plan takes them where `amber_ext.tune` has checked and timed them.
UNTRIED = frozenset({100})

# Of the data sheet's memory bandwidth, and of the L2's, that kernels reach.
BANDWIDTH_SHARE = 0.8
# From one kernel's end to the next one's first instruction. An estimate.
LAUNCH_SECONDS = 2.5e-6

# Tiles of Y among which cuBLAS is taken to choose.
DENSE_TILES = ((64, 64), (64, 128), (128, 128), (128, 256))


def nearest(table: dict[int, object], arch: int) -> object:
    """The entry of this architecture, or of the nearest before it."""
    return table[max((known for known in table if known <= arch), default=min(table))]


def times(
    device: Device, problem: Problem, gemms: Iterable[SparseGemm], tokens: int
) -> dict[str, float] | None:
    """Seconds of the pruned layer by each kernel, and of the layer that is not pruned (`DENSE`).

    None where the tensor cores do not take the operands.
    """
    if device.rate(problem.operands) == 0:
        return None
    wide = problem.in_features * (1 + (extra_windows(problem.pattern) or 0) / 4)
    product = dense_product(device, problem, tokens)
    size = problem.dtype.itemsize
    values = tokens * problem.in_features
    if problem.is_8bit:
        # Quantised with and without pruning; an int8 product then is written in 32 bits and scaled in a pass of its own.
        product += passes(device, values * (size + 1))
        if problem.operands == "int8":
            product += passes(device, tokens * problem.out_features * (4 + size))
        pruning = 0.0
    else:
        pruning = passes(device, values * 2 * size)
    found = {MASKED_DENSE: product + pruning}
    for gemm in gemms:
        found[gemm.name] = compression(device, problem, tokens) + sparse_product(
            device, problem, tokens, wide, OUR_GAIN.get(gemm.arch), gemm.tile
        )
    return {**found, DENSE: product}


def passes(device: Device, size: float) -> float:
    """Seconds of a kernel that moves so many bytes through memory."""
    return LAUNCH_SECONDS + size / (device.memory_gb_s * 1e9 * BANDWIDTH_SHARE)


def compression(device: Device, problem: Problem, tokens: int) -> float:
    """Seconds of the kernel that prunes, in 8 bits quantises, and compresses: x is read, half of it and E written."""
    columns = 1 + (extra_windows(problem.pattern) or 0) / 4
    written = columns * (weight_bytes(problem) / 2 + 1 / 8)
    return passes(device, tokens * problem.in_features * (problem.dtype.itemsize + written))


def weight_bytes(problem: Problem) -> int:
    """Bytes of an operand's element."""
    return problem.weight_dtype.itemsize


def waves(device: Device, tokens: int, out_features: int, tile: tuple[int, int]) -> int:
    """How often every SM computes a tile of Y."""
    tiles = math.ceil(tokens / tile[0]) * math.ceil(out_features / tile[1])
    return math.ceil(tiles / device.multiprocessors)


def dense_product(device: Device, problem: Problem, tokens: int) -> float:
    """Seconds of cuBLAS' product, by the best of its tiles."""
    n, k, size = problem.out_features, problem.in_features, weight_bytes(problem)
    rate = device.rate(problem.operands) * nearest(DENSE_EFFICIENCY, device.arch)
    compute = min(waves(device, tokens, n, tile) * 2 * tile[0] * tile[1] * k / rate for tile in DENSE_TILES)
    written = 4 if problem.operands == "int8" else problem.dtype.itemsize
    return max(compute, passes(device, size * k * (tokens + n) + written * tokens * n))


def sparse_product(
    device: Device,
    problem: Problem,
    tokens: int,
    columns: float,
    gain: float | None = None,
    tile: tuple[int, int, int] | None = None,
) -> float:
    """Seconds of a sparse GEMM over K' columns.

    Args:
        gain: over dense products with many tokens; None is that of cuSPARSELt.
        tile: None is the best of `DENSE_TILES`, and a library that does not wait for L2.
    """
    n, size = problem.out_features, weight_bytes(problem)
    if gain is None:
        gain = nearest(LIBRARY_GAIN, device.arch).get(problem.operands, 1.0)
    rate = device.rate(problem.operands) * nearest(DENSE_EFFICIENCY, device.arch) * gain
    sparse_bytes = size / 2 + 1 / 8
    shapes = DENSE_TILES if tile is None else (tile[:2],)
    compute = min(waves(device, tokens, n, (m, w)) * 2 * m * w * columns / rate for m, w in shapes)
    through_l2 = 0.0
    if tile is not None:
        operands = columns * (tile[0] * sparse_bytes + tile[1] * size)
        through_l2 = waves(device, tokens, n, tile[:2]) * operands / (device.l2_bytes_s * BANDWIDTH_SHARE)
    memory = passes(
        device, columns * (tokens * sparse_bytes + n * size) + problem.dtype.itemsize * tokens * n
    )
    return max(compute, through_l2, memory)
