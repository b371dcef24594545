"""A fake GPU."""

import pytest
from helpers_tuning import GEMMS
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.fixture
def gpu(fake_gpu):
    """The description of a fake H100 with two sparse GEMMs; tensors made meanwhile may be on it."""
    device = fake_gpu("NVIDIA H100 80GB HBM3", 90, GEMMS)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield device
