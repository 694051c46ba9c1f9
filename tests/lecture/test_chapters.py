"""What every chapter of the lecture has: cells, exercises, equations that exist, links to lines of code that exist.

Chapters are read and not executed here; test_execution.py does that.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.style
import pytest
from support.paths import ROOT
from support.percent import CHAPTERS, LECTURE, Cell, cells_of, prose

from gpunn.display import style

MOST_LINES, MOST_LINES_OF_A_CELL, MOST_WORDS = 480, 24, 2600
LINK = re.compile(r'\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+"(?P<words>[^"]+)")?\)')
# Draws from the global state, or from a seed that nobody knows.
UNSEEDED = re.compile(r"np\.random\.(?!default_rng|Generator|Philox|PCG64)\w+|default_rng\(\)|Philox\(\)")


@pytest.fixture(scope="module", params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request: pytest.FixtureRequest) -> Path:
    return request.param


def markdown_of(path: Path) -> list[Cell]:
    return [cell for cell in cells_of(path) if not cell.is_code]


def known_equations() -> set[int]:
    """The numbers that docs/equations.md has a row for, or names as proofs."""
    text = (ROOT / "docs" / "equations.md").read_text("utf-8")
    numbers = {int(number) for line in text.splitlines() if line.startswith("| (") for number in _cited(line[:20])}
    proofs = next(line for line in text.splitlines() if "are the proofs" in line)
    for first, last in re.findall(r"\((\d+)\)–\((\d+)\)", proofs):
        numbers |= set(range(int(first), int(last) + 1))
    return numbers


def _cited(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?<![\w)])\((\d{1,2})\)", text)]


def test_chapters_are_numbered_from_one_and_stand_in_the_readme() -> None:
    readme = (LECTURE / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| \[(.+?)\]\((\w+\.py)\) \|", readme, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 12
    assert [path.name for path in CHAPTERS] == [name for _, _, name in rows]
    titles = {name: f"# {number}. {title}" for number, title, name in rows}
    for path in CHAPTERS:
        first = cells_of(path)[0].text.splitlines()[0]
        assert titles.get(path.name) == first, f"the table of lecture/README.md has {path.name} with the title {first}"


def test_a_chapter_begins_with_its_title_and_an_aim(chapter: Path) -> None:
    first = cells_of(chapter)[0]
    assert not first.is_code
    assert re.match(rf"# {int(chapter.stem[:2])}\. \w.*\n\n\w", first.text)
    headings = [line for cell in markdown_of(chapter) for line in cell.text.splitlines() if line.startswith("# ")]
    assert len(headings) == 1


def test_a_chapter_can_be_read_in_twenty_minutes(chapter: Path) -> None:
    assert len(chapter.read_text("utf-8").splitlines()) <= MOST_LINES
    assert sum(len(prose(cell.text).split()) for cell in markdown_of(chapter)) <= MOST_WORDS
    long = [
        cell.line for cell in cells_of(chapter) if cell.is_code and len(cell.text.splitlines()) > MOST_LINES_OF_A_CELL
    ]
    assert long == []


def test_code_of_a_chapter_is_python_with_fixed_seeds(chapter: Path) -> None:
    """No cell draws from a state that nobody has set, or shows the progress of a training, whose times differ."""
    for cell in cells_of(chapter):
        if cell.is_code:
            where = f"{chapter.name}:{cell.line}"
            tree = ast.parse(cell.text, where)
            assert UNSEEDED.findall(cell.text) == [], where
            for name, given in calls_of(tree):
                if name == "fit":
                    assert {"progress", None} & given, f"{where}: fit(..., progress=False)"


def test_networks_of_a_chapter_are_on_the_device_that_it_says(chapter: Path) -> None:
    """Left out, it is a GPU where there is one, and arrays of CuPy do not go together with NumPy's in a chapter."""
    found = [
        cell.line
        for cell in cells_of(chapter)
        if cell.is_code
        for name, given in calls_of(ast.parse(cell.text))
        if name in ("build", "fit", "find_learning_rate") and not {"device", None} & given
    ]
    assert found == [], f'{chapter.name}: give device="cpu"'


def calls_of(tree: ast.AST) -> Iterator[tuple[str, set[str | None]]]:
    """The methods that are called, and the keywords that each is given; None is for **options."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, {word.arg for word in node.keywords}


def test_a_chapter_ends_with_three_exercises_whose_solutions_are_tested(chapter: Path) -> None:
    cells = cells_of(chapter)
    (start,) = (
        place for place, cell in enumerate(cells) if not cell.is_code and "## Exercises" in cell.text.splitlines()
    )
    assert not any({"exercise", "solution"} & set(cell.tags) for cell in cells[:start])
    solutions: list[list[Cell]] = []
    for cell in cells[start if cells[start].tags else start + 1 :]:
        assert cell.tags in {("exercise",), ("solution",)}, f"{chapter.name}:{cell.line}"
        if cell.tags == ("exercise",):
            assert not cell.is_code
            solutions.append([])
        else:
            solutions[-1].append(cell)
    assert len(solutions) >= 3
    for cells in solutions:
        asserts = [
            node
            for cell in cells
            if cell.is_code
            for node in ast.walk(ast.parse(cell.text))
            if isinstance(node, ast.Assert)
        ]
        assert asserts, f"{chapter.name}:{cells[0].line if cells else ''}: a solution has code with an assert"


def test_equations_that_a_chapter_cites_exist(chapter: Path) -> None:
    known, found = known_equations(), set()
    assert {1, 4, 8, 9, 16, 24} <= known
    assert 25 not in known
    for cell in markdown_of(chapter):
        cited = _cited(prose(cell.text)) + [int(number) for number in re.findall(r"\\tag\{(\d+)\}", cell.text)]
        assert [number for number in cited if number not in known] == [], f"{chapter.name}:{cell.line}"
        found |= set(cited)
    assert found


def test_links_of_a_chapter_lead_to_files_and_to_one_line_of_them(chapter: Path) -> None:
    """The title of a link to code is text of exactly one line; the site makes a link to that line of it."""
    lines_of_code = 0
    for cell in markdown_of(chapter):
        for target, words in LINK.findall(cell.text.replace("\n", " ")):
            where = f"{chapter.name}:{cell.line}: {target}"
            if re.match(r"https?://", target):
                continue
            path = (LECTURE / target.partition("#")[0]).resolve()
            assert path.is_file(), where
            assert path.is_relative_to(ROOT.resolve()), where
            if words:
                found = [line for line in path.read_text("utf-8").splitlines() if words in line]
                assert len(found) == 1, f"{where}: {words!r} stands in {len(found)} lines"
                lines_of_code += path.suffix == ".py"
    assert lines_of_code >= 1


@pytest.mark.parametrize("page", ["README.md", "glossary.md"])
def test_links_of_the_pages_beside_the_chapters_lead_to_files(page: str) -> None:
    text = (LECTURE / page).read_text("utf-8")
    targets = [target for target, _ in LINK.findall(re.sub(r"`[^`]*`", "", text)) if not target.startswith("http")]
    assert [target for target in targets if not (LECTURE / target.partition("#")[0]).is_file()] == []
    assert page != "README.md" or len(targets) > 12


def test_terms_of_the_glossary_are_used_where_it_says() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| (\d+) \|$", (LECTURE / "glossary.md").read_text("utf-8"), re.M
    )
    assert len(rows) >= 40
    assert len({english for english, *_ in rows}) == len(rows)
    assert [int(number) for *_, number in rows] == sorted(int(number) for *_, number in rows)
    texts = {int(path.name[:2]): " ".join(cell.text for cell in markdown_of(path)) for path in CHAPTERS}
    for english, slovak, line, number in rows:
        assert slovak.strip(), english
        assert line.strip(), english
        text = _plain(texts.get(int(number), english))
        assert any(_plain(term) in text for term in english.split(", ")), f"chapter {number} has no {english}"


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[-–\s]+", " ", text.lower().replace("isation", "ization")).split())


def test_the_style_of_the_lecture_is_that_of_gpunns_pictures() -> None:
    with matplotlib.style.context("gpunn.display.lecture"):
        found = dict(matplotlib.rcParams)
    for name, value in style._STYLE.items():
        if name not in ("figure.dpi", "text.parse_math"):  # formulas are wanted, and pictures of another size
            assert found[name] == value, name
    colours = [each["color"].upper() for each in found["axes.prop_cycle"]]
    assert colours[:3] == [style.TRAINING, style.VALIDATION, style.BEST]
