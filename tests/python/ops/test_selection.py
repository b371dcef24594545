"""nm_mask and nm_prune: the op against the reference, the reference against a sort in numpy."""

import os
import time
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import awkward

import amber_ext
from amber_ext import Pattern
from amber_ext.ops import reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


PATTERNS = ["2:4", "4:8", "8:16", "1:2", "1:4", "3:4", "16:32", "10:16", "3:5", "7:30", "1:1", "4:4", "1:32"]


WINDOWED = ["10:16w", "12:16w"]


@cache
def sets_that_fit(n):
    """All unions of at most two columns from each window, as bit masks."""
    windows = [range(q, q + 4) for q in (0, 4, 8, 12)] + [
        range(c, 16, 4) for c in ((3,) if n == 10 else (3, 2))
    ]
    sets = {0}
    for window in windows:
        choices = [sum(1 << c for c in chosen) for size in range(3) for chosen in combinations(window, size)]
        sets = {s | choice for s in sets for choice in choices if not s & choice}
    return frozenset(sets)


def sorted_mask(x, pattern, scale=None):
    """By a stable sort per group, in numpy and fp32."""
    score = np.abs(x.float().numpy())
    if scale is not None:
        score = score * scale.numpy()
    groups = score.reshape(-1, pattern.m)
    # NaN first, then by descending score; a stable sort keeps the lower index on ties.
    descending = np.where(np.isnan(groups), -np.inf, -groups)
    order = np.lexsort(
        (np.arange(pattern.m)[None].repeat(len(groups), 0), descending, ~np.isnan(groups)), axis=1
    )
    mask = np.zeros(groups.shape, bool)
    if pattern.windowed:
        for row, columns in enumerate(order.tolist()):
            kept = 0
            for column in columns:
                if kept | 1 << column in sets_that_fit(pattern.n):
                    kept |= 1 << column
                    mask[row, column] = True
    else:
        np.put_along_axis(mask, order[:, : pattern.n], True, 1)
    return torch.from_numpy(mask.reshape(score.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", PATTERNS + WINDOWED)
def test_mask_op_reference_and_sort_agree(text, dtype):
    pattern = Pattern(text)
    for groups in (1, 2, 7, 33):
        x = awkward((6, groups * pattern.m), dtype, seed=groups)
        scale = torch.rand(x.shape[-1], generator=torch.Generator().manual_seed(groups)) + 0.1
        for c in (None, scale):
            expected = sorted_mask(x, pattern, c)
            assert torch.equal(reference.nm_mask(x, pattern, c), expected)
            assert torch.equal(amber_ext.nm_mask(x, text, c, backend="cpu"), expected)


@settings(max_examples=200, deadline=None)
@given(
    m=st.integers(1, 32),
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    lead=st.lists(st.integers(0, 4), max_size=3),
    groups=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
def test_any_pattern_and_shape(m, data, dtype, lead, groups, seed):
    pattern = Pattern(f"{data.draw(st.integers(1, m))}:{m}")
    x = awkward((*lead, groups * m), dtype, seed)
    mask = amber_ext.nm_mask(x, pattern, backend="cpu")
    assert mask.shape == x.shape and mask.dtype == torch.bool
    assert torch.equal(mask, reference.nm_mask(x, pattern))
    assert (mask.unflatten(-1, (groups, m)).sum(-1) == pattern.n).all()


@settings(max_examples=50, deadline=None)
@given(
    text=st.sampled_from(WINDOWED),
    dtype=st.sampled_from(DTYPES),
    lead=st.lists(st.integers(0, 4), max_size=3),
    groups=st.integers(0, 40),
    seed=st.integers(0, 2**31),
)
def test_windowed_patterns_and_shapes(text, dtype, lead, groups, seed):
    x = awkward((*lead, groups * 16), dtype, seed)
    mask = amber_ext.nm_mask(x, text, backend="cpu")
    assert mask.shape == x.shape
    assert torch.equal(mask, reference.nm_mask(x, Pattern(text)))
    assert (mask.unflatten(-1, (groups, 16)).sum(-1) == Pattern(text).n).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rescale", ["none", "variance"])
@pytest.mark.parametrize("text", ["2:4", "4:8", "8:16", "3:5", "16:32", *WINDOWED])
def test_prune_op_equals_reference(text, dtype, rescale):
    pattern = Pattern(text)
    x = torch.randn(9, pattern.m * 21, generator=torch.Generator().manual_seed(1)).to(dtype) * 3 + 0.5
    scale = torch.rand(x.shape[-1]) + 0.1
    got = amber_ext.nm_prune(x, text, scale, rescale, backend="cpu")
    want = reference.nm_prune(x, pattern, scale, rescale)
    # The variances are summed in another order, in fp64: at most the last bit of a product differs.
    assert torch.allclose(got.float(), want.float(), rtol=torch.finfo(dtype).eps, atol=0)
    assert torch.equal(got != 0, want != 0)
    if rescale == "none":
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_rescale_restores_the_variance(backend):
    x = torch.randn(5, 512, dtype=torch.float32)
    pruned = amber_ext.nm_prune(x, "2:4", rescale="variance", backend=backend)
    assert torch.allclose(pruned.var(-1, correction=0), x.var(-1, correction=0), rtol=1e-5)


def threads_that_work(function):
    """How many of this process's threads spend time on it, at least a tenth of the busiest one's."""
    tasks = Path("/proc/self/task")
    if not (tasks / str(os.getpid()) / "schedstat").is_file():
        pytest.skip("this system does not tell how long each thread ran (/proc/self/task/*/schedstat)")

    def spent():
        return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()}

    function()  # threads start
    time.sleep(0.2)  # ... and stop spinning for more work
    before = spent()
    for _ in range(10):
        function()
    times = [after - before.get(task, 0) for task, after in spent().items()]
    return sum(time > max(times) / 10 for time in times)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_many_rows_use_every_thread_and_agree(threads):
    x = torch.randn(4097, 4 * 128, dtype=torch.bfloat16)
    assert torch.equal(amber_ext.nm_mask(x, "2:4", backend="cpu"), reference.nm_mask(x, Pattern("2:4")))
    assert threads_that_work(lambda: amber_ext.nm_mask(x, "2:4", backend="cpu")) == threads


def test_host_core_compresses_what_nm_prune_keeps():
    ops = torch.ops.amber
    x = awkward((70, 256), torch.bfloat16)
    mask = amber_ext.nm_mask(x, "2:4")
    for layout in ("sm80", "sm90"):
        values, metadata = ops.compress_2_4(x, mask, layout)
        assert values.shape == (70, 128)
        back = ops.decompress_2_4(values, metadata, layout)
        want = amber_ext.nm_prune(x, "2:4")
        assert torch.equal(back.view(torch.int16), want.view(torch.int16))
    with pytest.raises(RuntimeError, match="'sm70' is not known; allowed: 'sm80', 'sm90'"):
        ops.compress_2_4(x, mask, "sm70")
    with pytest.raises(RuntimeError, match="exactly 2 of every 4"):
        ops.compress_2_4(x, torch.ones_like(mask), "sm80")
    with pytest.raises(
        RuntimeError, match=r"mask: Bool \[70, 4\] is not allowed; it must be Bool \[70, 256\]"
    ):
        ops.compress_2_4(x, mask[:, :4], "sm80")
    with pytest.raises(RuntimeError, match="extra: 3 is not allowed; it must be 0, 1 or 2"):
        ops.widen(x, mask, 3)
    with pytest.raises(RuntimeError, match=r"metadata: Byte \[1\] is not allowed; it must be Byte \[4096\]"):
        ops.decompress_2_4(x[:, :128], torch.zeros(1, dtype=torch.uint8), "sm90")


# ---- random cases; AMBER_FUZZ_CASES=1000000 AMBER_FUZZ_SEED=1 pytest -k random_cases for a long run

FUZZ_CASES, FUZZ_SEED = (
    int(os.environ.get("AMBER_FUZZ_CASES", 2000)),
    int(os.environ.get("AMBER_FUZZ_SEED", 0)),
)


def random_case(index):
    """x, pattern, scale, and whether the thread flushes subnormal numbers; each number gives one case."""
    rng = np.random.default_rng([FUZZ_SEED, index])
    m = int(rng.choice([2, 4, 8, 16, 32, rng.integers(1, 33)]))
    pattern = f"{rng.integers(1, m + 1)}:{m}"
    if rng.random() < 0.2:
        m, pattern = 16, str(rng.choice(["10:16w", "12:16w"]))
    dtype = DTYPES[rng.integers(3)]
    shape = (int(rng.integers(0, 5)), m * int(rng.integers(0, 9)))
    kind = rng.integers(4)
    if kind == 0:  # any bits: NaN of every payload, Inf, subnormal numbers
        bits = torch.from_numpy(rng.integers(-(2**31), 2**31, shape))
        x = bits.to(torch.int32 if dtype == torch.float32 else torch.int16).view(dtype)
    elif kind == 1:  # many ties
        x = torch.from_numpy(rng.integers(-3, 4, shape).astype(np.float32)).to(dtype)
    else:  # numbers of one size, subnormal ones too
        size = 10.0 ** (rng.integers(-45, 4) if kind == 2 else 0)
        x = torch.from_numpy(rng.standard_normal(shape) * size).to(dtype)
    scale = None
    if rng.random() < 0.7:
        size = 10.0 ** rng.integers(-40, 38) if rng.random() < 0.3 else 1.0
        scale = torch.from_numpy((rng.random(shape[1]) + 0.1) * size).float()
    return x, pattern, scale, rng.random() < 0.125


def check_case(index):
    x, pattern, scale, flushes = random_case(index)
    torch.set_flush_denormal(flushes)
    try:
        mask = amber_ext.nm_mask(x, pattern, scale, backend="cpu")
        want = reference.nm_mask(x, Pattern(pattern), scale)
        pruned = amber_ext.nm_prune(x, pattern, scale, backend="cpu")
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(mask, want), index
    if index % 8 == 0:  # the third one takes longest
        assert torch.equal(mask, sorted_mask(x, Pattern(pattern), scale)), index
    bits = torch.int32 if x.dtype == torch.float32 else torch.int16
    assert torch.equal(pruned.view(bits), x.view(bits).masked_fill(~mask, 0)), index


def test_random_cases():
    for index in range(FUZZ_CASES):
        check_case(index)
