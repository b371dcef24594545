"""The ops on a GPU; skipped with a reason where there is none or the build has no CUDA kernels."""

import pytest
import torch
import torch.nn.functional as F

import amber_ext
from amber_ext import AmberConfig, AmberLinear, Pattern, sparsify_
from amber_ext.ops import library, reference


def _reason():
    if library.LOAD_ERROR is not None:
        return f"the op library is {library.LOAD_ERROR}"
    if "cuda" not in library.DEVICES:
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
@pytest.mark.parametrize("text", ["2:4", "4:8", "8:16", "3:5", "16:32", "1:1", "10:16w", "12:16w"])
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


def exact(x, weight, bias, scale, pattern="2:4"):
    kept = x.double() * reference.nm_mask(x, Pattern(pattern), scale)
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


WINDOWED = ["4:8", "8:16", "10:16w", "12:16w"]


@pytest.mark.parametrize("dtype", sparse_dtypes())
@pytest.mark.parametrize("tokens", [1, 65, 1000])
@pytest.mark.parametrize("pattern", WINDOWED)
def test_windowed_sparse_gemm_against_fp64(pattern, tokens, dtype):
    torch.manual_seed(tokens)
    for k in (448, 1024):  # with padding to K', and without
        x = torch.randn(tokens, k, device="cuda", dtype=dtype)
        weight = torch.randn(264, k, device="cuda", dtype=dtype)
        scale = torch.rand(k, device="cuda") + 0.1
        wide = amber_ext.widen_weight(weight, pattern)
        got = amber_ext.linear(x, wide, pattern=pattern, scale=scale, backend="cutlass")
        want, magnitude = exact(x, weight, None, scale, pattern)
        bound = magnitude * k * 2**-23 + want.abs() * torch.finfo(dtype).eps
        assert ((got.double() - want).abs() <= bound).all()
        masked_dense = amber_ext.linear(x, wide, pattern=pattern, scale=scale, backend="cuda")
        assert ((masked_dense.double() - want).abs() <= bound).all()


@pytest.mark.parametrize("quantized", ["int8", "e4m3"])
@pytest.mark.parametrize("pattern", WINDOWED)
def test_windowed_w8a8_equals_the_reference(pattern, quantized):
    x, weight, weight_scale, bias, factors = w8a8_operands(130, 512, 272, quantized)
    options = {"pattern": pattern, **factors, "rescale": "variance"}
    want = amber_ext.linear_w8a8(x, weight, weight_scale, bias, **options, backend="reference").float()
    wide = amber_ext.widen_weight(weight, pattern)
    for backend in ("cutlass", "cuda"):
        got = amber_ext.linear_w8a8(x, wide, weight_scale, bias, **options, backend=backend)
        atol = 0.02 * want.nan_to_num().abs().max().item() * (quantized == "e4m3") + 1e-3
        rtol = 2 * torch.finfo(x.dtype).eps if quantized == "int8" else 0.02
        torch.testing.assert_close(got.float(), want, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("pattern", WINDOWED)
def test_layers_keep_copies_on_the_gpu(pattern):
    dense = torch.nn.Linear(512, 256, dtype=torch.bfloat16)
    layer = AmberLinear.from_linear(dense, pattern, backend="cutlass")
    assert layer.wide_weight is None
    layer.cuda()
    assert layer.wide_weight.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()
    x = torch.randn(70, 512, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        want = amber_ext.linear(
            x,
            layer.weight.contiguous(),
            layer.bias,
            pattern=pattern,
            scale=layer.channel_scale,
            backend="cuda",
        )
        torch.testing.assert_close(layer(x), want)
        with amber_ext.decode():
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight.contiguous(), layer.bias))
    layer.cpu()
    assert layer.wide_weight is None


def test_shapes_that_a_sparse_gemm_refuses():
    x = torch.randn(4, 512, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(250, 512, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="N = 250 is not a multiple of 8"):
        amber_ext.linear(x, weight, pattern="2:4", backend="cutlass")
    weight = torch.randn(256, 512, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="has no copies for the windows of 4:8"):
        amber_ext.linear(x, weight, pattern="4:8", backend="cutlass")
    with pytest.raises(
        RuntimeError, match="pattern: '1:4' does not run on a sparse GEMM; allowed: '2:4', '4:8'"
    ):
        amber_ext.linear(x, weight, pattern="1:4", backend="cutlass")
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
    torch.library.opcheck(torch.ops.amber.nm_mask.default, (x, None, "2:4"))
    torch.library.opcheck(torch.ops.amber.nm_prune.default, (x, None, "4:8", "none"))
    for kernel in ("masked_dense", "sparse_gemm"):
        torch.library.opcheck(torch.ops.amber.linear.default, (x, weight, None, None, "2:4", "none", kernel))


def w8a8_operands(tokens, k, n, quantized, dtype=torch.bfloat16):
    torch.manual_seed(tokens)
    x = torch.randn(tokens, k, device="cuda", dtype=dtype)
    if tokens > 4:
        x[1], x[2, 3], x[3, 5] = 0, float("nan"), float("inf")
    weight, weight_scale = amber_ext.quantize_weight(torch.randn(n, k, device="cuda", dtype=dtype), quantized)
    factors = {"scale": torch.rand(k, device="cuda") + 0.1, "smooth": torch.rand(k, device="cuda") + 0.1}
    return x, weight, weight_scale, torch.randn(n, device="cuda", dtype=dtype), factors


@pytest.mark.parametrize("quantized", ["int8", "e4m3"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pattern", ["1:1", "2:4", "8:16"])
def test_quantised_activations_equal_the_reference(pattern, dtype, quantized):
    x, _, _, _, factors = w8a8_operands(33, 4096, 8, quantized, dtype)
    for options in ({}, factors, {**factors, "rescale": "variance"}):
        got = amber_ext.quantize_activations(x, pattern, **options, dtype=quantized, backend="cuda")
        want = amber_ext.quantize_activations(x, pattern, **options, dtype=quantized, backend="reference")
        assert torch.equal(got[0].view(torch.int8), want[0].view(torch.int8))
        torch.testing.assert_close(got[1], want[1], rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize("rescale", ["none", "variance"])
@pytest.mark.parametrize("dtype", sparse_dtypes())
@pytest.mark.parametrize("quantized", ["int8", "e4m3"])
@pytest.mark.parametrize("tokens", [1, 5, 16, 17, 65, 4097])
def test_w8a8_linear_equals_the_reference(tokens, quantized, dtype, rescale):
    x, weight, weight_scale, bias, factors = w8a8_operands(tokens, 512, 272, quantized, dtype)
    for pattern, backends in (("1:1", ["cuda"]), ("2:4", ["cuda", "cutlass"]), ("8:16", ["cuda"])):
        options = {"pattern": pattern, **factors, "rescale": rescale}
        want = amber_ext.linear_w8a8(x, weight, weight_scale, bias, **options, backend="reference")
        for backend in backends:
            got = amber_ext.linear_w8a8(x, weight, weight_scale, bias, **options, backend=backend)
            # int8 products are exact: at most the last bit of the output differs.
            tolerance = 2 * torch.finfo(dtype).eps if quantized == "int8" else 0.02
            torch.testing.assert_close(
                got.float(),
                want.float(),
                rtol=tolerance,
                atol=0.02 * want.nan_to_num().abs().max().item() * (quantized == "e4m3") + 1e-3,
                equal_nan=True,
            )


def test_w8a8_refusals():
    x, weight, weight_scale, _, _ = w8a8_operands(4, 512, 272, "int8")
    with pytest.raises(ValueError, match="has no copies for the windows of 4:8"):
        amber_ext.linear_w8a8(x, weight, weight_scale, pattern="4:8", backend="cutlass")
    with pytest.raises(RuntimeError, match="pattern: '1:4' does not run on a sparse GEMM"):
        amber_ext.linear_w8a8(x, weight, weight_scale, pattern="1:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="N and K to be multiples of 8"):
        amber_ext.linear_w8a8(x, weight[:250].contiguous(), weight_scale[:250], backend="cuda")
    with pytest.raises(RuntimeError, match="not in this build"):
        amber_ext.linear_w8a8(x.float(), weight, weight_scale, pattern="2:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="does not take int8 operands"):
        torch.ops.amber.sparse_linear_w8a8(x, weight, weight_scale, None, None, None, "2:4", "none", "sm90_bf16_128x256x128_2x1_cooperative")  # fmt: skip


@pytest.mark.parametrize("backend", ["cuda", "cutlass"])
def test_w8a8_graph_replay_with_new_inputs(backend):
    x = torch.randn(130, 512, device="cuda", dtype=torch.bfloat16)
    factor = torch.rand(512) + 0.5
    linear = torch.nn.Linear(512, 256)
    layer = amber_ext.QuantizedLinear.from_linear(linear, factor, pattern="2:4", backend=backend)
    layer = layer.cuda().bfloat16()
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


def test_a_quantised_model_on_the_gpu(tiny_llama):
    tokens = torch.randint(3, 97, (2, 40))
    amber_ext.quantize_(tiny_llama, amber_ext.OutstandingSparseConfig(), [tokens])
    with torch.inference_mode():
        want = tiny_llama(tokens).logits
        got = tiny_llama.cuda()(tokens.cuda()).logits.cpu()
    # Attention rounds differently, which may move a value across a rounding limit.
    assert (got - want).norm() < 0.02 * want.norm()
