import numpy as np
import pytest
import torch

from amber_ext import channel_scale
from amber_ext.ops.scores import DEAD_CHANNEL_SCALE, exact_quantiles


def robust_norm_by_definition(weight):
    """The formula in numpy fp64, sigma and all."""
    w = weight.double().numpy()
    low, high = np.quantile(w, 0.005), np.quantile(w, 0.995)
    inside = w[(w >= low) & (w <= high)]
    standardised = (w - inside.mean()) / inside.std()
    norm = np.linalg.norm(standardised, axis=0)
    return torch.from_numpy(norm / norm.min())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 8), (33, 24), (700, 96), (5, 1)])
def test_scores_follow_their_definitions(shape, dtype):
    torch.manual_seed(0)
    weight = (torch.randn(shape) * torch.rand(shape[1]) + 0.05).to(dtype)
    if weight.numel() > 100:
        weight[0, 0] = 30.0  # an outlier that the robust statistics leave out
    norm = weight.double().norm(dim=0)
    assert torch.equal(channel_scale(weight, "magnitude"), torch.ones(shape[1]))
    wanda = channel_scale(weight, "wanda")
    assert wanda.dtype == torch.float32
    assert torch.allclose(wanda.double(), norm / norm.min(), rtol=1e-6)
    if weight.numel() > 8:
        robust = channel_scale(weight, "robust_norm")
        assert torch.allclose(robust.double(), robust_norm_by_definition(weight), rtol=1e-5)
        assert robust.min() == 1.0


def test_the_trimmed_norm_leaves_the_outliers_out():
    """By hand: of 400 entries 1.995 lie below the 0.5 % quantile and as many above the other, which are ±3; μ is 0."""
    weight = torch.tensor([1.0, 2.0, 1.0, 3.0]) * torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    weight[0, 0], weight[1, 0] = 100.0, -100.0
    assert exact_quantiles(weight, (0.005, 0.995)) == (-3.0, 3.0)
    scale = channel_scale(weight, "robust_norm_trimmed").double()
    left = torch.tensor([98.0, 400.0, 100.0, 900.0], dtype=torch.float64).sqrt()
    assert torch.allclose(scale, left / left[0], rtol=1e-6)
    assert channel_scale(weight, "robust_norm").argmax() == 0  # the outliers count in the norm of all entries


def test_a_column_of_outliers_alone_is_dead_to_the_trimmed_norm():
    """What the printed formula comes to: nothing of the column is left."""
    weight = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    weight[:, 7] = 50.0
    assert channel_scale(weight, "robust_norm_trimmed")[7] == DEAD_CHANNEL_SCALE
    assert channel_scale(weight, "robust_norm").argmax() == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_quantiles_are_exact(dtype):
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(10_001, generator=generator).to(dtype)
    values[:50] = values[50]  # ties
    values[100] = -0.0
    quantiles = (0.0, 0.005, 0.31, 0.5, 0.995, 1.0)
    expected = np.quantile(values.double().numpy(), quantiles)
    assert np.allclose(exact_quantiles(values, quantiles), expected, rtol=1e-12, atol=0)
    assert exact_quantiles(torch.tensor([3.0], dtype=dtype), (0.0, 1.0)) == (3.0, 3.0)


def test_quantiles_of_more_elements_than_torch_takes():
    values = torch.arange(2**24 + 1000, dtype=torch.float32).flip(0)
    # Every value up to 2**24 is exact in fp32, so the quantile is known.
    (low,) = exact_quantiles(values[1000:], (0.005,))
    assert low == pytest.approx(0.005 * (2**24 - 1), rel=1e-12)


def test_dead_channels_stay_usable():
    weight = torch.randn(16, 8)
    weight[:, 3] = 0
    scale = channel_scale(weight, "wanda")
    assert scale[3] == DEAD_CHANNEL_SCALE
    assert scale[[0, 1, 2, 4, 5, 6, 7]].min() == 1.0
    for score in ("wanda", "robust_norm"):
        assert torch.equal(channel_scale(torch.full((4, 8), 0.5), score).isfinite(), torch.ones(8).bool())
    assert torch.equal(channel_scale(torch.zeros(4, 8), "wanda"), torch.ones(8))


@pytest.mark.parametrize(
    "weight, score, error, message",
    [
        (
            torch.ones(4, 8),
            "norm",
            ValueError,
            "score: 'norm' is not known; allowed: 'magnitude', 'wanda', 'robust_",
        ),
        (torch.ones(8), "wanda", ValueError, r"weight: shape \[8\]"),
        (torch.ones(0, 8), "wanda", ValueError, "not empty"),
        (torch.ones(4, 8).int(), "wanda", TypeError, "torch.int32"),
        (torch.tensor([[1.0, float("nan")]]), "robust_norm", ValueError, "NaN or Inf"),
        (torch.tensor([[1.0, float("inf")]]), "wanda", ValueError, "NaN or Inf"),
        (torch.ones(4, 8, device="meta"), "wanda", ValueError, "meta tensor"),
    ],
)
def test_bad_input(weight, score, error, message):
    with pytest.raises(error, match=message):
        channel_scale(weight, score)


@pytest.mark.parametrize("score", ["wanda", "robust_norm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("exponent", [-100, -70, 63, 100, 125])
def test_weights_whose_squares_leave_fp32(score, dtype, exponent):
    """c does not hang on the size of W: a power of two times W has the same."""
    torch.manual_seed(0)
    weight = torch.randn(16, 64).clamp(-3, 3).to(dtype)
    scale = channel_scale(weight * 2.0**exponent, score)
    assert torch.allclose(scale, channel_scale(weight, score), rtol=1e-6)


def test_columns_of_very_different_lengths_have_finite_scales():
    weight = torch.ones(8, 4)
    weight[:, 0], weight[:, 1] = 3e38, 1e-30
    scale = channel_scale(weight, "wanda")
    assert scale.isfinite().all() and scale[0] > scale[2] > scale[1] == 1
