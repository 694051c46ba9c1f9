"""How pages of the repository become pages of the site: links, places in the code, formulas; nothing is built here."""

import re
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT
from website import formulas
from website.build import equation_anchors, sources, staged_path
from website.files import Repository, SiteError
from website.listings import folder_page, listing_path
from website.navigation import Chapters, guide_pages, with_download
from website.pages import Context, Page, prose_parts
from website.reference import TOPICS, anchors, topic_of

import gpunn as gn

LOSSES = '''"""The losses."""

SCALE = 2


class Loss:
    """A loss."""

    def forward(self):
        """Return a scalar."""
        return SCALE
'''
FILES = {
    "README.md": "# gpunn\n\n[data](docs/data.md)\n",
    "docs/data.md": "# Data\n\n## Targets\n",
    "docs/images/curves.png": "\0",
    "docs/equations.md": "# Equations\n\n(1)–(4)\n\n## A\n\n(2)–(3) are proofs.\n\n| no. |\n|---|\n| (1) (4) | a |\n",
    "gpunn/losses.py": LOSSES,
    "examples/shapes/a.png": "\0",
    "examples/shapes/make.py": "1\n",
    ".ci/run": "true\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A small one."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return Repository(tmp_path)


def context(repository: Repository) -> Context:
    pages = {name: staged_path(name) for name in sources(repository)}
    _, equations = equation_anchors(repository.text("docs/equations.md"))
    return Context(repository, pages, {"SGD": "reference/optimizers.md#SGD"}, equations)


def converted(text: str, repository: Repository, source: str = "docs/page.md") -> str:
    shared = context(repository)
    shared.pages[source] = source
    return Page(source, shared).converted(text)


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[a](data.md)", "[a](data.md)"),
        ("[a](data.md#targets)", "[a](data.md#targets)"),
        ("[a](../README.md)", "[a](../index.md)"),
        ("[a](..)", "[a](../index.md)"),
        ("[a](#below)", "[a](#below)"),
        ("[a](https://arxiv.org/abs/1)", "[a](https://arxiv.org/abs/1)"),
        ("![a](images/curves.png)", "![a](images/curves.png)"),
        ("[a](../gpunn/losses.py)", "[a](../gpunn/losses.py.md)"),
        ('[a](../gpunn/losses.py "def forward")', '[a](../gpunn/losses.py.md#L-9 "gpunn/losses.py, line 9")'),
        ("[`a`](../gpunn/losses.py)", "[`a`](../gpunn/losses.py.md)"),
        ("[a](../examples/shapes)", "[a](../examples/shapes/index.md)"),
        ("[a](../.ci/run)", "[a](../dot-ci/run.md)"),
        ("`[a](none.md)`", "`[a](none.md)`"),
        ("```\n[a](none.md)\n```", "```\n[a](none.md)\n```"),
        ("    [a](none.md)", "    [a](none.md)"),
    ],
)
def test_a_link_of_the_repository_becomes_one_of_the_site(link: str, becomes: str, repository: Repository) -> None:
    assert converted(link, repository) == becomes


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("[a](none.md)", "docs/page.md: the link to none.md leads to no file"),
        (
            "[a](https://elsewhere.invalid/)",
            "docs/page.md: the link to https://elsewhere.invalid/ leaves the site: list",
        ),
        ("![a](none.png)", "docs/page.md: the link to none.png leads to no file"),
        ('[a](../gpunn/losses.py "none of it")', r"docs/page.md: .*'none of it' stands in no line"),
        ('[a](../gpunn/losses.py "Loss")', r"'Loss' stands in no line|in lines"),
        ('[a](../gpunn/losses.py "SCALE")', r"'SCALE' stands in lines 3, 11"),
    ],
)
def test_a_link_to_nowhere_is_refused_with_its_page(link: str, fault: str, repository: Repository) -> None:
    if '"Loss"' in link:
        assert "losses.py.md#L-6" in converted(link, repository)  # of one line
        return
    with pytest.raises(SiteError, match=fault):
        converted(link, repository)


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("`gpunn/losses.py`", "[`gpunn/losses.py`](../gpunn/losses.py.md)"),
        ("`gpunn/losses.py::Loss.forward`",
         '[<code>Loss.<wbr>forward</code>](../gpunn/losses.py.md#L-9 "gpunn/losses.py::Loss.forward")'),
        ("`gpunn/losses.py::SCALE`", '[<code>SCALE</code>](../gpunn/losses.py.md#L-3 "gpunn/losses.py::SCALE")'),
        ("`gpunn/none.py`", "`gpunn/none.py`"),
        ("`docs/data.md`", "[`docs/data.md`](data.md)"),
        ("`gn.SGD(0.1)` and `gn.SGD`", "[`gn.SGD(0.1)`](../reference/optimizers.md#SGD) and `gn.SGD`"),
        ("`gn.None`", "`gn.None`"),
        ("[see `gn.SGD`](data.md)", "[see `gn.SGD`](data.md)"),
        ("## `gn.SGD`", "## `gn.SGD`"),
    ],
)  # fmt: skip
def test_code_that_names_a_place_leads_there(code: str, becomes: str, repository: Repository) -> None:
    assert converted(code, repository) == becomes


def test_formulas_are_taken_from_prose_alone_and_their_numbers_lead_to_the_equations(repository: Repository) -> None:
    shared = context(repository)
    page = Page("README.md", shared)
    text = page.converted(
        "$$\nz = w a \\tag{2}\n$$\n\nwith $w_q$, 5 $ or 6 $, `$a$` and\n\n    $b$\n\n```\n$$c$$\n```\n"
    )
    assert [(formula.tex, formula.displayed) for formula in shared.formulas] == [("z = w a", True), ("w_q", False)]
    assert "[(2)](docs/equations.md#eq-2)" in text
    assert all(kept in text for kept in ("5 $ or 6 $", "`$a$`", "    $b$", "$$c$$", 'id="formula-0"', 'id="formula-1"'))
    with pytest.raises(SiteError, match=r"README.md: equation \(9\) has no row"):
        page.converted("$$z \\tag{9}$$")
    chapter = Page("lecture/01_a.py", shared, "lecture/01_a.md").converted(
        "By (3) f(1) is `(1)`: [see (2)](../README.md)."
    )
    assert chapter == "By [(3)](../docs/equations.md#eq-3) f(1) is `(1)`: [see (2)](../index.md)."
    assert "(∗)" in page.converted("$$z \\tag{∗}$$")


def test_each_equation_has_an_anchor_where_its_row_is(repository: Repository) -> None:
    text, places = equation_anchors(repository.text("docs/equations.md"))
    assert places == {number: f"docs/equations.md#eq-{number}" for number in "1423"}
    assert '| <span id="eq-1"></span><span id="eq-4"></span>(1) (4) | a |' in text
    assert text.count("<span") == 4
    _, all_places = equation_anchors((ROOT / "docs" / "equations.md").read_text("utf-8"))
    assert set(all_places) == {str(number) for number in range(1, 25)}


def test_code_is_told_from_prose() -> None:
    text = "a\n\n    code\n\n    code\n\nb\n- item\n\n    of the item\n\n~~~\n```\n~~~\nc\n"
    code = [part.strip() for is_prose, part in prose_parts(text) if not is_prose]
    assert code == ["code\n\n    code", "~~~\n```\n~~~"]
    assert "".join(part for _, part in prose_parts(text)) == text


def test_a_folder_has_a_page_that_counts_its_pictures(repository: Repository) -> None:
    page = folder_page("examples/shapes", repository)
    assert "[examples/shapes/make.py](make.py.md)" in page
    assert "`examples/shapes/*.png`: 1 files" in page
    assert listing_path(".ci/run") == "dot-ci/run.md"


# --- The repository as it is


REAL = Repository(ROOT)


@pytest.mark.parametrize("source", sources(REAL))
def test_every_link_of_a_page_leads_somewhere(source: str) -> None:
    shared = context(REAL)
    shared.public = anchors({name: getattr(gn, name).__module__ for name in gn.__all__})
    Page(source, shared).converted(REAL.text(source))


def test_every_public_name_has_its_page_in_the_reference() -> None:
    modules = {name: getattr(gn, name).__module__ for name in gn.__all__}
    assert {topic_of(module).file for module in modules.values()} == {topic.file for topic in TOPICS}
    with pytest.raises(SiteError, match=r"gpunn.new has a public name and no page"):
        topic_of("gpunn.new")


def test_every_page_of_docs_is_in_the_navigation_in_the_readmes_order() -> None:
    pages = guide_pages(REAL, {"docs/equations.md"})
    assert pages[:2] == ["docs/recipes.md", "docs/embedding.md"]
    listed = {name for name in REAL.tracked if re.fullmatch(r"docs/[\w-]+\.md", name)}
    assert set(pages) == listed - {"docs/equations.md"}


def test_links_to_chapters_lead_to_them_as_they_were_executed(tmp_path: Path) -> None:
    names = sorted(name[8:-3] for name in REAL.tracked if re.fullmatch(r"lecture/\d\d_\w+\.py", name))
    for name in names[1:]:
        (tmp_path / f"{name}.md").write_text("# A chapter\n\nText.\n", "utf-8")
    with pytest.raises(SiteError, match=f"lacks {names[0]}: execute the lecture again"):
        Chapters(REAL, tmp_path)
    (tmp_path / f"{names[0]}.md").write_text("# A chapter\n", "utf-8")
    chapters = Chapters(REAL, tmp_path)
    assert chapters.pages[f"lecture/{names[0]}.py"] == f"lecture/{names[0]}.md"
    assert chapters.navigation()[0] == "lecture/index.md"
    assert chapters.navigation()[-1] == "lecture/glossary.md"
    assert with_download("# A\n\nText.\n", "a.ipynb").splitlines()[2].startswith('<a class="download" href="a.ipynb"')


def test_npm_that_is_missing_or_lies_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas.shutil, "which", lambda _, path: None)
    with pytest.raises(SiteError, match=r"npm was not found: install Node.js"):
        formulas.unpack_katex(tmp_path / "katex")
    with pytest.raises(SiteError, match=r"node was not found: install Node.js"):
        formulas.draw([formulas.Formula("a", True, "README.md")], tmp_path)
    assert formulas.draw([], tmp_path) == []
    (tmp_path / "katex" / "katex.tgz").write_bytes(b"another")
    with pytest.raises(SiteError, match=r"another katex@.* than the one that is known"):
        formulas.unpack_katex(tmp_path / "katex")
    assert not (tmp_path / "katex" / "katex.tgz").exists()
