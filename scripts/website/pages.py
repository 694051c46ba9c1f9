"""Turn Markdown as GitHub shows it into Markdown as the site shows it: links, formulas, folded parts."""

import html
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from website.check import OUTSIDE
from website.files import Repository, SiteError
from website.listings import listing_path

FENCE = re.compile(r"^( *)(`{3,}|~{3,})")
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
LINK = re.compile(r'\]\((?P<target>[^()\s]+)(?:\s+"(?P<title>[^"]*)")?\)')
LINK_TEXT = re.compile(r"\[(?:[^\[\]`]|`[^`]*`|\[[^\]]*\])*\]\([^()]*\)")
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.S)
INLINE = re.compile(r"(?<![\\$\w])\$(?=[^\s$])((?:[^$\n]|\n(?!\n))+?)(?<=[^\s\\])\$(?![\d$])")
NUMBER = re.compile(r"(?<![\w.(\[])\((\d{1,2})\)(?!\])")
TAG = re.compile(r"\\tag\{\s*\(?([^{}()]+)\)?\s*\}")
PLACE = re.compile(r"(?P<path>[\w./-]+\.(?:py|toml|sh|md|csv))(?:::(?P<name>[\w.]+))?")
PUBLIC = re.compile(r"gn\.(?P<name>[A-Za-z_]\w*)(?:\.\w+)?(?:\(.*\))?", re.S)


@dataclass
class Formula:
    """A formula of a page, which the built page shows where its placeholder stands."""

    tex: str
    displayed: bool
    page: str

    def placeholder(self, number: int) -> str:
        """Return the empty element that stands for it in Markdown and in HTML."""
        return f'<span class="{"formula" if self.displayed else "inline-formula"}" id="formula-{number}"></span>'


@dataclass
class Context:
    """What pages share: where each file of the repository goes, and what they were found to need."""

    repository: Repository
    pages: dict[str, str]  # path in the repository -> path among the staged pages
    public: dict[str, str] = field(default_factory=dict)  # public name -> page#anchor
    equations: dict[str, str] = field(default_factory=dict)  # number -> page#anchor
    formulas: list[Formula] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)  # files that need a page of their source
    pictures: set[str] = field(default_factory=set)

    def listing(self, path: str) -> str:
        """Return the staged page of a source file, and remember to make it."""
        self.listed.add(path)
        return listing_path(path)


def prose_parts(text: str) -> Iterator[tuple[bool, str]]:
    """Split Markdown into (is prose, text): fenced and indented code and comments are none, code spans in prose are."""
    prose: list[str] = []
    code: list[str] = []
    fence = ""
    blank, in_list = True, False
    for line in text.splitlines(keepends=True):
        opened = FENCE.match(line)
        if fence:
            code.append(line)
            if opened and opened[2].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
                yield False, "".join(code)
                code = []
            continue
        if opened:
            fence = opened[2]
        in_list = bool(re.match(r" {0,3}(?:[-*+]|\d+[.)])\s", line)) or (
            in_list and (not line.strip() or line[0] == " ")
        )
        is_code = bool(fence) or (line.startswith("    ") and (blank or bool(code)) and not in_list)
        if is_code or (code and not line.strip()):
            if prose:
                yield True, "".join(prose)
                prose = []
            code.append(line)
        else:
            if code:
                yield False, "".join(code)
                code = []
            prose.append(line)
        blank = not line.strip()
    for is_prose, rest in ((True, prose), (False, code)):
        if rest:
            yield is_prose, "".join(rest)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return prose with `change` applied to what is not in code spans."""
    parts, end = [], 0
    for span in CODE_SPAN.finditer(text):
        parts += [change(text[end : span.start()]), span[0]]
        end = span.end()
    return "".join([*parts, change(text[end:])])


def breakable(name: str) -> str:
    """Return a name as code that may be broken at its underscores and dots, for narrow tables."""
    return "<code>" + re.sub(r"([_.])(?=\w)", r"\1<wbr>", name).replace("_", "&#95;") + "</code>"


class Page:
    """One page on its way from the repository to the site."""

    def __init__(self, source: str, context: Context, staged: str | None = None) -> None:
        self.source = source
        self.context = context
        self.staged = staged or context.pages[source]
        self.linked: set[str] = set()

    def converted(self, text: str) -> str:
        """Return the Markdown of the site. A link to nowhere is a `SiteError` that names page and link."""
        text = re.sub(r"<details(?![^>]*markdown)([^>]*)>", r'<details markdown="1"\1>', text)
        parts = []
        for is_prose, part in prose_parts(text):
            parts.append(self._prose(part) if is_prose else part)
        return "".join(parts)

    def _prose(self, text: str) -> str:
        text = outside_code(text, self._formulas)
        if self.source.startswith("lecture/"):
            text = outside_code(text, self._numbers)
        text = self._links(text)
        return self._places(text)

    def to(self, staged: str) -> str:
        """Return a link from this page to another staged one."""
        path, hash_, anchor = staged.partition("#")
        return os.path.relpath(path, posixpath.dirname(self.staged) or ".") + hash_ + anchor

    # --- Formulas

    def _formulas(self, text: str) -> str:
        return INLINE.sub(self._inline, DISPLAYED.sub(self._displayed, text))

    def _add(self, tex: str, displayed: bool) -> str:
        formula = Formula(tex, displayed, self.source)
        self.context.formulas.append(formula)
        return formula.placeholder(len(self.context.formulas) - 1)

    def _inline(self, found: re.Match[str]) -> str:
        return self._add(found[1].strip(), displayed=False)

    def _displayed(self, found: re.Match[str]) -> str:
        tags = TAG.findall(found[1])
        formula = self._add(TAG.sub("", found[1]).strip(), displayed=True)
        links = " ".join(self._equation(tag.strip()) for tag in tags)
        return f'<span class="displayed">{formula}<span class="tag">{links}</span></span>'

    def _equation(self, number: str) -> str:
        if (place := self.context.equations.get(number)) is None:
            if number.isdigit():
                raise SiteError(
                    f"{self.source}: equation ({number}) has no row in docs/equations.md: give its number there"
                )
            return f"({html.escape(number)})"
        return f"[({number})]({self.to(place)})"

    def _numbers(self, text: str) -> str:
        """Let each number of an equation in the lecture's prose, as (13), lead to it."""
        within = [(link.start(), link.end()) for link in LINK_TEXT.finditer(text)]

        def number(found: re.Match[str]) -> str:
            if found[1] not in self.context.equations or any(start < found.start() < end for start, end in within):
                return found[0]
            return self._equation(found[1])

        return NUMBER.sub(number, text)

    # --- Links

    def _links(self, text: str) -> str:
        spans = [(span.start(), span.end()) for span in CODE_SPAN.finditer(text)]

        def link(found: re.Match[str]) -> str:
            if any(start < found.start() < end for start, end in spans):
                return found[0]
            return f"]({self._target(found['target'], found['title'])})"

        return LINK.sub(link, text)

    def _target(self, target: str, title: str | None) -> str:
        if re.match(r"[a-z][a-z+.-]*:|#|//", target):
            if (host := urlsplit(target).hostname) and host not in OUTSIDE:
                mend = "list the host in scripts/website/check.py, if readers may be led there"
                raise SiteError(f"{self.source}: the link to {target} leaves the site: {mend}")
            return target if title is None else f'{target} "{title}"'
        path, hash_, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(self.source), path))
        return self._resolved(path, hash_ + anchor, target, title)

    def _resolved(self, path: str, anchor: str, target: str, title: str | None) -> str:
        context = self.context
        files = context.repository
        if path in context.pages:
            return self.to(context.pages[path] + anchor)
        if path in files.folders:
            for name in ("README.md", "index.md"):
                if f"{path}/{name}" in context.pages:
                    return self.to(context.pages[f"{path}/{name}"] + anchor)
            context.listed.add(path)
            return self.to(f"{path}/index.md")
        if path not in files.tracked:
            if posixpath.join(posixpath.dirname(self.staged), target) in context.pictures:
                return target
            raise SiteError(f"{self.source}: the link to {target} leads to no file of the repository")
        if not files.is_text(path):
            context.pictures.add(path)
            return self.to(path)
        where = self.to(context.listing(path))
        if title is None:
            return where + anchor
        try:
            line = files.line_with(path, title)
        except SiteError as error:
            raise SiteError(f"{self.source}: link to {target}: {error}") from None
        return f'{where}#L-{line} "{path}, line {line}"'

    # --- Code spans that name a place

    def _places(self, text: str) -> str:
        within = [(link.start(), link.end()) for link in LINK_TEXT.finditer(text)]
        headings = [(line.start(), line.end()) for line in re.finditer(r"^#.*$", text, re.M)]

        def span(found: re.Match[str]) -> str:
            if any(start <= found.start() < end for start, end in within + headings):
                return found[0]
            code = found[2].strip()
            where = self._place(code)
            if where and "::" in code:  # the name is enough to read, and fits into tables
                return f'[{breakable(code.rpartition("::")[2])}]({where} "{code}")'
            return f"[{found[0]}]({where})" if where else found[0]

        return CODE_SPAN.sub(span, text)

    def _place(self, code: str) -> str | None:
        if (found := PLACE.fullmatch(code)) and found["path"] in self.context.repository.tracked:
            path, name = found["path"], found["name"]
            if path == self.source:
                return None
            if path in self.context.pages and not name:
                return self.to(self.context.pages[path])
            line = self.context.repository.line_of(path, name) if name and path.endswith(".py") else None
            return self.to(self.context.listing(path)) + (f"#L-{line}" if line else "")
        if (found := PUBLIC.fullmatch(code)) and found["name"] in self.context.public:
            place = self.context.public[found["name"]]
            if place in self.linked or place.startswith(f"{self.staged}#"):
                return None
            self.linked.add(place)  # the first time on a page is enough
            return self.to(place)
        return None
