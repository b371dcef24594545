"""What the build compiles for which architectures: csrc/amber/cuda/architectures.cmake, asked without a compiler."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY

MODULE = REPOSITORY / "csrc" / "amber" / "cuda" / "architectures.cmake"
CMAKE = Path(sys.executable).parent / "cmake"
FAMILIES = ("selection", "sm80", "sm89", "sm90", "sm100")
# As `nvcc --list-gpu-arch` of three toolkits prints them.
CUDA_12_0 = (75, 80, 86, 87, 89, 90)
CUDA_12_8 = (75, 80, 86, 87, 89, 90, 100, 101, 120)
CUDA_13_0 = (75, 80, 86, 87, 88, 89, 90, 100, 110, 103, 120, 121)


def run_cmake(tmp_path, script):
    cmake = str(CMAKE) if CMAKE.exists() else shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    path = tmp_path / "script.cmake"
    # Variables that are named as the families must not be taken for them.
    named = "".join(f"set({family} selection)\n" for family in FAMILIES)
    path.write_text(f'cmake_policy(VERSION 3.24)\n{named}include("{MODULE}")\n{script}')
    run = subprocess.run([cmake, "-P", path], capture_output=True, text=True)
    return run.returncode, run.stdout.replace("-- ", "").splitlines(), " ".join(run.stderr.split())


def asked(tmp_path, wanted, known=CUDA_13_0):
    """Exit status and lines of a CMake script that prints the entries, then the architectures of each family."""
    known = "\n".join(f"compute_{number}" for number in known)
    return run_cmake(
        tmp_path,
        f'amber_read_architectures(entries "{wanted}" "{known}")\n'
        'message(STATUS "entries: ${entries}")\n'
        + "".join(
            f'amber_family_architectures(found {family} "${{entries}}")\nmessage(STATUS "{family}: ${{found}}")\n'
            for family in FAMILIES
        ),
    )


def families(tmp_path, wanted, known=CUDA_13_0):
    """Entries and each family's architectures."""
    status, lines, errors = asked(tmp_path, wanted, known)
    assert status == 0, errors
    return {name: found.split(";") if found else [] for name, found in (line.split(": ") for line in lines)}


@pytest.mark.parametrize(
    "known, entries",
    [
        (CUDA_12_0, ["8.0", "8.6", "8.9", "9.0a"]),
        (CUDA_12_8, ["8.0", "8.6", "8.9", "9.0a", "10.0a", "12.0"]),
        (CUDA_13_0, ["8.0", "8.6", "8.9", "9.0a", "10.0a", "12.0"]),
    ],
)
def test_the_default_is_what_nvcc_allows(tmp_path, known, entries):
    found = families(tmp_path, "", known)
    assert found["entries"] == entries
    numbers = [entry.replace(".", "") for entry in entries]
    assert found["selection"] == ["80", *(f"{number}-real" for number in numbers[1:])]
    for_mma = [n for n in numbers if n[:-1] in ("8", "12")]
    assert found["sm80"] == ["80", *(f"{number}-real" for number in for_mma[1:])]
    for_e4m3 = [n for n in numbers if n in ("89", "120")]
    assert found["sm89"] == ["89", *(f"{number}-real" for number in for_e4m3[1:])]
    assert found["sm90"] == ["90a-real"]
    assert found["sm100"] == ["100a-real"] * ("10.0a" in entries)


@pytest.mark.parametrize("wanted", ["9.0", "9.0a", " 9.0 ;9.0a,", "9.0;9.0"])
def test_hopper_alone_has_its_own_instructions_and_ptx_for_others(tmp_path, wanted):
    assert families(tmp_path, wanted) == {
        "entries": ["9.0a"],
        "selection": ["90a-real", "80-virtual"],
        "sm80": [],
        "sm89": [],
        "sm90": ["90a-real"],
        "sm100": [],
    }


def test_ptx_of_an_entry_and_of_the_oldest(tmp_path):
    assert families(tmp_path, "8.6+PTX 9.0+PTX 12.1 10.3") == {
        "entries": ["8.6+PTX", "9.0a+PTX", "12.1", "10.3"],
        "selection": ["86", "90a-real", "90-virtual", "121-real", "103-real", "80-virtual"],
        "sm80": ["86", "121-real", "80-virtual"],
        "sm89": ["121-real", "89-virtual"],
        "sm90": ["90a-real"],
        "sm100": [],
    }


def test_what_is_too_old_is_left_out_and_said(tmp_path):
    """A list that containers set names every GPU that torch was built for."""
    status, lines, _ = asked(tmp_path, "7.5 8.0 9.0")
    assert status == 0
    assert lines[0] == "amber_ext: TORCH_CUDA_ARCH_LIST: 7.5 is left out; the kernels need 8.0 or newer"
    assert lines[1] == "entries: 8.0;9.0a"


@pytest.mark.parametrize(
    "wanted, known, message",
    [
        ("Hopper", CUDA_13_0, "has 'Hopper'; allowed: entries such as 8.0, 9.0a, 8.6+PTX"),
        ("8", CUDA_13_0, "has '8'; allowed: entries such as"),
        (
            "8.0 13.0",
            CUDA_12_0,
            "has '13.0', which this nvcc does not know; it knows 7.5 8.0 8.6 8.7 8.9 9.0",
        ),
        ("7.5", CUDA_13_0, "has nothing to build for: '7.5'; this nvcc knows 7.5 8.0 "),
        (
            "",
            (50, 75),
            "has nothing to build for: ''; this nvcc knows 5.0 7.5, and the kernels need 8.0 or newer",
        ),
    ],
)
def test_what_cannot_be_built_is_named_with_what_can(tmp_path, wanted, known, message):
    status, _, errors = asked(tmp_path, wanted, known)
    assert status != 0 and f"TORCH_CUDA_ARCH_LIST {message}" in errors


def test_the_kernels_of_a_build_are_those_of_the_list(tmp_path):
    folder = MODULE.parent / "sparse_gemm"
    listed = re.findall(r"(KERNEL|TUNING)\((sm\w+)\)", (folder / "list.h").read_text())
    assert sorted(name for _, name in listed) == sorted(path.stem for path in folder.rglob("*.cu"))
    for kernels, kinds in (("default", ["KERNEL"]), ("all", ["KERNEL", "TUNING"])):
        for family in FAMILIES[1:]:
            script = f'amber_sparse_gemm_sources(found {family} {kernels})\nmessage(STATUS "${{found}}")'
            status, lines, errors = run_cmake(tmp_path, script)
            assert status == 0, errors
            wanted = [name for kind, name in listed if kind in kinds and name.startswith(f"{family}_")]
            assert [Path(path).stem for path in lines[0].split(";")] == wanted and wanted
