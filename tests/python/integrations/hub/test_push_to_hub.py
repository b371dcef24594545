"""``push_to_hub`` of pruned and quantised models, as transformers has it, and back: against a stand-in for the hub."""

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers import IDS, PRUNED, QUANTIZED, load, logits

SCRIPT = """
import sys, torch
import amber_ext
from transformers import AutoModelForCausalLM
saved, expected = sys.argv[1:]
AutoModelForCausalLM.from_pretrained(saved, dtype="auto").push_to_hub("me/model", tags=["mine"])
again = AutoModelForCausalLM.from_pretrained("me/model", dtype="auto")
expected = torch.load(expected)
with torch.inference_mode():
    assert torch.equal(again(expected["ids"]).logits, expected["logits"])
"""


@pytest.fixture
def on_the_hub(hub, tmp_path):
    """Runs a program for which ``hub`` is the hub; that is read from the environment once, so it needs a process."""

    def run(*command):
        places = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_stand_in"}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        result = subprocess.run(
            [sys.executable, *map(str, command)],
            capture_output=True, text=True, env={**environment, **places, "HF_HUB_DISABLE_XET": "1"},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.mark.slow
@pytest.mark.parametrize("config", [PRUNED, QUANTIZED], ids=["pruned", "quantized"])
def test_a_model_is_pushed_and_loaded_again(folder, tmp_path, hub, on_the_hub, config):
    model = load(folder, config)
    model.save_pretrained(tmp_path / "saved")
    torch.save({"ids": IDS, "logits": logits(model)}, tmp_path / "expected.pt")
    on_the_hub("-c", SCRIPT, tmp_path / "saved", tmp_path / "expected.pt")
    assert {"README.md", "config.json", "model.safetensors"} <= hub.files.keys()
    said = json.loads(hub.files["config.json"])["quantization_config"]
    assert said["quant_method"] == "amber_ext" and "mine" in hub.files["README.md"].decode()
    assert all(token == "Bearer hf_stand_in" for _, token in hub.asked)


@pytest.mark.slow
def test_a_folder_goes_up_with_its_card(tiny_model_folder, tmp_path, hub, on_the_hub):
    out = tmp_path / "out"
    on_the_hub("-c", "from amber_ext.cli import main; main()", "prune", tiny_model_folder, "--out", out)
    on_the_hub(
        "-c",
        f"import huggingface_hub as hub; hub.upload_folder(repo_id='me/model', folder_path={str(out)!r})",
    )
    assert hub.files["README.md"] == (out / "README.md").read_bytes()
    assert hub.files.keys() == {path.name for path in out.iterdir()}
