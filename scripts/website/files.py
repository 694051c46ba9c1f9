"""Find what the site is made of: the files that git tracks, and lines in them."""

import ast
import subprocess
from functools import cache, cached_property
from pathlib import Path, PurePosixPath


class SiteError(Exception):
    """A page, link or formula that cannot be built; the message says where, and how to mend it."""


class Repository:
    """A checkout: its tracked files as text, and where a line or a definition stands in one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def tracked(self) -> frozenset[str]:
        """Paths of all files that git tracks or would track, with forward slashes."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        if listed.returncode:
            raise SiteError(f"the site is built from a git checkout, and {self.root} is none: clone the repository")
        return frozenset(name for name in listed.stdout.split("\0") if name and (self.root / name).is_file())

    @cached_property
    def folders(self) -> frozenset[str]:
        """Paths of all folders that hold a tracked file."""
        return frozenset(str(parent) for name in self.tracked for parent in PurePosixPath(name).parents)

    @cache  # noqa: B019  # one repository lives as long as the program
    def text(self, path: str) -> str:
        """Return the text of a file."""
        return (self.root / path).read_text("utf-8")

    def is_text(self, path: str) -> bool:
        """Whether a tracked file is text."""
        return b"\0" not in (self.root / path).read_bytes()[:4096]

    def line_with(self, path: str, words: str) -> int:
        """Return the number of the one line that contains `words`; a `SiteError` if none does, or several."""
        numbers = [number for number, line in enumerate(self.text(path).splitlines(), 1) if words in line]
        if len(numbers) != 1:
            found = f"in lines {', '.join(map(str, numbers))}" if numbers else "in no line"
            raise SiteError(f"{words!r} stands {found} of {path}: link with words of exactly one line")
        return numbers[0]

    @cache  # noqa: B019
    def definitions(self, path: str) -> dict[str, int]:
        """Return the line of each class, function and constant of a Python file, by its dotted name."""
        lines: dict[str, int] = {}

        def walk(node: ast.AST, prefix: str) -> None:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    lines.setdefault(prefix + child.name, child.lineno)
                    walk(child, f"{prefix}{child.name}.")
                elif isinstance(child, ast.Assign | ast.AnnAssign):
                    targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                    for target in targets:
                        if isinstance(target, ast.Name):
                            lines.setdefault(prefix + target.id, child.lineno)
                elif isinstance(child, ast.If | ast.Try | ast.With):
                    walk(child, prefix)

        walk(ast.parse(self.text(path)), "")
        return lines

    def line_of(self, path: str, name: str) -> int | None:
        """Return the line where a Python file defines `name`, dotted for a method; None if it does not."""
        return self.definitions(path).get(name)
