"""Check a built site: every link and anchor resolves, nothing is loaded from elsewhere, nothing is left undrawn.

python -m website.check FOLDER
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Hosts that pages may lead a reader to. Nothing is ever loaded from one.
OUTSIDE = {
    "arxiv.org", "doi.org", "github.com", "keepachangelog.com", "neuralnetworksanddeeplearning.com", "onnx.ai",
    "onnxruntime.ai", "optuna.org", "papers.nips.cc", "semver.org", "www.cs.toronto.edu", "www.nist.gov",
}  # fmt: skip
LOADED = {
    ("audio", "src"), ("embed", "src"), ("iframe", "src"), ("img", "src"), ("img", "srcset"), ("input", "src"),
    ("link", "href"), ("object", "data"), ("script", "src"), ("source", "src"), ("source", "srcset"), ("use", "href"),
    ("track", "src"), ("video", "poster"), ("video", "src"),
}  # fmt: skip
LINKED = {("a", "href"), ("area", "href"), ("form", "action")}
NOT_LOADED = {"alternate", "author", "canonical", "help", "license", "next", "prev", "search"}  # of <link>
URL = re.compile(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^)"'\s]+))\s*\)|@import\s+["']([^"']+)""")
CODE = {"code", "pre", "script", "style", "annotation", "kbd", "textarea"}
LEFT = re.compile(r"\$\$|\\(?:frac|sum|delta|begin|tag|partial)(?![a-z])|^\|(?: ?:?-+:? ?\|)+$|^- \w", re.M)


@dataclass
class Found:
    """What stands in one HTML page."""

    links: list[tuple[str, bool]] = field(default_factory=list)  # target, and whether it is loaded
    anchors: set[str] = field(default_factory=set)
    twice: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)  # pictures without a text


class Reader(HTMLParser):
    """Collect links, anchors and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Found()
        self.code = 0
        self.in_style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = self.found
        values = {name: value or "" for name, value in attributes}
        if tag in CODE:
            self.code += 1
        self.in_style = tag == "style"
        for name in ("id", "name") if tag == "a" else ("id",):
            if anchor := values.get(name):
                if anchor in found.anchors and name == "id":
                    found.twice.add(anchor)
                found.anchors.add(anchor)
        for name, value in values.items():
            kind = tag, name.removeprefix("xlink:")
            if tag == "link" and "canonical" in values.get("rel", ""):
                continue  # says where the site lies, and is followed by nobody
            if kind in LINKED:
                found.links.append((value, False))
            elif kind in LOADED:
                is_loaded = tag != "link" or not set(values.get("rel", "").split()) & NOT_LOADED
                targets = (
                    [part.split()[0] for part in value.split(",") if part.split()] if name == "srcset" else [value]
                )
                found.links += [(target, is_loaded) for target in targets]
            elif name == "style":
                found.links += [(target, True) for target in urls(value)]
        if tag == "img" and "alt" not in values:
            found.nameless.append(values.get("src", ""))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag in CODE:
            self.code -= 1

    def handle_endtag(self, tag: str) -> None:
        if tag in CODE and self.code:
            self.code -= 1
        self.in_style = False

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.found.links += [(target, True) for target in urls(data)]
        if not self.code:
            self.found.left += [left[0] for left in LEFT.finditer(data)]


def urls(style: str) -> list[str]:
    """Return what a style sheet loads."""
    return [next(filter(None, groups)) for groups in URL.findall(style) if any(groups)]


@cache
def read(page: Path) -> Found:
    """Read a page."""
    reader = Reader()
    reader.feed(page.read_text("utf-8"))
    reader.close()
    return reader.found


def check(site: Path) -> Iterator[str]:
    """Give a line for each fault of a site: the page, the link, and what is wrong."""
    read.cache_clear()
    _broken.cache_clear()
    site = site.resolve()
    pages = sorted(site.rglob("*.html"))
    if not pages:
        yield f"{site.name}: no page"
    for page in pages:
        found, name = read(page), page.relative_to(site).as_posix()
        for target, is_loaded in found.links:
            if fault := broken(target, is_loaded, page, site):
                yield f"{name}: {target}: {fault}"
        yield from (f"{name}: #{anchor}: the id stands twice" for anchor in sorted(found.twice))
        yield from (f"{name}: {left!r} was not turned into what it stands for" for left in dict.fromkeys(found.left))
        yield from (f"{name}: {source}: a picture without alt" for source in found.nameless)
    for sheet in sorted(site.rglob("*.css")):
        for target in urls(sheet.read_text("utf-8")):
            if fault := broken(target, True, sheet, site):
                yield f"{sheet.relative_to(site).as_posix()}: {target}: {fault}"


def broken(target: str, is_loaded: bool, page: Path, site: Path) -> str | None:
    """Return what is wrong with a link of a page, or None."""
    if target.startswith("#"):
        return None if target == "#" or unquote(target[1:]) in read(page).anchors else "no such anchor"
    return _broken(target, is_loaded, page.parent, site)


@cache  # the same links stand on every page of a folder
def _broken(target: str, is_loaded: bool, folder: Path, site: Path) -> str | None:
    parts = urlsplit(target)
    if parts.scheme == "data":
        return None
    if parts.scheme in ("http", "https") or parts.netloc:
        if is_loaded:
            return "is loaded from elsewhere"
        return None if parts.hostname in OUTSIDE else "leads to a host that is not listed in scripts/website/check.py"
    if parts.scheme:
        return None if parts.scheme == "mailto" and not is_loaded else f"has the scheme {parts.scheme}"
    path = unquote(parts.path)
    if path.startswith("/"):
        return "begins at the root of the server, where the site need not lie"
    file = (folder / path).resolve()
    if not file.is_relative_to(site):
        return "leads out of the site"
    if file.is_dir():
        file /= "index.html"
    if not file.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and file.suffix == ".html" and anchor not in read(file).anchors:
        return "no such anchor"
    return None


def main(arguments: list[str]) -> int:
    """Print the faults of a site; 1 if there are any."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m website.check FOLDER", file=sys.stderr)
        return 2
    faults = list(check(Path(arguments[0])))
    print("\n".join(faults) if faults else "every link resolves, nothing is loaded from elsewhere")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
