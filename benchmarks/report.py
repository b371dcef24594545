"""Prints the tables of the README and of docs/ from the results files, and draws the figures.

``report.py`` rewrites the blocks of these pages between ``<!-- results: NAME -->`` and ``<!-- end -->`` (`tables`), and
the figures (`figures`); ``report.py --check`` fails when one of them is not what the results files say.
"""

from __future__ import annotations

import re
import sys

from environment import ROOT
from figures import figures, is_current
from tables import TABLES

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def render(text: str) -> str:
    """A page with every block written anew."""

    def block(match: re.Match) -> str:
        return f"<!-- results: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def stale() -> list[str]:
    """The pages and figures that are not what the results files say."""
    pages = [page for page in PAGES if render(page.read_text()) != page.read_text()]
    drawn = [path for path, data, _ in figures() if not is_current(path, data)]
    return [str(path.relative_to(ROOT)) for path in (*pages, *drawn)]


def main() -> None:
    if "--check" in sys.argv[1:]:
        if found := stale():
            sys.exit(f"{', '.join(found)}: not what benchmarks/results says; run benchmarks/report.py")
        return
    for page in PAGES:
        page.write_text(render(page.read_text()))
    for path, data, draw in figures():
        if not is_current(path, data):
            draw(data, path)


if __name__ == "__main__":
    main()
