"""The README is true: its tables come from the results files, its example runs as printed."""

import re
import subprocess
import sys

from helpers import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def test_tables_are_what_the_results_files_say():
    command = [sys.executable, REPOSITORY / "benchmarks" / "report.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_example_runs_as_printed():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(example.splitlines()) <= 10
    result = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "90 of 210 linear projections pruned to 8:16" in result.stdout
    assert "The capital of France is" in result.stdout


def test_every_command_exists():
    from amber_ext.cli import app

    named = set(re.findall(r"^amber-ext (\w+)", README, flags=re.MULTILINE))
    assert named <= {command.name or command.callback.__name__ for command in app.registered_commands}
    for path in re.findall(r"`((?:scripts|benchmarks|amber_ext|docs|examples|tests)/[\w./]+)", README):
        assert (REPOSITORY / path.split()[0]).exists(), path
