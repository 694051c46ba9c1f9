"""Docstrings begin with a verb and an object, as CONTRIBUTING asks: "Return whether …", never "Whether …"."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import gpunn

PACKAGE = Path(gpunn.__file__).parent
NO_VERBS = re.compile(
    "A|An|The|This|That|These|Those|Its?|Their|What|Which|Who|How|Whether|Where|When|There|Here|As|Such|Also|Not|Only|"
    "Each|Every|Everything|Any|Anything|Some|Several|All|Both|Either|One|Two|No|None|Nothing|In|Of|For|From|With(in|out)?"
)
NO_NOUNS = {"What", "Whether", "How", "Which", "Who", "That", "Those", "As", "Such", "One", "Everything"}
THIRD_PERSON = re.compile(r"(?!\w*ss\b)[A-Z][a-z]+s")  # "Returns", and plurals such as "Layers"
Described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def first_lines() -> Iterator[tuple[str, Described, str]]:
    """The place, the node and the first line of each docstring of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, Described) and (text := ast.get_docstring(node)):
                where = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 1)}"
                yield where, node, text.splitlines()[0]


def begins_well(node: Described, line: str) -> bool:
    word = line.split()[0].rstrip(",:")
    if isinstance(node, ast.ClassDef):  # a class that is a value may be a noun, a layer or a loss its formula
        return word not in NO_NOUNS
    is_property = any("property" in ast.unparse(each) for each in getattr(node, "decorator_list", ()))
    is_formula = "=" in line or not word.isalpha()
    if is_property or is_formula:
        return word not in NO_NOUNS
    return not NO_VERBS.fullmatch(word) and not THIRD_PERSON.fullmatch(word)


def test_a_docstring_begins_with_a_verb() -> None:
    assert [f"{where}: {line}" for where, node, line in first_lines() if not begins_well(node, line)] == []
