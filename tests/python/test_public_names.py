"""What ``import amber_ext`` offers: the names of 0.1.0, and two that need transformers only when they are used."""

import subprocess
import sys

import pytest

import amber_ext

# Every name of version 0.1.0.
NAMES = """
AmberConfig AmberLinear OutstandingSparseConfig Pattern QuantizationReport QuantizedLinear Report channel_scale decode
densify_ explain linear linear_w8a8 load_quantized nm_mask nm_prune plan plan_for_cost prefill quantize_
quantize_activations quantize_weight save_quantized sensitivity sparsify_ widen_weight
""".split()


def test_the_names_of_0_1_0():
    assert set(NAMES) <= set(amber_ext.__all__)
    assert all(callable(getattr(amber_ext, name)) for name in amber_ext.__all__)


def test_names_that_need_transformers():
    pytest.importorskip(
        "transformers", reason="transformers is not installed (pip install 'amber_ext[models]')"
    )
    from amber_ext import AmberQuantConfig, attach_config
    from amber_ext.integrations import transformers as integration

    assert AmberQuantConfig is integration.AmberQuantConfig and attach_config is integration.attach_config
    assert {"AmberQuantConfig", "attach_config"} <= set(dir(amber_ext))
    with pytest.raises(AttributeError, match="module 'amber_ext' has no attribute 'nosuch'"):
        amber_ext.nosuch  # noqa: B018


def test_without_transformers():
    """All of it imports, prunes a layer, and says what is missing when a model is to be loaded or configured."""
    script = """
import importlib.metadata as metadata, sys
sys.modules["transformers"] = None  # importing it raises ImportError
version = metadata.version
def without(name):
    if name == "transformers":
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = without

import torch
from amber_ext import *
from amber_ext.models import load_model

model = torch.nn.Sequential(torch.nn.Linear(8, 4))
sparsify_(model, AmberConfig(targets=("0",)))
with torch.no_grad():
    print(model(torch.ones(1, 8)).shape)
for attempt in (lambda: load_model("smollm2"), lambda: __import__("amber_ext").AmberQuantConfig):
    try:
        attempt()
    except (ValueError, ImportError) as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "torch.Size([1, 4])" in result.stdout
    assert result.stdout.count("transformers is not installed; pip install 'amber_ext[models]'") == 2
