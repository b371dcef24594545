"""Writes benchmarks/results/architectures.json: what amber_ext does with every architecture of the table.

Run it from the repository root, then ``python benchmarks/report.py``.
"""

import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests" / "python"), str(ROOT / "benchmarks")]


def main():
    import environment
    import transformers
    from architectures.outcomes import outcome
    from architectures.table import ARCHITECTURES

    logging.disable(logging.WARNING)
    rows = [{"name": a.name, **outcome(a)} for a in ARCHITECTURES]
    environment.write("architectures", {"transformers": transformers.__version__, "rows": rows})


if __name__ == "__main__":
    main()
