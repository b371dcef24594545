"""Runs nvcc and reads what ptxas says of the kernels; warns, or with --strict fails, where a kernel would be slow.

Used as CMake's compiler launcher: ``nvcc_checked.py [--strict] nvcc ARGUMENTS...`` with ``-Xptxas -v`` among them. Another
ptxas than the one the kernels were written with may spill: somebody who installs the package still wants the kernel.
"""

import re
import subprocess
import sys

MAX_SPILL_BYTES = 0  # per kernel, stores and loads together


def problems(report: str) -> list[str]:
    """What is wrong with the kernels of this report."""
    found = []
    if "C7510" in report:
        found.append("ptxas C7510: wgmma instructions are serialised (is NDEBUG missing?)")
    kernel = "unknown kernel"
    for line in report.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)'", line):
            kernel = match[1]
        if match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled = int(match[1]) + int(match[2])
            if spilled > MAX_SPILL_BYTES:
                found.append(f"{spilled} bytes spilled, at most {MAX_SPILL_BYTES} are allowed: {kernel}")
    return found


def main() -> int:
    strict = sys.argv[1] == "--strict"
    command = sys.argv[2:] if strict else sys.argv[1:]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    quiet = [line for line in run.stderr.splitlines() if not re.match(r"ptxas info|\s+\d+ bytes stack", line)]
    sys.stderr.write("".join(f"{line}\n" for line in quiet if line.strip()))
    if run.returncode != 0:
        return run.returncode
    found = problems(run.stderr)
    for problem in found:
        print(f"nvcc_checked: {'error' if strict else 'warning'}: {problem}", file=sys.stderr)
    return 1 if found and strict else 0


if __name__ == "__main__":
    sys.exit(main())
