"""Show source files as pages, with an anchor at each line."""

import html
import re
from pathlib import PurePosixPath

from website.files import Repository

FRONT_MATTER = """---
title: {title}
search:
  exclude: true
hide: [navigation, toc]
---

# {title}

"""


def listing(path: str, text: str) -> str:
    """Return a file as HTML, coloured by Pygments; line 12 has the id `L-12`."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_for_filename
    from pygments.lexers.special import TextLexer
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_for_filename(path, stripnl=False, ensurenl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False, ensurenl=False)
    coloured = highlight(text.rstrip("\n"), lexer, HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
    lines = [
        f'<span id="L-{number}" class="line">'
        f'<a href="#L-{number}" data-n="{number}" tabindex="-1" aria-label="Line {number}"></a>{line}\n</span>'
        for number, line in enumerate(coloured, 1)
    ]
    digits = f"--digits: {len(str(len(lines)))}"
    return f'<pre class="listing" tabindex="0" style="{digits}"><code>{"".join(lines)}</code></pre>'


def listing_path(path: str) -> str:
    """Return the staged page of a source file; Zensical passes by names that begin with a dot."""
    return re.sub(r"(^|/)\.", r"\1dot-", path) + ".md"


def placeholder(path: str) -> str:
    """Return the empty element that stands for a listing until the page is built."""
    return f'<div class="highlight" data-listing="{html.escape(path)}"></div>'


def listing_page(path: str) -> str:
    """Return the Markdown of the page of a source file."""
    return FRONT_MATTER.format(title=path) + placeholder(path) + "\n"


def folder_page(path: str, repository: Repository) -> str:
    """Return the Markdown of a page that says what a folder holds; pictures are counted, not named."""
    inside = sorted(name for name in repository.tracked if name.startswith(f"{path}/"))
    counted: dict[str, int] = {}
    lines = []
    for name in inside:
        if repository.is_text(name):
            lines.append(f"- [{name}]({listing_path(posix_relative(name, path))})")
        else:
            key = f"`{PurePosixPath(name).parent}/*{PurePosixPath(name).suffix}`"
            counted[key] = counted.get(key, 0) + 1
    lines += [f"- {key}: {number} files" for key, number in counted.items()]
    return FRONT_MATTER.format(title=path) + "\n".join(lines) + "\n"


def posix_relative(name: str, folder: str) -> str:
    """Return a path as it is seen from a folder that it lies in."""
    return str(PurePosixPath(name).relative_to(folder))
