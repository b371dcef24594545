"""Window layouts, widened weights, and layers that keep them. No GPU needed."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F

import amber_ext
from amber_ext import (
    AmberConfig,
    AmberLinear,
    Pattern,
    QuantizedLinear,
    densify_,
    sparsify_,
    widen_weight,
)
from amber_ext.layers import pruned_linear, quantized_linear
from amber_ext.ops import reference
from amber_ext.ops.pattern import extra_windows, fitting_sets, widened_features

WINDOWED = ["4:8", "8:16", "10:16w", "12:16w"]
introspect = pytest.importorskip("amber_ext._introspect", reason="amber_ext was not built")


def test_every_4_8_and_8_16_mask_fits():
    sets = torch.arange(1 << 16)
    kept = sum((sets >> i) & 1 for i in range(16))
    low = sum((sets >> i) & 1 for i in range(8))
    assert (kept == 8).sum() == 12870 and fitting_sets(2)[kept == 8].all()
    assert ((kept == 8) & (low == 4)).sum() == 70 * 70
    for extra in (0, 1, 2):
        assert kept[fitting_sets(extra)].max() == 8 + 2 * extra
    # No extra windows: two of each quad.
    quads = [sum((sets >> i) & 1 for i in range(q, q + 4)) <= 2 for q in (0, 4, 8, 12)]
    assert torch.equal(fitting_sets(0), torch.stack(quads).all(0))


@pytest.mark.parametrize("text", ["10:16w", "12:16w"])
def test_greedy_keeps_the_largest_possible_sum(text):
    pattern = Pattern(text)
    x = torch.rand(200, 16, generator=torch.Generator().manual_seed(3))
    sets = torch.arange(1 << 16)[fitting_sets(extra_windows(pattern))]
    members = ((sets[:, None] >> torch.arange(16)) & 1).float()
    best = (x @ members.t()).amax(-1)
    for mask in (reference.nm_mask(x, pattern), amber_ext.nm_mask(x, text, backend="cpu")):
        assert torch.allclose((x * mask).sum(-1), best)


@pytest.mark.parametrize("in_features", [16, 48, 512, 576, 1536])
@pytest.mark.parametrize("text", [*WINDOWED, "2:4"])
def test_widened_weights(text, in_features):
    weight = torch.randn(5, in_features)
    wide = widen_weight(weight, text)
    assert wide.shape[1] == widened_features(in_features, Pattern(text)) and wide.is_contiguous()
    assert torch.equal(wide[:, :in_features], weight)
    extra = extra_windows(Pattern(text))
    if extra:
        assert wide.shape[1] % 128 == 0
        padded = F.pad(weight, (0, wide.shape[1] * 4 // (4 + extra) - in_features))
        for column in range(padded.shape[1], wide.shape[1]):
            group, place = divmod(column - padded.shape[1], 4 * extra)
            source = 16 * group + 4 * (place % 4) + (3, 2)[place // 4]
            assert torch.equal(wide[:, column], padded[:, source])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.float8_e4m3fn])
def test_widened_weights_of_any_dtype(dtype):
    weight = torch.randint(-8, 9, (5, 48)).to(dtype)
    wide = widen_weight(weight, "12:16w")
    assert wide.dtype == dtype
    assert torch.equal(wide.float(), widen_weight(weight.float(), "12:16w"))


def test_widen_weight_refuses():
    with pytest.raises(ValueError, match="pattern: '10:16' does not run on 2:4 hardware; allowed: '2:4', "):
        widen_weight(torch.ones(4, 16), "10:16")
    for bad in (torch.ones(4, 24), torch.ones(16)):
        with pytest.raises(ValueError, match=r"weight: shape .* K a multiple of 16"):
            widen_weight(bad, "8:16")


def compressed_and_back(x, mask, extra, layout):
    """x [T, K] of 16-bit values as the sparse GEMM sees it: [T, K']."""
    bits = x.view(torch.int16).numpy().view("uint16")
    wide, wide_mask = introspect.widen(bits, mask.to(torch.uint8).numpy(), extra)
    values, metadata = introspect.compress_2_4(wide, wide_mask, layout)
    assert values.shape[1] * 2 == wide.shape[1]
    back = introspect.decompress_2_4(values, metadata, layout)
    return torch.from_numpy(back.view("int16")).view(x.dtype)


@pytest.mark.parametrize("layout", ["sm80", "sm90"])
@pytest.mark.parametrize("text", [*WINDOWED, "2:4"])
def test_the_compressed_product_is_the_masked_dense_one(text, layout):
    torch.manual_seed(0)
    extra = extra_windows(Pattern(text))
    x = torch.randint(-8, 9, (37, 576)).bfloat16()
    weight = torch.randint(-8, 9, (24, 576)).bfloat16()
    scale = torch.rand(576) + 0.1
    mask = amber_ext.nm_mask(x, text, scale, backend="cpu")
    wide_x, wide_weight = compressed_and_back(x, mask, extra, layout), widen_weight(weight, text)
    # Small integers: every product and sum is exact.
    want = (x * mask).long() @ weight.long().t()
    assert torch.equal(wide_x.long() @ wide_weight.long().t(), want)

    x, weight = torch.randn(37, 576).bfloat16(), torch.randn(24, 576).bfloat16()
    mask = amber_ext.nm_mask(x, text, scale, backend="cpu")
    wide_x = compressed_and_back(x, mask, extra, layout)
    got = F.linear(wide_x.float(), widen_weight(weight, text).float()).bfloat16()
    want = amber_ext.linear(x, weight, pattern=text, scale=scale, backend="cpu")
    bound = F.linear(x.float().abs(), weight.float().abs()) * 576 * 2**-23
    assert ((got.float() - want.float()).abs() <= bound + want.float().abs() * 2**-7).all()


def test_unused_slots_are_zero_and_minus_zero_survives():
    x = torch.full((1, 16), -0.0).bfloat16()
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, [3, 5, 6, 7]] = True
    back = compressed_and_back(x, mask, 2, "sm90").view(torch.int16)
    assert (back == -(2**15)).sum() == 4 and (back == 0).sum() == back.numel() - 4


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("text", WINDOWED)
def test_linear_takes_either_weight(text, backend):
    x, weight, bias = torch.randn(3, 96), torch.randn(8, 96), torch.randn(8)
    want = amber_ext.linear(x, weight, bias, pattern=text, backend=backend)
    got = amber_ext.linear(x, widen_weight(weight, text), bias, pattern=text, backend=backend)
    torch.testing.assert_close(got, want)
    with pytest.raises(
        ValueError, match=r"weight: shape \[8, 97\] .* K = 96, or \[N, \d+\] from widen_weight"
    ):
        amber_ext.linear(x, torch.randn(8, 97), pattern=text, backend=backend)
    values, weight_scale = amber_ext.quantize_weight(weight)
    want = amber_ext.linear_w8a8(x, values, weight_scale, bias, pattern=text, backend=backend)
    got = amber_ext.linear_w8a8(
        x, widen_weight(values, text), weight_scale, bias, pattern=text, backend=backend
    )
    assert torch.equal(got, want)


@pytest.fixture
def copies_wanted(monkeypatch):
    """Layers keep copies as they would on a GPU with measurements; returns a switch."""
    wanted = [True]

    def wants_copies(weight, dtype, pattern, rescale, backend):
        # As the sparse GEMMs of 16-bit weights, which do not rescale.
        takes = rescale == "none" or not weight.is_floating_point()
        return wanted[0] and bool(extra_windows(pattern)) and weight.device.type == "cpu" and takes

    monkeypatch.setattr(pruned_linear, "wants_copies", wants_copies)
    monkeypatch.setattr(quantized_linear, "wants_copies", wants_copies)
    return wanted


def shares_storage(layer):
    return layer.weight.untyped_storage().data_ptr() == layer.wide_weight.untyped_storage().data_ptr()


def check_copies(layer, pattern):
    assert shares_storage(layer)
    assert torch.equal(layer.wide_weight, widen_weight(layer.weight.detach().contiguous(), pattern))


@pytest.mark.parametrize("text", WINDOWED)
def test_a_layer_keeps_copies_in_one_storage(copies_wanted, text):
    torch.manual_seed(0)
    dense = torch.nn.Linear(96, 8)
    x = torch.randn(5, 96)
    plain = dense.weight.detach().clone()
    want = amber_ext.linear(x, plain, dense.bias, pattern=text)
    layer = AmberLinear.from_linear(dense, text, score="magnitude")
    assert layer.weight is dense.weight
    check_copies(layer, text)
    assert layer.copies_bytes == layer.extra_bytes == layer.wide_weight.nbytes - plain.nbytes

    with torch.no_grad():
        torch.testing.assert_close(layer(x), want)
        with amber_ext.decode():
            torch.testing.assert_close(layer(x), F.linear(x, plain, dense.bias))
    state = layer.state_dict()
    assert list(state) == ["weight", "bias"]
    assert torch.equal(state["weight"], plain) and state["weight"].is_contiguous()

    other = torch.nn.Linear(96, 8)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer.weight, other.weight)
    check_copies(layer, text)
    twin = copy.deepcopy(layer)
    check_copies(twin, text)
    assert twin.wide_weight.data_ptr() != layer.wide_weight.data_ptr()
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    check_copies(torch.load(buffer, weights_only=False), text)
    layer.to(torch.bfloat16)
    assert layer.wide_weight.dtype == torch.bfloat16
    check_copies(layer, text)

    back = layer.to_linear()
    assert back.weight is dense.weight and back.weight.is_contiguous()
    assert not hasattr(back, "wide_weight")


def test_a_layer_that_moves_away_drops_its_copies(copies_wanted):
    layer = AmberLinear.from_linear(torch.nn.Linear(96, 8), "8:16")
    copies_wanted[0] = False
    layer.to(torch.float64)
    assert layer.wide_weight is None and layer.weight.is_contiguous() and layer.copies_bytes == 0


def test_no_copies_where_nothing_reads_them():
    assert AmberLinear.from_linear(torch.nn.Linear(96, 8), "10:16w").wide_weight is None
    layer = QuantizedLinear.from_linear(torch.nn.Linear(96, 8), pattern="10:16w")
    assert layer.wide_weight is None


def test_rescaled_16_bit_layers_keep_none(copies_wanted):
    layer = AmberLinear.from_linear(torch.nn.Linear(96, 8), "8:16", rescale="variance")
    assert layer.wide_weight is None


def test_a_quantised_layer_keeps_copies(copies_wanted):
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(96, 8), torch.randn(5, 96)
    layer = QuantizedLinear.from_linear(linear, pattern="12:16w", rescale="variance")
    check_copies(layer, "12:16w")
    want = amber_ext.linear_w8a8(
        x,
        layer.state_dict()["weight"],
        layer.weight_scale,
        linear.bias,
        pattern="12:16w",
        scale=layer.channel_scale,
        rescale="variance",
    )
    with torch.no_grad():
        assert torch.equal(layer(x), want)
        check_copies(copy.deepcopy(layer), "12:16w")
        layer.half()
        assert layer.weight.dtype == torch.int8
        check_copies(layer, "12:16w")
        with amber_ext.decode():
            assert layer(x.half()).shape == (5, 8)


def test_models_report_their_copies_and_give_them_back(copies_wanted, tiny_llama):
    # SDPA's inputs and everything else stay as they are: only the weights' storages change.
    before = {name: weight.clone() for name, weight in tiny_llama.state_dict().items()}
    plain_bytes = sparsify_(tiny_llama, AmberConfig(pattern="2:4")).extra_bytes
    report = sparsify_(tiny_llama, AmberConfig(pattern="10:16w"))
    layers = [module for module in tiny_llama.modules() if isinstance(module, AmberLinear)]
    assert report.extra_bytes == plain_bytes + sum(layer.copies_bytes for layer in layers) > plain_bytes
    assert all(torch.equal(before[name], weight) for name, weight in tiny_llama.state_dict().items())
    densify_(tiny_llama)
    assert all(p.is_contiguous() for p in tiny_llama.parameters())


def test_a_failed_change_leaves_no_copies(copies_wanted, tiny_llama, snapshot):
    bad = tiny_llama.model.layers[2].mlp.down_proj.weight
    with torch.no_grad():
        bad[0, 0] = float("nan")
    with pytest.raises(ValueError, match="down_proj"):
        sparsify_(tiny_llama, AmberConfig(pattern="8:16"))
    assert all(p.is_contiguous() for p in tiny_llama.parameters())


def test_saved_quantised_models_hold_plain_weights(copies_wanted, tiny_model_folder, tmp_path):
    from amber_ext.models import load_model

    loaded = load_model(str(tiny_model_folder))
    config = amber_ext.OutstandingSparseConfig(pattern="12:16w", direction="none")
    report = amber_ext.quantize_(loaded.model, config)
    layers = [m for m in loaded.model.modules() if isinstance(m, QuantizedLinear)]
    copies = sum(layer.copies_bytes for layer in layers)
    assert copies > 0
    amber_ext.save_quantized(loaded.model, tmp_path)
    again = amber_ext.load_quantized(tmp_path)
    tokens = torch.randint(3, 29, (2, 20))
    with torch.inference_mode():
        assert torch.equal(again(tokens).logits, loaded.model(tokens).logits)
    copies_wanted[0] = False
    plain = load_model(str(tiny_model_folder))
    assert report.bytes_after == amber_ext.quantize_(plain.model, config).bytes_after + copies
