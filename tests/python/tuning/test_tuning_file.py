"""The file that `tune` keeps its times in: whole or not at all, for one machine, and for several processes at once."""

import errno
import json
import multiprocessing
import warnings

import pytest
import torch
from helpers_tuning import FakeBench, fake_layer

from amber_ext import files, tune
from amber_ext.ops import library
from amber_ext.ops.choice import devices, measured
from amber_ext.ops.choice.measured import Entry

MS = {16: {"masked_dense": 2.0, "dense": 1.5, "sm90_a": 1.0}}
ENTRY = Entry(1024, 2048, "2:4", "bfloat16", MS, {"sm90_b": "wrong"})


def read(device):
    """The entries, and the line that says why there are none."""
    measured.tuned.cache_clear()
    measured.stamp_of.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entries = measured.tuned(device)
    assert all("\n" not in str(warning.message) for warning in caught)
    return entries, [str(warning.message) for warning in caught]


def test_what_was_kept_is_read_again(gpu):
    assert read(gpu) == ({}, [])
    measured.keep(gpu, [ENTRY])
    assert read(gpu) == ({ENTRY.key: ENTRY}, [])
    path = measured.tuning_file(gpu)
    assert path.name == "tuning_nvidia_h100_80gb_hbm3.json" and path.parent.name == "amber_ext"


@pytest.mark.parametrize(
    "change",
    [
        lambda monkeypatch: monkeypatch.setattr(torch, "__version__", "9.9"),
        lambda monkeypatch: monkeypatch.setattr(library, "build_id", lambda: "another"),
        lambda monkeypatch: monkeypatch.setattr(measured, "_driver", lambda: "999.1"),
    ],
    ids=["torch", "build", "driver"],
)
def test_another_stamp_is_left_out_with_one_line(gpu, monkeypatch, request, change):
    measured.keep(gpu, [ENTRY])
    change(monkeypatch)
    entries, (line,) = read(gpu)
    assert entries == {} and "is left out: " in line and line.endswith("; tune anew")
    assert request.node.callspec.id in line
    # Tuning anew replaces it.
    other = Entry(64, 64, "2:4", "bfloat16", MS)
    measured.keep(gpu, [other])
    assert read(gpu) == ({other.key: other}, [])
    measured.stamp_of.cache_clear()


def test_another_number_of_multiprocessors_is_another_stamp(gpu):
    measured.keep(gpu, [ENTRY])
    fewer = devices.describe(gpu.name, gpu.arch, 114)
    entries, (line,) = read(fewer)
    assert entries == {} and "multiprocessors: 132 was measured, but here is 114" in line


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_a_truncated_file_is_left_out_with_one_line(gpu, share):
    measured.keep(gpu, [ENTRY])
    path = measured.tuning_file(gpu)
    text = path.read_text()
    path.write_text(text[: int((len(text) - 2) * share)])
    entries, (line,) = read(gpu)
    assert entries == {} and "it is damaged; tune anew, or delete it" in line
    measured.keep(gpu, [ENTRY])
    assert read(gpu) == ({ENTRY.key: ENTRY}, [])


@pytest.mark.parametrize(
    "content",
    ["[]", '{"stamp": {}}', '{"stamp": {}, "entries": [{"ms": 1}]}', '{"stamp": 1, "entries": 2}', "\xff"],
)
def test_another_content_is_left_out_with_one_line(gpu, content):
    path = measured.tuning_file(gpu)
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="latin-1")
    entries, (line,) = read(gpu)
    assert entries == {} and "left out" in line


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(gpu, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    bench = FakeBench()
    with pytest.raises(ValueError, match="cache folder: .* cannot be written"):
        tune(torch.nn.ModuleList([fake_layer()]), bench=bench)
    assert not bench.asked


def test_a_read_only_cache_is_read_and_not_written(gpu, monkeypatch):
    measured.keep(gpu, [ENTRY])

    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    assert read(gpu) == ({ENTRY.key: ENTRY}, [])
    bench = FakeBench()
    with pytest.raises(ValueError, match="cache folder: .* cannot be written: Read-only file system"):
        tune(torch.nn.ModuleList([fake_layer()]), bench=bench)
    assert not bench.asked


def _keep_many(device, first):
    for n in range(first, first + 20):
        measured.keep(device, [Entry(n, 64, "2:4", "bfloat16", MS)])


def test_two_processes_at_once_lose_nothing(gpu):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_keep_many, args=(gpu, first)) for first in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    entries, lines = read(gpu)
    assert lines == [] and {key[0] for key in entries} == {*range(20), *range(100, 120)}


def test_the_shipped_table_is_one():
    tables = json.loads(measured.SHIPPED.read_text())["devices"]
    for name, entries in tables.items():
        assert measured.shipped(name) and all(Entry.from_dict(entry).ms for entry in entries)


def test_this_machine_comes_before_the_shipped_table(fake_gpu):
    from helpers_tuning import GEMMS

    from amber_ext.ops.choice.products import decide, plan_of, problem_of

    slow = {tokens: {name: 10 * time for name, time in ms.items()} for tokens, ms in MS.items()}
    device = fake_gpu("NVIDIA H100 80GB HBM3", 90, GEMMS, [Entry(*ENTRY.key, slow)])
    key = (
        torch.device("cuda", 0),
        torch.bfloat16,
        torch.bfloat16,
        1024,
        2048,
        2048,
        True,
        "2:4",
        "none",
        "auto",
        False,
    )
    assert decide(problem_of(*key), plan_of(*key), 16).ms == 10.0
    measured.keep(device, [ENTRY])
    measured.tuned.cache_clear()
    assert decide(problem_of(*key), plan_of(*key), 16).ms == 1.0
