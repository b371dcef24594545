"""Versions of transformers that are not supported are named."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "installed, problem",
    [("5.16.3", "transformers 5.16.3 is not supported; allowed: 5.17 or newer, below 6.0"),
     ("6.0.1", "transformers 6.0.1 is not supported"), ("5.17.0", None), ("5.99.0.dev0", None)],
)  # fmt: skip
def test_unsupported_versions_are_named(monkeypatch, installed, problem):
    from amber_ext import versions
    from amber_ext.models import load_model

    monkeypatch.setattr(versions, "version", lambda name: installed)
    if problem is None:
        assert versions.transformers_problem() is None
        return
    with pytest.raises(ValueError, match=f"model: 'smollm2' cannot be loaded: {problem}"):
        load_model("smollm2")
    monkeypatch.delitem(sys.modules, "amber_ext.integrations.transformers", raising=False)
    with pytest.raises(ImportError, match=f"amber_ext: {problem}"):
        importlib.import_module("amber_ext.integrations.transformers")


@pytest.mark.slow
def test_the_package_itself_takes_any_version():
    script = (
        "import importlib.metadata as m; v = m.version\n"
        "m.version = lambda n: '5.16.3' if n == 'transformers' else v(n)\n"
        "import amber_ext\n"  # works: only the integration is not there
        "import amber_ext.integrations.transformers\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ImportError: amber_ext: transformers 5.16.3 is not supported" in result.stderr
    assert "line 4, in <module>" in result.stderr
