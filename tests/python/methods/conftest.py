import pytest
import torch


@pytest.fixture
def batches():
    torch.manual_seed(11)
    return [torch.randint(3, 97, (2, 24)) for _ in range(3)]
