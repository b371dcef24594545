"""What mkdocs.yml needs of Python: the repository's own pages as pages of the site, and links between all of them.

In the repository a link names a file as it lies there, so that it works where the repository is shown. The site has
other places: README.md is its front page, and docs/ is its root.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files, config):
    """Adds the pages that lie outside of docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=_links((ROOT / name).read_text(), in_root=True)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links out of docs/ into links to those pages."""
    if page.parent is None:
        page.meta["hide"] = ["navigation"]  # it would be a list of one
    return markdown if page.file.src_uri in PAGES.values() else _links(markdown, in_root=False)


def on_page_content(html, page, config, files):
    """Makes names of the API links to it, wherever they stand in the text; keeps a figure and its error on one line."""
    html = html.replace(" ± ", "\u00a0±\u00a0")
    names = {}
    for file in files.documentation_pages():
        for path in re.findall(r"^::: (\S+)", file.content_string, flags=re.MULTILINE):
            names[path.rpartition(".")[2]] = path

    def link(match: re.Match) -> str:
        path = names.get(match[1])
        return match[0] if path is None else f'<autoref identifier="{path}" optional>{match[0]}</autoref>'

    # Behind a tag it is a heading, or a link already.
    return re.sub(r"(?<!>)<code>(\w+)</code>", link, html)


def _links(text: str, in_root: bool) -> str:
    def link(match: re.Match) -> str:
        target = match[1]
        path = target if in_root else target.removeprefix("../")
        if path in PAGES and (in_root or path != target):
            return f"]({PAGES[path]}"
        return f"]({path.removeprefix('docs/')}" if in_root else match[0]

    return re.sub(r"\]\(([^)#\s]+)", link, text)
