"""Building from source: the plain install, the CUDA decision and its errors, the compiler report's check."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import REPOSITORY

SOURCES = (
    "CMakeLists.txt",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "csrc",
    "third_party",
    "amber_ext",
)


@pytest.fixture(scope="module")
def source_tree(tmp_path_factory):
    """A copy of the sources without build outputs."""
    tree = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(path, tree / name)
    shutil.copytree(REPOSITORY / "scripts", tree / "scripts")
    return tree


def environment_without_nvcc(**variables):
    """This environment, with every PATH folder that holds an nvcc left out."""
    folders = [f for f in os.environ["PATH"].split(os.pathsep) if not os.path.exists(os.path.join(f, "nvcc"))]
    environment = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH", "CUDACXX")}
    tools = os.path.dirname(sys.executable)
    return {**environment, "PATH": os.pathsep.join([tools, *folders]), **variables}


def pip_install(tree, target, **variables):
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "-v"]
    return subprocess.run(
        [*command, "--target", str(target), str(tree)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment_without_nvcc(**variables),
    )


@pytest.mark.slow
def test_plain_install_without_nvcc(source_tree, tmp_path):
    target = tmp_path / "site"
    result = pip_install(source_tree, target)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "amber_ext: CUDA off (nvcc not found)" in result.stdout
    assert {"libamber_ops.so", "py.typed"} <= {p.name for p in (target / "amber_ext").iterdir()}
    (wheel,) = target.glob("amber_ext-*.dist-info/WHEEL")
    assert "Tag: py3-none-linux" in wheel.read_text()  # one file for every Python
    assert not list(target.rglob("*cpython*.so"))
    assert (target / "amber_ext" / "ops" / "choice" / "shipped.json").is_file()
    program = (
        "import json, torch, amber_ext\n"
        "from amber_ext.ops.library import environment_info\n"
        "amber_ext.nm_mask(torch.randn(2, 8), '2:4', backend='cpu')\n"
        "print(json.dumps([amber_ext.__file__, environment_info()]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
    )
    assert run.returncode == 0, run.stderr
    file, info = json.loads(run.stdout)
    assert file.startswith(str(target))
    assert info["op_library"] == "loaded" and info["build"]["cuda"] == "off (nvcc not found)"


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting, value, message",
    [
        ("AMBER_CUDA", "1", "AMBER_CUDA=1 but nvcc was not found"),
        ("AMBER_CUDA", "yes", "AMBER_CUDA is 'yes'; allowed: auto, 0, 1"),
        ("AMBER_KERNELS", "some", "AMBER_KERNELS is 'some'; allowed: default, all"),
    ],
)
def test_bad_cuda_decisions_fail(source_tree, tmp_path, setting, value, message):
    result = pip_install(source_tree, tmp_path / "site", **{setting: value})
    assert result.returncode != 0
    assert message in " ".join(result.stdout.split())


def test_without_torch_it_says_what_to_type_before_anything_is_downloaded(source_tree, tmp_path):
    """pip asks for the metadata first, and then gets what they name: torch, several GB of it."""
    import setuptools

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (tmp_path / "tools").mkdir()
    for name in ("setuptools", "_distutils_hack"):
        (tmp_path / "tools" / name).symlink_to(os.path.join(os.path.dirname(setuptools.__path__[0]), name))
    result = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "setup.py", "dist_info", "--output-dir", tmp_path],
        cwd=source_tree, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path / "tools")},
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "amber_ext: torch is not installed, and its headers are needed to build; type: pip install torch"
    )


def test_the_compiler_report_is_checked():
    path = REPOSITORY / "scripts" / "nvcc_checked.py"
    spec = importlib.util.spec_from_file_location("nvcc_checked", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clean = (
        "ptxas info    : Compiling entry function 'kernel_a' for 'sm_90a'\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    )
    assert module.problems(clean) == []
    spilling = clean.replace("0 bytes spill stores", "8 bytes spill stores")
    assert module.problems(spilling) == ["8 bytes spilled, at most 0 are allowed: kernel_a"]
    serialised = (
        clean + "ptxas info : (C7510) Potential Performance Loss: wgmma.mma_async instructions are ...\n"
    )
    assert "C7510" in module.problems(serialised)[0]


@pytest.mark.parametrize("strict", [False, True])
def test_a_spill_is_a_warning_for_who_installs_and_an_error_for_who_develops(tmp_path, strict):
    report = (
        "ptxas info    : Compiling entry function 'kernel_a' for 'sm_90a'\n"
        "    16 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads\n"
    )
    compiler = [
        sys.executable,
        "-c",
        f"import sys; print({report!r}, file=sys.stderr); sys.exit(int(sys.argv[1]))",
    ]
    command = [sys.executable, REPOSITORY / "scripts" / "nvcc_checked.py", *["--strict"][:strict], *compiler]
    spilled = subprocess.run([*command, "0"], capture_output=True, text=True)
    assert spilled.returncode == int(strict)
    kind = "error" if strict else "warning"
    assert spilled.stderr == f"nvcc_checked: {kind}: 16 bytes spilled, at most 0 are allowed: kernel_a\n"
    assert subprocess.run([*command, "3"], capture_output=True).returncode == 3  # the compiler's own failure


def run_ensure_gtest(tmp_path, **commands):
    """Runs scripts/ensure_gtest where there is no GoogleTest, with these commands and few others."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(REPOSITORY / "scripts" / "ensure_gtest", tmp_path / "scripts")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "cat", "dirname", "env", "id", "mkdir", "mktemp", "rm"):
        (folder / name).symlink_to(shutil.which(name))
    for name, script in {"c++": "exit 1", **commands}.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": str(folder), "HOME": str(tmp_path)}
    command = [folder / "bash", tmp_path / "scripts" / "ensure_gtest"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_googletest_is_not_installed(tmp_path):
    """What apt-get is asked for needs no root; where it fails, a line names the command."""
    log = tmp_path / "asked"
    result = run_ensure_gtest(
        tmp_path,
        **{"apt-get": f'echo "$@" >> {log}; exit 1', "dpkg-deb": "exit 1", "sudo": f"echo sudo >> {log}"},
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "GoogleTest could not be fetched; install it (Debian: apt-get install libgtest-dev) and run again"
    ]
    asked = log.read_text().split()
    assert "update" in asked and not {"install", "sudo"} & set(asked)


def test_no_googletest_and_no_way_to_fetch_it(tmp_path):
    result = run_ensure_gtest(tmp_path)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert "GoogleTest is missing, and there is no apt-get to fetch it with" in result.stderr


def test_what_builds_and_tests_is_pinned():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    named = list(project["build-system"]["requires"])
    for wanted in project["project"]["optional-dependencies"].values():
        named += wanted

    def name_of(requirement):
        return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")

    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line) for line in lines if "==" in line}
    assert {name_of(requirement) for requirement in named} - pinned == set()
