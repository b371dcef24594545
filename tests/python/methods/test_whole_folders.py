"""Saving over a model leaves the old one or the new one: when it is killed, when the disk is full, when it fails."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SAVED_BY_0_1_0, tiny_llama_config

from amber_ext import OutstandingSparseConfig, folders, load_quantized, quantize_, save_quantized
from amber_ext.folders import replaced_folder


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exchange", "two_renames"])
def test_killed_at_any_moment(way, tmp_path):
    script = Path(__file__).with_name("killed_while_saving.py")
    result = subprocess.run([sys.executable, script, tmp_path, way, "20"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    outcomes = told["outcomes"]
    killed = [outcome for outcome in outcomes if not outcome["finished"]]
    assert len(killed) >= 50  # and after each of them the script loaded one of the two models
    assert {outcome["new"] for outcome in killed} == {False, True}
    assert all(outcome["kept"] for outcome in outcomes)
    # Between two renames there is no folder of that name, until it is loaded from.
    assert all(outcome["there"] for outcome in outcomes) == (way == "exchange")
    assert told["left"] == ["model"]


@pytest.fixture(params=["exchange", "two_renames"])
def way(request, monkeypatch):
    if request.param == "two_renames":
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of a model and files of the user's."""
    path = tmp_path / "model"
    (path / "more").mkdir(parents=True)
    for name in ("config.json", "notes.txt", "more/notes.txt"):
        (path / name).write_text(f"old {name}")
    (path / "link").symlink_to("more/notes.txt")
    path.chmod(0o750)
    return path


def write(folder, text="new"):
    with replaced_folder(folder, lambda name: name != "generation_config.json") as staging:
        (staging / "config.json").write_text(text)


def test_what_stays_and_what_goes(way, folder, tmp_path):
    (folder / "generation_config.json").write_text("old")
    notes = (folder / "notes.txt").stat().st_ino
    write(folder)
    assert (folder / "config.json").read_text() == "new"
    assert not (folder / "generation_config.json").exists()
    assert (
        (folder / "more" / "notes.txt").read_text() == (folder / "link").read_text() == "old more/notes.txt"
    )
    assert (folder / "link").is_symlink() and (folder / "notes.txt").stat().st_ino == notes
    assert folder.stat().st_mode & 0o777 == 0o750
    assert os.listdir(tmp_path) == ["model"]


def test_a_new_folder_and_a_link_to_one(tmp_path, way):
    write(tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to("a/b")
    write(tmp_path / "link", "newer")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "a" / "b" / "config.json").read_text() == "newer"


def test_an_error_leaves_the_old_folder(way, folder, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="in the middle"), replaced_folder(folder, bool) as staging:
        (staging / "config.json").write_text("new")
        raise RuntimeError("in the middle")
    rename = os.rename

    def failing(source, target):
        if source.name.endswith(".part"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no"):
        write(folder)
    assert (folder / "config.json").read_text() == "old config.json"
    assert os.listdir(tmp_path) == ["model"]


def test_what_killed_processes_left_is_swept(folder, tmp_path):
    left, others = tmp_path / ".model.0123abcd.part", tmp_path / ".model.mine.part"
    for path in (left, others, tmp_path / ".model.old"):
        path.mkdir()
        (path / "file").touch()
    with folders._locked(left):  # as by a process that is saving
        write(folder)
        assert left.is_dir() and others.is_dir() and not (tmp_path / ".model.old").exists()
    write(folder)
    assert sorted(os.listdir(tmp_path)) == [".model.mine.part", "model"]


def test_where_no_folder_can_be_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for path, message in (
        (tmp_path / "file", "is a file; it must name a folder"),
        (tmp_path / "file" / "below", "cannot be written: Not a directory"),
        (tmp_path / "here", "is or holds the working directory"),
        (Path("/proc"), "cannot be written|is a mount point"),
    ):
        with pytest.raises(ValueError, match=f"folder: .*{message}"):
            folders.check_replaced_folder("folder", path)
    folders.check_replaced_folder("folder", tmp_path / "new" / "below")
    assert not (tmp_path / "new").exists()


# ---- models


@pytest.fixture
def model():
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama_config(num_hidden_layers=1)).eval()
    quantize_(model, OutstandingSparseConfig(direction="none"))
    return model


def test_a_folder_that_was_left_aside_is_found(model, tmp_path):
    save_quantized(model, tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".model.old")
    assert load_quantized(tmp_path / "model").state_dict().keys() == model.state_dict().keys()
    assert os.listdir(tmp_path) == ["model"]


def test_no_old_model_shows_through(model, tmp_path):
    """What 0.1.0 wrote, and shards, would be loaded instead of, or beside, what is written now."""
    folder = tmp_path / "model"
    shutil.copytree(SAVED_BY_0_1_0 / "save_quantized", folder)
    (folder / "model-00001-of-00002.safetensors").touch()
    (folder / "tokenizer.json").write_text("{}")
    save_quantized(model, folder)
    ids = torch.arange(3, 30)[None]
    assert torch.equal(load_quantized(folder)(ids).logits, model(ids).logits)
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "logits.pt"}
    assert set(os.listdir(folder)) == names


def test_a_file_that_may_not_grow(model, tmp_path):
    """RLIMIT_FSIZE stands for a full disk."""
    save_quantized(model, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(map(len, before.values()))
    for limit in (0, 1000, size // 2, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises((OSError, ValueError), match="File too large|cannot be written") as error:
                save_quantized(model, tmp_path / "model")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert len(str(error.value).splitlines()) == 1
        assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
        assert os.listdir(tmp_path) == ["model"]
