"""The kernels' machine code moves X and the values in full width: nvcc may split a store, and only this shows it.

For each kernel: how wide its loads and stores may be, and how many narrow stores may stand beside the wide ones. How
far a loop is unrolled is the compiler's business, so counts are held against each other.
"""

from collections import Counter
from functools import cache
from itertools import product

import helpers_sass
import pytest

from amber_ext.ops.pattern import EXTRA_WINDOWS
from amber_ext.ops.sparse_gemms import SPARSE_GEMMS

EXTRA = list(EXTRA_WINDOWS.values())  # by the number of the pattern, as in kSparsePatterns
SIZES = {"float": 4, "Float16": 2, "BFloat16": 2}
SELECTIONS = [str(i) for i in range(len(EXTRA))]
# MetadataLayout of 16-bit values: SM80's, SM90's, and where it is built SM100's.
LAYOUTS = ["0", "2", *(["4"] if any(gemm.arch == 100 for gemm in SPARSE_GEMMS) else [])]
INT8, E4M3 = "0", "1"  # QuantizedType

STORED, SILU_MUL = "StoredRows", "SiluMulRows"  # where rows come from


def compressing(kernel, rows):
    """The instantiations of a compressing kernel."""
    types = ["Float16", "BFloat16"]
    if kernel == "prune_compress_kernel":
        return {kernel: set(product(types, LAYOUTS, SELECTIONS, [rows]))}
    return {kernel: set(product(types, [INT8, E4M3], ["false", "true"], SELECTIONS, ["1", "2"], [rows]))}


# Every instantiation of every kernel in these files.
KERNELS = {
    "compress/prune_compress.cu.o": compressing("prune_compress_kernel", STORED),
    "compress/quantize_compress.cu.o": compressing("quantize_compress_kernel", STORED),
    "compress/sources/silu_mul_prune_compress.cu.o": compressing("prune_compress_kernel", SILU_MUL),
    "compress/sources/silu_mul_quantize_compress.cu.o": compressing("quantize_compress_kernel", SILU_MUL),
    "masked/prune.cu.o": {
        "prune_groups": {
            (dtype, *group)
            for dtype in SIZES
            for group in [("4", "0"), ("8", "0"), ("16", "0"), ("16", "1"), ("16", "2")]
        },
        # Any M at any address, and a pass over rows of any length: an element at a time.
        "prune_groups_of_any_size": set(product(SIZES, ["0", "1", "2"])),
        "rescale_rows": set(product(SIZES)),
    },
    "masked/quantize.cu.o": {
        "quantize_kernel": set(product(SIZES)),
        "dequantize_kernel": set(product(SIZES)),
    },
}
BY_ELEMENT = ("prune_groups_of_any_size", "rescale_rows")


@cache
def kernels(file):
    if reason := helpers_sass.obstacle():
        pytest.skip(reason)
    return helpers_sass.kernels(helpers_sass.OBJECTS / file)


def vectorised(file):
    return [kernel for kernel in kernels(file) if kernel.name not in BY_ELEMENT]


def files():
    slow = pytest.mark.slow  # many long kernels
    return [pytest.param(file, marks=slow if file.startswith("compress") else ()) for file in KERNELS]


def allowed_stores(kernel):
    """Bits of a store to how many of them belong together, the widest being the values'."""
    match kernel.name, *kernel.arguments:
        case "prune_compress_kernel", _, _, selection, rows:
            # 16 columns of a row leave 8 values, 16 bytes. Where there are extra windows a thread has 32 columns, and
            # their copies are 8 or 16 bytes more; there a loop goes over the two rows, as it does where rows are made of
            # two tensors, else it is unrolled.
            extra = EXTRA[int(selection)]
            stores = Counter(
                {0: {128: 2 if rows == STORED else 1}, 1: {128: 2, 64: 1}, 2: {128: 2 + 1}}[extra]
            )
            # E of both rows, side by side, 16 bits a group and row; then E of the copies.
            return stores + Counter({0: {32: 1}, 1: {32: 2, 8: 2}, 2: {32: 2 + 1}}[extra])
        case "quantize_compress_kernel", _, _, _, selection, chunks, _:
            # A chunk: 32 columns leave 16 values of a byte; E is 32 bits, for SM90 or else for SM80. Copies and
            # their E as above, half as wide.
            copies = {0: {}, 1: {32: 1, 8: 1}, 2: {64: 1, 16: 1}}[EXTRA[int(selection)]]
            chunk = Counter({128: 1, 32: 2}) + Counter(copies)
            token_scale = Counter({32: 1})
            return Counter({bits: n * int(chunks) for bits, n in chunk.items()}) + token_scale
        case "prune_groups", dtype, m, _:
            # A group of M columns, and its M flags of a byte.
            group = int(m) * SIZES[dtype]
            return Counter({8 * min(group, 16): max(1, group // 16)}) + Counter({8 * int(m): 1})
        case "quantize_kernel", _:
            return Counter({64: 1, 32: 1})  # 8 values of a byte; token_scale
        case "dequantize_kernel", _:
            return Counter({128: 1})
    raise AssertionError(f"no stores are stated for {kernel}")


def allowed_loads(kernel):
    """The same for loads. X enters in the widest, if its group is not smaller."""
    match kernel.name, *kernel.arguments:
        case "quantize_compress_kernel", _, _, _, selection, _, rows if extra := EXTRA[int(selection)]:
            # The columns of an extra window lie four apart, and so do their factors. A loop over two groups of 16
            # columns reads X (2, or gate and up), its scale and factors (4 each); what follows it the factors of both
            # groups.
            tensors = 2 if rows == SILU_MUL else 1
            return {128: 2 * tensors + 4 + 4 + 2 * 4, 32: (1 + 2) * 4 * extra}
        case "prune_groups", dtype, "4", _ if SIZES[dtype] == 2:
            return {128: 1, 64: 2}  # the scale, and a group, which is read elsewhere where there is no scale
        case "dequantize_kernel", dtype:
            # 8 products, 8 scales; token_scale; the bias, whose address need not be a multiple of 16 bytes.
            return Counter({128: 4, 32: 1}) + Counter({8 * SIZES[dtype]: 8})
    return {128: 1}


def is_split(found, allowed):
    """Whether a width is not allowed or missing, or the narrow ones are more than the widest calls for."""
    together = found[max(allowed)] / allowed[max(allowed)]
    return found.keys() != allowed.keys() or any(found[bits] > together * n for bits, n in allowed.items())


@pytest.mark.parametrize("file", files())
def test_every_instantiation_is_read(file):
    found = {}
    for kernel in kernels(file):
        found.setdefault(kernel.architecture, {}).setdefault(kernel.name, set()).add(kernel.arguments)
    assert found and all(names == KERNELS[file] for names in found.values())
    assert all(kernel.instructions.total() > 100 and kernel.registers > 8 for kernel in kernels(file))


@pytest.mark.parametrize("file", files())
def test_stores_are_not_split(file):
    problems = [
        f"{kernel}: {dict(kernel.stores())}, allowed are multiples of {dict(allowed)}"
        for kernel in vectorised(file)
        if is_split(kernel.stores(), allowed := allowed_stores(kernel))
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("file", files())
def test_loads_are_not_split(file):
    problems = [
        f"{kernel}: {dict(kernel.loads())}, allowed are multiples of {dict(allowed)}"
        for kernel in vectorised(file)
        if is_split(kernel.loads(), allowed := allowed_loads(kernel))
    ]
    # What the compressing kernels read once is marked so: X, and nothing else.
    problems += [
        f"{kernel}: {dict(kernel.loads('EF'))} of X, not 128 bits"
        for kernel in vectorised(file)
        if file.startswith("compress") and kernel.loads("EF").keys() != {128}
    ]
    assert not problems, "\n".join(problems)


def most_instructions(kernel):
    """Of a turn of the main path, for each element of X, with the elements; None where nothing is stated."""
    match kernel.name, *kernel.arguments:
        case "prune_compress_kernel", _, _, selection, rows:
            # Two rows of 16 columns, or of 32 where there are copies.
            pattern = list(EXTRA_WINDOWS)[int(selection)]
            most = ({"2:4": 8, "10:16w": 11} if rows == STORED else {"2:4": 36, "10:16w": 38}).get(pattern)
            return most and (most, 2 * (16 if EXTRA[int(selection)] == 0 else 32))
        case "quantize_compress_kernel", _, _, "false", "0", "1", rows:
            # 32 columns, with the reduction over the row. The store of E is there for both layouts, of which a token
            # takes one: it is half an instruction less.
            return (18 if rows == STORED else 46), 32
    return None


@pytest.mark.parametrize("file", files())
def test_instructions_an_element(file):
    problems = []
    for kernel in vectorised(file):
        if kernel.architecture == "sm_90a" and (stated := most_instructions(kernel)):
            most, elements = stated
            each = len(kernel.main_path()) / elements
            if each > most:
                problems.append(f"{kernel}: {each:.2f} instructions an element, at most {most} are allowed")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("file", files())
def test_nothing_is_in_local_memory(file):
    assert not [f"{k}: {sorted(k.not_global())}" for k in vectorised(file) if k.not_global()]


def test_instructions_are_told_apart():
    kernel = helpers_sass.Kernel("sm_90a", "kernel", (), 32)
    kernel.code = ["STG.E.128", "STG.E", "STG.E.U8", "STS.64", "LDG.E.EF.128", "LDG.E.U16.CONSTANT"]
    assert kernel.stores() == {128: 1, 32: 1, 8: 1}
    assert kernel.loads() == {128: 1, 16: 1} and kernel.loads("EF") == {128: 1}
    assert not kernel.not_global()
    kernel.code.append("LDL.LU")
    assert kernel.not_global() == {"LDL.LU"}


def test_the_main_path_is_the_shorter_storing_loop_with_its_inner_loop_twice():
    kernel = helpers_sass.Kernel("sm_90a", "kernel", (), 32)
    kernel.code = ["MOV", "FMUL", "STG.E", "BRA", "SEL", "STG.E", "BRA", "FADD", "FADD", "BRA", "EXIT", "RET"]
    kernel.loops = [range(1, 4), range(1, 7), range(7, 10)]
    kernel.returns = 11
    assert kernel.main_path() == kernel.code[1:7] + kernel.code[1:4]
    kernel.loops = [range(7, 10)]
    assert kernel.main_path() == kernel.code[:11]


def test_a_split_is_found():
    allowed = {128: 2, 32: 1}
    assert not is_split(Counter({128: 8, 32: 4}), allowed)
    assert is_split(Counter({32: 36}), allowed)  # all of them
    assert is_split(Counter({128: 7, 32: 8}), allowed)  # one of them
    assert is_split(Counter({128: 7, 64: 2, 32: 3}), allowed)
    assert is_split(Counter({128: 8}), allowed)
