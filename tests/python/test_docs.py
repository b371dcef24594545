"""The pages are true: tables and figures are those of the results files, code and commands run, and what they name exists."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest
import torch
from helpers import REPOSITORY

import amber_ext
from amber_ext import AmberConfig, sparsify_
from amber_ext.config import DEFAULT_TARGETS
from amber_ext.families import FAMILIES
from amber_ext.methods.norm_folding import readers_of_norm
from amber_ext.ops.sparse_gemms import SPARSE_GEMMS

README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FOLDERS = ("amber_ext", "benchmarks", "csrc", "docs", "examples", "scripts", "tests", "third_party")


def name_of(page):
    return str(page.relative_to(REPOSITORY))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
# Those whose blocks take more than a few seconds.
SLOW = [REPOSITORY / "docs" / "integrations.md", REPOSITORY / "docs" / "quick_start.md"]
pages_with_python = pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
        for page in PAGES
        if page != README and blocks(page, "python")
    ],
    ids=name_of,
)


def test_tables_and_figures_are_what_the_results_files_say(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import report

    assert report.stale() == []


def test_every_block_is_one_that_is_tested():
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), flags=re.MULTILINE)
        assert set(fences[::2]) <= {"", "python", "text"} and set(fences[1::2]) <= {""}, page.name


@pytest.mark.slow
def test_the_example_of_the_readme_runs_as_printed():
    (example,) = blocks(README, "python")
    assert len(example.splitlines()) <= 10
    result = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "90 of 210 linear projections pruned to 8:16" in result.stdout
    assert "The capital of France is" in result.stdout


@pages_with_python
def test_python_blocks_run(page, tiny_model_folder, tmp_path, monkeypatch):
    """One after the other, in a folder that has a model called MODEL."""
    (tmp_path / "MODEL").symlink_to(tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    if "from peft" in page.read_text():
        pytest.importorskip("peft")
    names = {}
    for block in blocks(page, "python"):
        exec(compile(block, name_of(page), "exec"), names)
        if "again = " in block:  # there it says that this is the same model
            saved = names["loaded"].model if "loaded." in block else names["model"]
            with torch.inference_mode():
                assert torch.equal(names["again"](names["ids"]).logits, saved(names["ids"]).logits)
    if "with prefill()" in page.read_text():
        assert not torch.equal(names["sparse"], names["dense"])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_table_of_families(family):
    """What it says of pruning, folding and experts, on small models of transformers' own classes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    kind = family.name.lower().replace("-", "_")
    config = AutoConfig.for_model(kind, **sizes, **heads, **(experts if family.experts else {}))
    model = AutoModelForCausalLM.from_config(config)
    norms = ["input_layernorm"] if family.experts else ["input_layernorm", "post_attention_layernorm"]
    readers = family.decoder_layer.readers
    assert [norm for norm in readers if readers_of_norm(model, f"model.layers.0.{norm}")] == norms
    rows = [row for row in sparsify_(model, AmberConfig()).rows if row.sparse]
    assert {row.projection for row in rows} == set(DEFAULT_TARGETS) and len(rows) == 6
    assert {row.reason for row in rows if "experts" in row.name} == (
        {"2:4 magnitude"} if family.experts else set()
    )


def test_every_op_is_in_the_design():
    schemas = (REPOSITORY / "csrc" / "torch" / "schema.cpp").read_text()
    named = re.findall(r"`amber::(\w+)`", (REPOSITORY / "docs" / "design.md").read_text())
    assert set(re.findall(r'"(\w+)\(', schemas)) <= set(named)


@pytest.mark.skipif(not SPARSE_GEMMS, reason="this build has no sparse GEMMs")
def test_the_table_of_shapes():
    """What the kernels of this build say of the shapes that they take."""
    text = (REPOSITORY / "docs" / "support.md").read_text()
    (table,) = re.findall(r"^\| operands \|.*?\n\n", text, flags=re.DOTALL | re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()[2:]]
    said = {(row[0], gpu): row[2:] for row in rows for gpu in row[1].split(", ")}
    for gemm in SPARSE_GEMMS:
        operands = "16-bit" if gemm.operands == "16-bit" else "8-bit"
        largest = "any" if gemm.max_in_features is None else f"{gemm.max_in_features:,}"
        multiples = [str(gemm.in_features_multiple), str(gemm.copies_in_features_multiple)]
        rescale = "yes, in the token's scale" if gemm.rescales else "no"
        takes = [*multiples, largest, str(gemm.out_features_multiple), rescale]
        assert said[operands, f"SM{gemm.arch}"] == takes, gemm.name


def commands(page):
    """The words of every ``amber-ext`` line in a block without a language."""
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("amber-ext ")]


@every_page
def test_commands_exist_with_the_options_that_are_shown(page):
    import typer

    from amber_ext.cli import app

    group = typer.main.get_command(app)
    for name, *arguments in commands(page):
        # Parses, checks types and what is required, and runs nothing.
        group.commands[name].make_context(name, arguments)
    for text in re.findall(r"`amber-ext ([^`]+)`", page.read_text()):
        name, *arguments = shlex.split(text)
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known, text


@every_page
def test_make_targets_exist(page):
    text = "\n".join(blocks(page, "")) + "\n".join(re.findall(r"`(make[^`]*)`", page.read_text()))
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^make (?:\w+=\S+ )?([\w-]+)", text, flags=re.MULTILINE)) <= targets


@every_page
def test_paths_exist(page):
    for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./]+)`?", page.read_text()):
        assert (REPOSITORY / path).exists(), path
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


API = [
    path
    for page in sorted((REPOSITORY / "docs" / "api").glob("*.md"))
    for path in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
]


def test_the_api_pages_have_every_public_name():
    public = {*amber_ext.__all__, "AmberQuantConfig", "attach_config"} - {
        "QuantizationReport"
    }  # another name of Report
    assert public <= {path.rpartition(".")[2] for path in API} and len(API) == len(set(API))
    for path in API:
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        assert found.__module__ == module and found.__doc__, path


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_its_links_lead_somewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (make docs installs it)")
    build = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    for command in (build, [str(REPOSITORY / "scripts" / "check_links.py"), str(tmp_path)]):
        result = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert "links, none broken" in result.stdout
    # Names in backticks lead to the API, and the repository's own links to pages of the site.
    assert (
        'href="../api/models/#amber_ext.methods.sparsify.sparsify_"'
        in (tmp_path / "integrations" / "index.html").read_text()
    )
    page = tmp_path / "design" / "index.html"
    page.write_text(page.read_text().replace('href="../results/', 'href="../reslts/'))
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert result.returncode == 1 and "design/index.html: ../reslts/" in result.stderr


def test_the_quick_start_names_the_wheel_that_is_built():
    (version,) = re.findall(
        r'^version = "(.*)"$', (REPOSITORY / "pyproject.toml").read_text(), flags=re.MULTILINE
    )
    assert f"dist/amber_ext-{version}-py3-none-manylinux" in (REPOSITORY / "docs/quick_start.md").read_text()


def test_modules_that_moved():
    """Each `old` -> `new` of the changelog: the old module is gone, the new one exists."""
    package = REPOSITORY / "amber_ext"
    moves = re.findall(r"`([\w.]+)` -> `([\w.]+)`", (REPOSITORY / "CHANGELOG.md").read_text())
    assert len(moves) > 40
    for old, new in moves:
        path = package / new.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), new
        assert not (package / old.replace(".", "/")).with_suffix(".py").exists(), old


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 140
