"""The checker of the built site finds each kind of fault, and names its page and link."""

from pathlib import Path

import pytest
from website.check import check, main

GOOD = """<!doctype html><html><head><link rel="stylesheet" href="a.css"><link rel="canonical" href="https://elsewhere.invalid/">
<script src="a.js">const page = "<a href='none.html'>"; // $$ </script></head><body>
<h1 id="top">A</h1> <a href="#top">1</a> <a href="b/">2</a> <a href="b/index.html#L-1">3</a> <a href="b%20c.html">4</a>
<a href="https://arxiv.org/abs/1">5</a> <a href="?q=1#top">6</a> <a href="a.css">7</a>
<img src="data:image/png;base64,AA" alt="">
<img src="a.png" srcset="a.png 1x, b/../a.png 2x" alt="A"> <code>$$ \\frac</code> <a name="old"></a>
<a href="#old">8</a> <a href="mailto:somebody@elsewhere.invalid">9</a> costs $5 or $6 </body></html>
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A good one."""
    files = {
        "index.html": GOOD,
        "b/index.html": '<span id="L-1"></span> <a href="../index.html#top">A</a> <a href="..">B</a>',
        "b c.html": "<p>C</p>",
        "a.css": "@font-face { src: url(a.woff2) format('woff2'), url('data:font/woff2;base64,AA') } /* $$ */",
        "a.js": "", "a.png": "", "a.woff2": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def test_a_good_site_has_no_fault(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(check(site)) == []
    assert main([str(site)]) == 0
    assert "every link resolves" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="none.html">', "none.html: no such file"),
        ('<a href="b">', None),
        ('<a href="none/">', "none/: no such file"),
        ('<a href="#none">', "#none: no such anchor"),
        ('<a href="b/#L-2">', "b/#L-2: no such anchor"),
        ('<a href="../outside.html">', "../outside.html: leads out of the site"),
        ('<a href="/b/">', "/b/: begins at the root"),
        ('<a href="https://elsewhere.invalid/">', "leads to a host that is not listed"),
        ('<a href="//elsewhere.invalid/">', "leads to a host that is not listed"),
        ('<a href="javascript:alert(1)">', "has the scheme javascript"),
        ('<img src="none.png" alt="">', "none.png: no such file"),
        ('<img src="a.png">', "a.png: a picture without alt"),
        ('<img src="https://arxiv.org/a.png" alt="">', "https://arxiv.org/a.png: is loaded from elsewhere"),
        ('<img srcset="a.png 1x, none.png 2x" alt="">', "none.png: no such file"),
        ('<script src="https://arxiv.org/a.js"></script>', "is loaded from elsewhere"),
        ('<script src="//arxiv.org/a.js"></script>', "is loaded from elsewhere"),
        ('<link rel="stylesheet" href="https://arxiv.org/a.css">', "is loaded from elsewhere"),
        ('<link rel="preconnect" href="https://arxiv.org">', "is loaded from elsewhere"),
        ('<link rel="icon" href="none.png">', "none.png: no such file"),
        ('<iframe src="https://arxiv.org"></iframe>', "is loaded from elsewhere"),
        ('<svg><use xlink:href="none.svg#a"/></svg>', "none.svg#a: no such file"),
        ('<p style="background: url(https://arxiv.org/a.png)">', "is loaded from elsewhere"),
        ("<style>@import 'https://arxiv.org/a.css';</style>", "is loaded from elsewhere"),
        ("<style>p { background: url(none.png) }</style>", "none.png: no such file"),
        ('<p id="a"></p><p id="a"></p>', "#a: the id stands twice"),
        ("<p>$$ a = b $$</p>", "'$$' was not turned into"),
        ("<p>\\frac12</p>", "'\\\\frac' was not turned into"),
        ("<p>\n| a | b |\n|---|---|\n</p>", "'|---|---|' was not turned into"),
        ("<p>a:\n- b</p>", "'- b' was not turned into"),
        ("<p><code>a</code> $$ a</p>", "'$$' was not turned into"),
    ],
)
def test_a_fault_is_named_with_its_page(html: str, fault: str | None, site: Path) -> None:
    (site / "page.html").write_text(html, "utf-8")
    found = list(check(site))
    assert len(found) == (fault is not None), found
    assert all(line.startswith("page.html: ") and str(fault) in line for line in found)


def test_a_style_sheet_loads_nothing_from_elsewhere(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "a.css").write_text(
        'p { background: url("https://arxiv.org/a.png") } q { background: url(none.png) }', "utf-8"
    )
    assert main([str(site)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "a.css: https://arxiv.org/a.png: is loaded from elsewhere",
        "a.css: none.png: no such file",
    ]
    assert main([]) == 2


def test_an_empty_site_is_none(tmp_path: Path) -> None:
    assert list(check(tmp_path)) == [f"{tmp_path.name}: no page"]
