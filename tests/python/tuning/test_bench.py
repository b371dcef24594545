"""The bench of `tune`, as far as it runs without a GPU: the check of results, and how much memory inputs take."""

import pytest
import torch
from helpers_tuning import fake_layer

import amber_ext
from amber_ext.ops.choice.products import plan_key, problem_of
from amber_ext.tuning import bench as benches


def test_results_are_compared_up_to_rounding():
    torch.manual_seed(0)
    want = torch.randn(64, 64, dtype=torch.float64)
    y = want.to(torch.bfloat16)
    assert benches.difference(y, (want * (1 + 2**-8)).to(torch.bfloat16)) is None
    y[3, 5] += 1
    y[4, 5] = float("nan")
    assert benches.difference(y, want.to(torch.bfloat16)) == "2 of 4096 values are not those of masked dense"


@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.int8])
def test_the_real_bench_checks_kernels(weight_dtype):
    """On the CPU: that of masked dense itself, one that computes something else, and one that is not there."""
    weight = torch.empty(32, 64, dtype=weight_dtype)
    key = plan_key(torch.bfloat16, 64, weight, True, amber_ext.Pattern("8:16"), "none", "auto", False)
    bench = benches.DeviceBench()
    assert bench.check(problem_of(*key), "masked_dense", 33) is None
    assert "values are not those of masked dense" in bench.check(problem_of(*key), "dense", 33)
    assert "it failed: kernels: 'sm90_a'" in bench.check(problem_of(*key), "sm90_a", 33)


def test_inputs_go_past_l2(gpu):
    for n, tokens in ((1024, 1), (14336, 8192)):
        key = fake_layer(n=n).prefill_key(torch.bfloat16)
        copies = benches.copies_past_l2(problem_of(*key), tokens, gpu.l2_mb)
        bytes_of_one = 2048 * 2 * (n + tokens)
        assert copies >= 2 and copies * bytes_of_one > 2 * gpu.l2_mb * 2**20
