"""The ops on a GPU; skipped with a reason where there is none or the build has no CUDA kernels."""

import pytest
import torch
import torch.nn.functional as F

import amber_ext
from amber_ext import AmberConfig, AmberLinear, Pattern, ops, reference, sparsify_


def _reason():
    if ops.LOAD_ERROR is not None:
        return f"the op library is {ops.LOAD_ERROR}"
    if "cuda" not in ops.DEVICES:
        return "the op library was built without CUDA kernels"
    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    return None


pytestmark = pytest.mark.skipif(_reason() is not None, reason=str(_reason()))
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def awkward(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    specials = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0])
    pick = torch.randint(0, 2 * len(specials), x.shape, generator=generator)
    return torch.where(pick < len(specials), specials[pick % len(specials)], x).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", ["2:4", "4:8", "8:16", "3:5", "16:32", "1:1"])
def test_masks_and_pruned_copies_equal_the_reference(text, dtype):
    pattern = Pattern(text)
    for shape in ((pattern.m,), (3, 65, pattern.m * 17), (0, pattern.m), (129, pattern.m * 256)):
        x = awkward(shape, dtype, len(shape))
        scale = torch.rand(shape[-1]) + 0.1
        for c in (None, scale):
            device_c = None if c is None else c.cuda()
            assert torch.equal(
                amber_ext.nm_mask(x.cuda(), text, device_c, backend="cuda").cpu(),
                reference.nm_mask(x, pattern, c),
            )
            got = amber_ext.nm_prune(x.cuda(), text, device_c, backend="cuda").cpu()
            assert torch.equal(got.nan_to_num(7), reference.nm_prune(x, pattern, c).nan_to_num(7))


def test_rescale_and_non_contiguous_input():
    x = torch.randn(9, 64, 33, device="cuda").transpose(1, 2)
    got = amber_ext.nm_prune(x, "4:8", rescale="variance", backend="cuda")
    want = reference.nm_prune(x.contiguous(), Pattern("4:8"), rescale="variance")
    assert torch.allclose(got, want, rtol=1e-6)


def exact(x, weight, bias, scale):
    kept = x.double() * reference.nm_mask(x, Pattern("2:4"), scale)
    result = F.linear(kept, weight.double(), None if bias is None else bias.double())
    return result, F.linear(kept.abs(), weight.double().abs()) + 1


def sparse_dtypes():
    return [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", sparse_dtypes())
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 127, 4097])
@pytest.mark.parametrize("with_bias", [False, True])
def test_sparse_gemm_against_fp64(tokens, dtype, with_bias):
    torch.manual_seed(tokens)
    k, n = 512, 264
    x, weight = (
        torch.randn(tokens, k, device="cuda", dtype=dtype),
        torch.randn(n, k, device="cuda", dtype=dtype),
    )
    bias = torch.randn(n, device="cuda", dtype=dtype) if with_bias else None
    scale = torch.rand(k, device="cuda") + 0.1
    got = amber_ext.linear(x, weight, bias, pattern="2:4", scale=scale, backend="cutlass")
    want, magnitude = exact(x, weight, bias, scale)
    bound = magnitude * k * 2**-23 + want.abs() * torch.finfo(dtype).eps
    assert got.shape == want.shape and got.is_contiguous()
    assert ((got.double() - want).abs() <= bound).all()


def test_shapes_that_a_sparse_gemm_refuses():
    x = torch.randn(4, 512, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(250, 512, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="N = 250 is not a multiple of 8"):
        amber_ext.linear(x, weight, pattern="2:4", backend="cutlass")
    weight = torch.randn(256, 512, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="4:8 does not run on a sparse GEMM; allowed: 2:4"):
        amber_ext.linear(x, weight, pattern="4:8", backend="cutlass")
    with pytest.raises(RuntimeError, match="rescale: 'variance' does not run on a sparse GEMM"):
        amber_ext.linear(x, weight, pattern="2:4", rescale="variance", backend="cutlass")
    with pytest.raises(RuntimeError, match="not in this build"):
        amber_ext.linear(x.float(), weight.float(), pattern="2:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="weight: it must be contiguous"):
        amber_ext.linear(x, weight.t().contiguous().t(), pattern="2:4", backend="cutlass")


def test_empty_misaligned_and_leading_shapes():
    weight = torch.randn(256, 512, device="cuda", dtype=torch.bfloat16)
    assert amber_ext.linear(weight[:0], weight, pattern="2:4", backend="cutlass").shape == (0, 256)
    x = torch.randn(2 * 3 * 512 + 1, device="cuda", dtype=torch.bfloat16)[1:].view(2, 3, 512)
    got = amber_ext.linear(x, weight, pattern="2:4", backend="cutlass")
    want = amber_ext.linear(x.clone().view(6, 512), weight, pattern="2:4", backend="cutlass")
    assert torch.equal(got, want.view(2, 3, 256))


def test_memory_and_no_synchronisation():
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    scale = torch.rand(4096, device="cuda") + 0.5
    amber_ext.linear(x, weight, pattern="2:4", scale=scale, backend="cutlass")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = amber_ext.linear(x, weight, pattern="2:4", scale=scale, backend="cutlass")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    extra = torch.cuda.max_memory_allocated() - before - y.untyped_storage().nbytes()
    assert extra <= 0.6 * x.nbytes


@pytest.mark.parametrize("backend", ["cuda", "cutlass"])
def test_graph_replay_with_new_inputs_on_a_side_stream(backend):
    x = torch.randn(130, 512, device="cuda", dtype=torch.bfloat16)
    layer = AmberLinear.from_linear(torch.nn.Linear(512, 256), "2:4", backend=backend).cuda().bfloat16()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        layer(x)  # kernels load lazily
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            y = layer(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(y, layer(x))
    torch.cuda.synchronize()


def test_a_pruned_model_on_the_gpu(tiny_llama):
    tokens = torch.randint(3, 97, (2, 40), device="cuda")
    model = tiny_llama.cuda()
    with torch.inference_mode():
        sparsify_(model, AmberConfig(backend="reference"))
        want = model(tokens).logits
        sparsify_(model, AmberConfig(backend="auto"))
        assert torch.allclose(model(tokens).logits, want, atol=1e-4)


def test_opcheck():
    x = torch.randn(3, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(8, 64, device="cuda", dtype=torch.bfloat16)
    torch.library.opcheck(torch.ops.amber.nm_mask.default, (x, None, 2, 4))
    torch.library.opcheck(torch.ops.amber.nm_prune.default, (x, None, 4, 8, "none"))
    for kernel in ("masked_dense", "sparse_gemm"):
        torch.library.opcheck(torch.ops.amber.linear.default, (x, weight, None, None, 2, 4, "none", kernel))
