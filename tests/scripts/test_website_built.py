"""The site as it was built: set GPUNN_SITE to its folder. It needs the extra `site`, and Node.js."""

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from support.paths import ROOT
from website import formulas
from website.build import run_zensical
from website.check import check
from website.files import SiteError
from website.navigation import configuration
from website.pages import Formula

import gpunn as gn

SITE = Path(os.environ.get("GPUNN_SITE", "none")).resolve()
pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="GPUNN_SITE names no folder: run scripts/site.sh first")


def page(name: str) -> str:
    return (SITE / name).read_text("utf-8")


def test_it_has_no_fault() -> None:
    assert list(check(SITE)) == []


def test_the_readme_is_its_home_and_all_its_pages_are_there() -> None:
    assert "gpunn trains neural networks straight from their equations" in page("index.html")
    for name in (*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md", *(ROOT / "gpunn").rglob("*.py")):
        built = name.relative_to(ROOT).as_posix().removesuffix(".md").replace("README", "index") + ".html"
        assert (SITE / built).is_file(), built


def test_every_public_name_has_an_entry_with_its_signature_and_its_source() -> None:
    pages = {path.name: path.read_text("utf-8") for path in (SITE / "reference").glob("*.html")}
    entries = {name: text for text in pages.values() for name in re.findall(r'<h2 id="(\w+)"', text)}
    assert set(entries) >= {*gn.__all__, "Classifier", "Regressor"}
    assert not [name for name in entries if name.startswith("_")]
    fit = entries["Sequential"].partition('id="Sequential.fit"')[2].partition("<h3")[0]
    text = re.sub(r"<[^>]+>", "", fit)
    assert "batch_size: int | None = None" in text
    assert "Number of epochs" in text
    assert 'href="../gpunn/sequential.py.html#L-' in fit
    assert not re.search(r'id="Sequential\.(?:_|arranged|clock)', entries["Sequential"])


def test_formulas_are_drawn_without_a_script() -> None:
    chapters = sorted((SITE / "lecture").glob("[0-9]*.html"))
    assert chapters
    for chapter in chapters:
        text = chapter.read_text("utf-8")
        assert 'class="katex-mathml"' in text, chapter.name
        assert not re.search(r'id="formula-\d+"|data-listing=', text), chapter.name
        assert (SITE / "lecture" / f"{chapter.stem}.ipynb").is_file()
        assert json.loads((SITE / "lecture" / f"{chapter.stem}.ipynb").read_text("utf-8"))["cells"]
        assert 'href="../docs/equations.html#eq-' in text, chapter.name
    assert "katex" not in "".join(re.findall(r"<script[^>]*>", page("lecture/01_forward_pass.html")))


def test_a_link_with_words_leads_to_their_line() -> None:
    found = re.search(r'href="\.\./(gpunn/[\w/]+\.py)\.html#L-(\d+)"', page("lecture/01_forward_pass.html"))
    assert found
    line = (ROOT / found[1]).read_text("utf-8").splitlines()[int(found[2]) - 1]
    shown = re.search(rf'<span id="L-{found[2]}" class="line"><a[^>]*></a>(.*)\n', page(f"{found[1]}.html"))
    assert shown
    import html

    assert html.unescape(re.sub(r"<[^>]+>", "", shown[1])) == line


def test_the_index_of_the_search_has_the_pages_and_not_the_sources() -> None:
    index = json.loads(page("search.json"))
    places = {entry["location"] for entry in index["items"]} if "items" in index else set()
    assert any(place.startswith("reference/optimizers.html") for place in places)
    assert any(place.startswith("docs/recipes.html") for place in places)
    assert not [place for place in places if place.startswith(("gpunn/", "tests/"))]


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Path]:
    """Configures a site of one page."""

    def write(text: str) -> Path:
        (tmp_path / "pages" / "theme").mkdir(parents=True)
        (tmp_path / "pages" / "index.md").write_text(text, "utf-8")
        for name in ("site.css", "katex.css"):
            (tmp_path / "pages" / "theme" / name).touch()
        (tmp_path / "zensical.toml").write_text(tomli_w.dumps(configuration([{"Home": "index.md"}])), "utf-8")
        return tmp_path / "zensical.toml"

    return write


def test_a_warning_of_the_generator_fails_the_build(project: Callable[[str], Path]) -> None:
    with pytest.raises(SiteError, match=r"(?s)Zensical found fault with the pages:.*does not exist.*index.md:1"):
        run_zensical(project("[nowhere](none.md)"))


def test_a_good_page_is_built(project: Callable[[str], Path]) -> None:
    made = run_zensical(project("# A\n\nB\n"))
    assert (made / "index.html").is_file()


def test_a_formula_that_cannot_be_drawn_is_named_with_its_page() -> None:
    katex = formulas.unpack_katex(ROOT / "build" / "site" / "katex-0.19.1")
    (drawn,) = formulas.draw([Formula(r"\frac{1}{2}", True, "README.md")], katex)
    assert drawn.startswith('<span class="katex-display">')
    with pytest.raises(SiteError, match=r"docs/a.md: '\\\\none': .*Undefined control sequence"):
        formulas.draw([Formula("a", False, "README.md"), Formula("\\none", True, "docs/a.md")], katex)


def test_the_generator_is_pinned() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert any(re.fullmatch(r"zensical==[\d.]+", name) for name in extras["site"])
