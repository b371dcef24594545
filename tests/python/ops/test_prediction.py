"""The heuristic: what it predicts for GPUs that are not here, and that it agrees with public figures."""

import dataclasses
import itertools
import json
import re
import sys

import pytest
import torch
from helpers import REPOSITORY

from amber_ext.ops import sparse_gemms
from amber_ext.ops.choice import devices, prediction
from amber_ext.ops.choice.measured import Entry
from amber_ext.ops.choice.plan import Times
from amber_ext.ops.choice.products import decide, plan_product
from amber_ext.ops.sparse_gemms import SparseGemm, refusal

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from predictions import predict  # noqa: E402

DATA = json.loads((REPOSITORY / "benchmarks" / "results" / "predicted.json").read_text())
GEMMS = [SparseGemm.from_dict(fields) for fields in DATA["kernels"]]


def test_the_results_file_is_what_is_predicted():
    """Else: run benchmarks/predictions/predict.py and benchmarks/report.py."""
    now = json.loads(json.dumps(predict.predictions(GEMMS)))
    assert {name: DATA[name] for name in now} == now
    if sparse_gemms.SPARSE_GEMMS:
        assert {gemm.name for gemm in sparse_gemms.SPARSE_GEMMS} <= {gemm.name for gemm in GEMMS}


def test_every_device_shape_and_number_of_tokens_is_in_it():
    cells = {(row["device"], row["shape"], count) for row in DATA["rows"] for count in row["tokens"]}
    assert len(cells) == 9 * 6 * 15
    assert all(ms > 0 and dense > 0 for row in DATA["rows"] for _, ms, dense in row["tokens"].values())


@pytest.mark.parametrize(
    "row", DATA["public"], ids=lambda row: f"{row['device']} {row['dtype']} {row['columns']}"
)
def test_ratios_agree_with_public_figures_within_15_percent(row):
    assert min(row["predicted"]) >= 0.85 * row["least"] and max(row["predicted"]) <= 1.15 * row["largest"]
    middle = (row["least"] + row["largest"]) / 2
    assert all(abs(ratio / middle - 1) <= 0.15 for ratio in row["predicted"])


def test_only_kernels_of_the_gpus_own_architecture_are_chosen():
    for row in DATA["rows"]:
        kernels = {kernel for kernel, _, _ in row["tokens"].values()}
        arch = predict.device(row["device"]).arch
        assert kernels <= {"masked_dense", *(gemm.name for gemm in GEMMS if arch in gemm.capabilities)}


@pytest.mark.parametrize("name", ["RTX 3090", "RTX 4090", "RTX 5090", "A100", "H100", "H20", "H200"])
def test_with_many_tokens_the_sparse_path_wins_and_with_one_the_weight_is_read_once(name):
    for row in DATA["rows"]:
        if row["device"] == name:
            kernel, ms, dense = row["tokens"]["8192"]
            assert kernel != "masked_dense" and ms < dense
            _, ms, dense = row["tokens"]["1"]
            assert ms < 1.5 * dense + 0.01


@pytest.mark.parametrize("device", devices.KNOWN, ids=lambda device: device.name)
def test_a_chosen_kernel_is_no_slower_than_the_others_by_more_than_the_margin(device):
    for _, n, k in predict.SHAPES:
        for dtype in ("bfloat16", "int8", "float8_e4m3fn"):
            problem = predict.problem(device, n, k, dtype)
            times = Times(device, problem, tuple(g for g in GEMMS if refusal(g, problem) is None), None, "")
            plan = times.plan()
            for tokens in predict.TOKENS:
                known, source = times.at(tokens)
                if not known:
                    assert plan.kernels == ("masked_dense",)
                    continue
                least = min(ms for kernel, ms in known.items() if kernel != "dense")
                assert source == "predicted" and known[plan.kernel(tokens)] <= least * 1.0501


def test_every_build_has_what_the_heuristic_ranks_first_and_nothing_else():
    """KERNEL in the library's list, against TUNING, which is compiled where AMBER_KERNELS=all."""
    text = (REPOSITORY / "csrc" / "amber" / "cuda" / "sparse_gemm" / "list.h").read_text()
    listed = re.findall(r"(KERNEL|TUNING)\((sm\w+)\)", text)
    assert [name for _, name in listed] == [gemm.name for gemm in GEMMS]
    planned, first = set(), set()
    dtypes = itertools.product((torch.bfloat16, torch.float16), ("16-bit", "int8", "float8_e4m3fn"))
    for (dtype, operands), device, (_, n, k) in itertools.product(dtypes, devices.KNOWN, predict.SHAPES):
        weights = str(dtype).removeprefix("torch.") if operands == "16-bit" else operands
        problem = dataclasses.replace(predict.problem(device, n, k, weights), dtype=dtype)
        gemms = tuple(gemm for gemm in GEMMS if refusal(gemm, problem) is None)
        times = Times(device, problem, gemms, None, "")
        planned |= set(times.plan().kernels)
        for tokens in predict.TOKENS if gemms else ():
            known = prediction.times(device, problem, gemms, tokens)
            first.add(min((gemm.name for gemm in gemms), key=known.__getitem__))
    assert planned - {"masked_dense"} <= first
    assert first == {name for kind, name in listed if kind == "KERNEL"}


def test_kernels_that_have_run_nowhere_wait_for_tune(fake_gpu):
    def decided(*entries, tokens=8192):
        fake_gpu("B200", 100, GEMMS, entries)
        problem = predict.problem(predict.device("B200"), 14336, 4096)
        return decide(problem, plan_product(problem), tokens)

    waiting = decided()
    assert (waiting.kernel, waiting.source) == ("masked_dense", "predicted")
    assert "'sm100_bf16_128x256x128_2x1' and the like have run nowhere yet; amber_ext.tune" in waiting.reason
    ms = {"masked_dense": 2.0, "dense": 2.0, "sm100_bf16_128x256x128_2x1": 1.0}
    entry = Entry(14336, 4096, "2:4", "bfloat16", {8192: ms})
    won = decided(entry)
    assert (won.kernel, won.source) == ("sm100_bf16_128x256x128_2x1", "measured")
    assert decided(entry, tokens=1).source == "predicted"  # by then it may be predicted, too


def test_time_grows_with_tokens():
    device = predict.device("H100")
    for _, n, k in predict.SHAPES:
        problem = predict.problem(device, n, k)
        times = [prediction.times(device, problem, GEMMS[:1], tokens) for tokens in (1, 100, 1000, 10000)]
        for name in times[0]:
            assert sorted(t[name] for t in times) == [t[name] for t in times]


@pytest.mark.parametrize(
    "name, arch, multiprocessors, like",
    [
        ("NVIDIA H200", 90, 132, "H200"),
        ("NVIDIA H20", 90, 78, "H20"),
        ("NVIDIA GeForce RTX 4090", 89, 128, "RTX 4090"),
        ("NVIDIA L4", 89, 58, "RTX 4090"),
        ("NVIDIA A10", 86, 72, "RTX 3090"),
        ("NVIDIA H100 PCIe", 90, 114, "H100"),
        ("NVIDIA Something", 130, 10, "GB10"),
    ],
)
def test_a_gpu_that_is_not_known_is_described_by_a_near_one(name, arch, multiprocessors, like):
    found, known = devices.describe(name, arch, multiprocessors), predict.device(like)
    assert (found.name, found.arch, found.multiprocessors) == (name, arch, multiprocessors)
    assert (found.half, found.clock_ghz, found.l2_mb) == (known.half, known.clock_ghz, known.l2_mb)


def test_peak_rates_are_those_of_the_data_sheets():
    """Dense TFLOPS of bf16 with fp32 sums, and TOPS of int8."""
    sheets = {"A100": (312, 624), "RTX 3090": (71, 284), "RTX 4090": (165, 660), "RTX 5090": (209, 838),
              "H100": (989, 1979), "H20": (148, 296), "H200": (989, 1979), "B200": (2250, 4500)}  # fmt: skip
    for name, (half, int8) in sheets.items():
        device = predict.device(name)
        assert device.rate("16-bit") * device.multiprocessors / 1e12 == pytest.approx(half, rel=0.02)
        assert device.rate("int8") * device.multiprocessors / 1e12 == pytest.approx(int8, rel=0.02)


def test_what_tensor_cores_do_not_take_is_not_predicted():
    problem = predict.problem(predict.device("A100"), 64, 64, "float8_e4m3fn")
    assert prediction.times(predict.device("A100"), problem, (), 8) is None
    assert predict.device("H100").rate("32-bit") == 0
    assert torch.float32 not in (problem.dtype, problem.weight_dtype)
