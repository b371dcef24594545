"""Output paths: looked at before anything is computed, written whole or not at all, one line for what goes wrong."""

import json
import os
import re
import resource
import subprocess
import sys

import pytest

from amber_ext.files import check_file, check_folder, whole_file, write_text
from amber_ext.folders import check_replaced_folder


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(" ".join("abcdefghij" * 12))
    return path


@pytest.fixture
def never_loaded(monkeypatch):
    """Fails a test that gets as far as loading the model."""
    from amber_ext.cli import options

    def load_model(name, dtype=None):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(options, "load_model", load_model)


FILE = "is a folder; it must name a file"
FOLDER = "is a file; it must name a folder"
MISSING = "missing' is not a folder"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["ppl", "MODEL", "--plot", "{folder}"], f"plot: '.*' {FILE}"),
        (["ppl", "MODEL", "--plot", "{folder}/missing/p.png"], f"plot: .*{MISSING}"),
        (["ppl", "MODEL", "--plot", "{file}/p.png"], "plot: '.*' cannot be written; '.*' is not a folder"),
        (
            ["ppl", "MODEL", "--plot", "{folder}/p.txt"],
            "plot: '.*p.txt' is not allowed; its name must end in",
        ),
        (["sensitivity", "MODEL", "--plot", "{folder}"], f"plot: '.*' {FILE}"),
        (["plan", "MODEL", "--cost", "0.8", "--plot", "{folder}"], f"plot: '.*' {FILE}"),
        (["plan", "MODEL", "--cost", "0.8", "--out", "{folder}"], f"out: '.*' {FILE}"),
        (["plan", "MODEL", "--skip", "1", "--out", "{folder}/missing/c.json"], f"out: .*{MISSING}"),
        (["quantize", "MODEL", "--out", "{file}"], f"out: '.*' {FOLDER}"),
        (["quantize", "MODEL", "--out", "/proc/new"], "out: '/proc/new' cannot be written"),
        (["eval", "MODEL", "--out", "{file}", "--text", "{file}"], f"out: '.*' {FOLDER}"),
        (["eval", "MODEL", "--out", "{full}", "--text", "{file}"], f"out: '.*plot.png' {FILE}"),
        (["eval", "MODEL", "--out", "/proc/new", "--text", "{file}"], "out: '/proc/new' cannot be written"),
        (["demo", "--out", "{file}"], f"out: '.*' {FOLDER}"),
        (["demo", "--out", "/proc/new"], "out: '/proc/new' cannot be written"),
    ],
)
def test_refused_before_anything_is_computed(run, never_loaded, monkeypatch, tmp_path, arguments, message):
    from amber_ext.cli import demo

    monkeypatch.setattr(demo, "load_model", lambda name: pytest.fail("the model was loaded"))
    paths = {name: tmp_path / name for name in ("file", "folder", "full")}
    paths["file"].write_text("x y")
    paths["folder"].mkdir()
    (paths["full"] / "plot.png").mkdir(parents=True)
    result = run(*(argument.format(**paths) for argument in arguments))
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert re.search(f"^amber-ext: {message}", line), line
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "full"] and not os.listdir(paths["folder"])


def test_a_plot_is_written_where_it_was_asked_for(run, tiny_model_folder, text_file, tmp_path):
    """matplotlib itself would add .png to a name without an ending."""
    for name, start in (("plot", b"\x89PNG"), ("plot.svg", b"<?xml")):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        options = ["--text", text_file, "--tokens", 64, "--window", 64]
        assert run("ppl", tiny_model_folder, *options, "--plot", out / name).returncode == 0
        assert (out / name).read_bytes().startswith(start)
    assert sorted(os.listdir(out)) == ["plot", "plot.svg"]


def test_a_full_disk(run, tiny_model_folder, text_file, tmp_path):
    """RLIMIT_FSIZE stands for one: a line says so, and the old file is still there."""
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        options = ["--text", text_file, "--tokens", 64, "--window", 64, "--plot", plot]
        result = run("ppl", tiny_model_folder, *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.returncode == 1 and not result.stdout
    assert f"amber-ext: [Errno 27] File too large: '{plot}'" in result.stderr
    assert "Traceback" not in result.stderr
    assert plot.read_bytes() == b"old" and sorted(os.listdir(tmp_path)) == ["plot.png", "text.txt"]


def test_a_full_disk_in_eval(run, tiny_model_folder, text_file, tmp_path):
    out = tmp_path / "out"
    options = ["--text", text_file, "--tokens", 64, "--window", 64, "--methods", "magnitude", "--out", out]
    assert run("eval", tiny_model_folder, *options, "--patterns", "2:4").returncode == 0
    old = (out / "results.json").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) + 10, limits[1]))
    try:
        result = run("eval", tiny_model_folder, *options, "--patterns", "8:16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"amber-ext: [Errno 27] File too large: '{out / 'results.json'}'" in result.stderr
    assert (out / "results.json").read_bytes() == old
    assert not [name for name in os.listdir(out) if "part" in name]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"]], ids=" ".join)
def test_stdout_that_takes_nothing(arguments):
    script = "import sys; from amber_ext.cli import main; sys.argv[0] = 'amber-ext'; main()"
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-c", script, *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert result.stderr.strip() == "amber-ext: [Errno 28] No space left on device"


def test_files_are_written_whole(tmp_path):
    path = tmp_path / "file.json"
    write_text(path, "old")
    path.chmod(0o640)
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]
    link = tmp_path / "link"
    link.symlink_to("file.json")
    write_text(link, json.dumps({}))
    assert link.is_symlink() and path.read_text() == "{}" and path.stat().st_mode & 0o777 == 0o640
    write_text("/dev/null", "text")
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*/missing/file'"):
        write_text(tmp_path / "missing" / "file", "text")


def test_what_may_be_written(tmp_path):
    check_file("out", tmp_path / "new")
    check_file("out", "/dev/stdout")
    check_folder("out", tmp_path)
    check_folder("out", tmp_path / "a" / "b")
    check_replaced_folder("out", tmp_path)
    assert not os.listdir(tmp_path)
