"""How the repository is built: which part imports which, how long files and how full folders may be."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import PurePosixPath

import pytest
from helpers import REPOSITORY

import amber_ext

PACKAGE = "amber_ext"
# Each room of the package, and the rooms that it may use beside itself; every other arrow points up.
LEAVES = {"phase", "progress", "versions", "families", "perplexity", "files", "folders"}
ROOMS = {
    "phase": set(),
    "progress": set(),
    "versions": set(),
    "families": set(),
    "files": set(),
    "folders": {"files"},
    "perplexity": {"progress"},
    "ops": {"files"},
    "config": {"ops", "families", "files", "phase"},
    "layers": {"ops", "config", "phase", "families"},
    "methods": {"layers", "ops", "config", "phase", "progress", "families"},
    "models": {"methods", "layers", "config", "phase", "versions", "ops", "folders"},
    "tuning": {"layers", "ops", "files", "progress"},
    "planning": {"methods", "layers", "ops", "config", "phase", "progress", "perplexity"},
    "integrations": {"models", "methods", "layers", "ops", "config", "phase", "versions", "folders"},
}
ROOMS["evaluation"] = ROOMS["planning"] | {"planning", "models", "files"}
ROOMS["cli"] = ROOMS["__init__"] = {*ROOMS, "cli"}

MAX_LINES, MAX_FILES = 250, 12
# Modules of 0.1.0 that moved; CHANGELOG.md alone may name them.
MOVED = """
amber_linear calibration checkpoint checks cli_common cli_eval compare cost_model demo dispatch dispatch_table
dispatch_w8a8 eval_methods eval_run eval_table evaluate experts explain frontier info int8_product
integrations.versions local_tasks loss_model outstanding_config pattern planner plots quantize quantized_linear recast
reference reference_w8a8 scoring sensitivity sharding smoothing sparsify tables tasks weight_pruning window_copies
windows zero_shot
""".split()


def modules(root):
    """Name to syntax tree of every module below ``root``."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (path, ast.parse(path.read_text(), str(path)))
    return found


def imports(name, path, tree, known):
    """(line, module) of every import of the package, also those inside functions and by a name in a string."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import module` names a module too.
            targets = [full if (full := f"{base}.{alias.name}") in known else base for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "find_spec"):
                targets = [str(node.args[0].value)]
        yield from ((node.lineno, t) for t in targets if t.split(".")[0] == PACKAGE)


def room_of(module):
    """The room of a module: ``amber_ext.ops.pattern`` is in ``ops``."""
    return (module.split(".") + ["__init__"])[1]


def arrows(root):
    """(module, where, imported module) of every import inside the package."""
    known = modules(root)
    return [
        (name, f"{path.relative_to(root)}:{line}", target)
        for name, (path, tree) in known.items()
        for line, target in imports(name, path, tree, known)
    ]


def arrows_up(root):
    """A line for each import of a room that the importing room may not use."""
    return [
        f"{where}: {room_of(name)} may not import {target}; it may use: "
        f"{', '.join(sorted(ROOMS[room_of(name)])) or 'nothing'}"
        for name, where, target in arrows(root)
        if room_of(target) not in ROOMS[room_of(name)] | {room_of(name)}
    ]


def cycles(root):
    """Modules that import each other in a circle; rooms cannot, since no arrow between them points up."""
    uses = {}
    for name, _, target in arrows(root):
        if name != target:
            uses.setdefault(name, set()).add(target)
    left = dict(uses)
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_every_module_is_in_a_room():
    assert {room_of(name) for name in modules(REPOSITORY)} == set(ROOMS)
    assert all(ROOMS[leaf] <= LEAVES for leaf in LEAVES)


def test_no_arrow_points_up():
    assert not (found := arrows_up(REPOSITORY)), "\n".join(["an arrow points up:", *found])


def test_no_module_imports_itself_in_a_circle():
    assert not (found := cycles(REPOSITORY)), f"these modules import each other: {', '.join(found)}"


@pytest.mark.parametrize(
    "file, line, message",
    [
        (
            "ops/pattern.py",
            "from amber_ext.config import AmberConfig",
            "1: ops may not import amber_ext.config",
        ),
        (
            "ops/new.py",
            "def f():\n    import amber_ext.layers.sites",
            "2: ops may not import amber_ext.layers",
        ),
        ("layers/new.py", "from ..methods import sparsify", "1: layers may not import amber_ext.methods"),
        ("planning/new.py", "from amber_ext import models", "1: planning may not import amber_ext.models"),
        ("config.py", "from amber_ext import plan", "1: config may not import amber_ext;"),
        ("phase.py", "from . import progress", "1: phase may not import amber_ext.progress"),
        ("models.py", "import_module('amber_ext.cli')", "1: models may not import amber_ext.cli"),
    ],
)
def test_an_arrow_that_points_up_is_found(tmp_path, file, line, message):
    for module in ("__init__", "config", "models", "phase", "progress", "layers/sites", "methods/sparsify"):
        path = tmp_path / PACKAGE / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import torch\n")
        path.with_name("__init__.py").touch()
    (path := tmp_path / PACKAGE / file).parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    (found,) = arrows_up(tmp_path)
    assert found.startswith(f"{PACKAGE}/{file}:{message}")


def test_a_circle_is_found(tmp_path):
    (tmp_path / PACKAGE).mkdir()
    for name, other in (("a", "b"), ("b", "c"), ("c", "b"), ("d", "a")):
        (tmp_path / PACKAGE / f"{name}.py").write_text(f"from {PACKAGE}.{other} import x\n")
    assert cycles(tmp_path) == ["amber_ext.a", "amber_ext.b", "amber_ext.c", "amber_ext.d"]
    (tmp_path / PACKAGE / "c.py").write_text("import torch\n")
    assert cycles(tmp_path) == []


# ---- files and folders


@pytest.fixture(scope="module")
def tracked():
    """Paths of the files that git tracks."""
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed, so it cannot tell which files are tracked")
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip(f"git does not track this folder: {listed.stderr.strip() or 'no file of it'}")
    return [path for path in listed.stdout.split("\0") if path and (REPOSITORY / path).is_file()]


def test_python_files_are_short(tracked):
    lengths = {p: (REPOSITORY / p).read_bytes().count(b"\n") for p in tracked if p.endswith(".py")}
    assert len(lengths) > 50
    assert not {path: count for path, count in lengths.items() if count > MAX_LINES}


def test_folders_hold_few_files(tracked):
    counts = Counter(str(PurePosixPath(path).parent) for path in tracked)
    del counts["benchmarks/results"]  # one file for each thing that is measured
    assert not {folder: count for folder, count in counts.items() if count > MAX_FILES}


def test_nothing_names_a_module_that_moved(tracked):
    here = {name for name in MOVED if name in amber_ext.__all__}  # functions by those names are still there
    names = "|".join(re.escape(name).replace(r"\.", "[./]") for name in MOVED if name not in here)
    modules = "|".join(here)
    old = re.compile(
        rf"\b{PACKAGE}[./](?:{names})(?!\w)"
        rf"|(?:from|import) {PACKAGE}\.(?:{modules})(?!\w)|\b{PACKAGE}/(?:{modules})(?!\w)"
        rf"|\b{PACKAGE}\.(?:{modules})\.\w"
    )
    found = [
        f"{path}:{number}: {match.group()}"
        for path in tracked
        if path != "CHANGELOG.md" and not path.startswith("third_party/")
        for number, line in enumerate((REPOSITORY / path).read_text(errors="replace").splitlines(), start=1)
        for match in old.finditer(line)
    ]
    assert not found, "\n".join(["these moved:", *found])
