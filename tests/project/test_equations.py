"""The table of docs/equations.md is true: each place exists and names its equation, each test exists."""

import ast
import re
from pathlib import Path

import pytest
from support.paths import ROOT

ROW = re.compile(r"^\| (?P<number>[^|]+) \| (?P<equation>[^|]+) \| (?P<places>[^|]+) \| (?P<tests>[^|]+) \|$")
NUMBERS = {f"({n})" for n in (*range(1, 9), *range(12, 14), *range(17, 25))}


def rows() -> list[dict[str, str]]:
    lines = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8").replace("\\|", "∣").splitlines()
    found = [match.groupdict() for line in lines if (match := ROW.match(line))]
    return [row for row in found if "`" in row["places"]]


def node(path: Path, names: list[str]) -> ast.AST:
    """The definition of a name within a file."""
    here: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for name in names:
        assert isinstance(here, ast.Module | ast.ClassDef), f"{path}: nothing is defined within {here}"
        for child in here.body:
            targets = child.targets if isinstance(child, ast.Assign) else []
            is_it = getattr(child, "name", None) == name or any(getattr(t, "id", None) == name for t in targets)
            if is_it:
                here = child
                break
        else:
            raise AssertionError(f"{path} defines no {'.'.join(names)}")
    return here


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["number"].strip())
def test_an_equation_stands_where_the_table_says_and_is_tested(row: dict[str, str]) -> None:
    places = re.findall(r"`([\w/]+\.py)::([\w.]+)`", row["places"])
    assert places, f"no place for {row['equation']}"
    numbers = re.findall(r"\(\d+\)", row["number"])
    texts = []
    for file, name in places:
        node(ROOT / file, name.split("."))
        texts.append((ROOT / file).read_text(encoding="utf-8"))
    for number in numbers:
        assert any(number in text for text in texts), f"{places} name {number} nowhere"
    tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row["tests"])
    assert tests, f"no test for {row['equation']}"
    for file, name in tests:
        node(ROOT / file, [name])


def test_every_numbered_equation_has_its_row() -> None:
    numbered = {number for row in rows() for number in re.findall(r"\(\d+\)", row["number"])}
    assert numbered == NUMBERS
