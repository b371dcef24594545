"""Fails when a page of a built site links to a file, or to a place in a page, that the site does not have.

python scripts/check_links.py FOLDER. Links to other servers are not followed.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the names of its places."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.places = [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}


def broken_links(root: Path) -> tuple[int, list[str]]:
    """How many links were looked at, and a line for each that leads nowhere."""
    pages = {path: Page(path) for path in sorted(root.rglob("*.html"))}
    count, broken = 0, []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # it is shown at any address, so its links begin at the server's root
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            place = unquote(parts.fragment)
            if not target.is_file() or (target in pages and place not in pages[target].places):
                broken.append(f"{path.relative_to(root)}: {link}")
    return count, broken


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    count, broken = broken_links(root)
    if not count:
        sys.exit(f"check_links.py: {root} has no links; it must be the folder of a built site")
    if broken:
        sys.exit("\n".join([f"{len(broken)} of {count} links lead nowhere:", *broken]))
    print(f"{count} links, none broken")


if __name__ == "__main__":
    main()
