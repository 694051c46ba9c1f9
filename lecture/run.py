"""Execute the chapters of the lecture, and write them as notebooks or as Markdown; `--help` says how.

A chapter is a py:percent file. It is run as a notebook by a kernel of its own, with this Python, in the folder of the
file, and without a network: the kernel is spoken to through sockets that are files.
"""

import argparse
import base64
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

try:
    import jupytext
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
except ImportError as error:
    sys.exit(f"lecture: {error.name} is missing: run scripts/lecture.sh, or pip install -e '.[lecture]'")

FOLDER = Path(__file__).resolve().parent
SECONDS_OF_A_CELL = 300
AT_ONCE = 2
ADDRESS = re.compile(r"0x[0-9a-fA-F]+")  # of objects that are printed without a text of their own
WARNING = re.compile(r"^.*\w*Warning: .*$", re.MULTILINE)
YOURS = "# Your answer\n"


class ChapterError(Exception):
    """A chapter that does not run to its end; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; return 1 where a chapter fails."""
    options = parsed(arguments)
    try:
        paths = chosen(options.chapters)
        if options.notebooks is not None:
            write_notebooks(paths, options.notebooks, options.without_solutions)
        if options.markdown is None and options.notebooks is not None and not options.check:
            return 0
        return run(paths, options.markdown, 2 if options.check else 1)
    except (ChapterError, OSError) as error:
        print(f"lecture: {error}", file=sys.stderr)
        return 1


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/lecture.sh",
        description="Execute the chapters of the lecture: exit code 1 where a cell fails.",
    )
    parser.add_argument(
        "chapters", nargs="*", metavar="CHAPTER", help="number or file of a chapter; all are meant by none"
    )
    parser.add_argument("--check", action="store_true", help="execute each twice, and compare what they print")
    parser.add_argument("--notebooks", type=Path, metavar="DIR", help="write .ipynb files, without executing them")
    parser.add_argument("--without-solutions", action="store_true", help="leave an empty cell for each solution")
    parser.add_argument("--markdown", type=Path, metavar="DIR", help="execute, and write Markdown with the pictures")
    options = parser.parse_args(arguments)
    if options.without_solutions and options.notebooks is None:
        parser.error("--without-solutions is for notebooks: give --notebooks DIR as well")
    return options


def chosen(names: Sequence[str]) -> list[Path]:
    """Return the files of chapters by number or path, or all."""
    everything = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
    if not names:
        return everything
    paths = []
    for name in names:
        found = [path for path in everything if name.isdigit() and int(path.name[:2]) == int(name)]
        if not found and Path(name).is_file():
            found = [Path(name)]
        if not found:
            numbers = ", ".join(str(int(path.name[:2])) for path in everything)
            raise ChapterError(f"there is no chapter {name}: give the path of a file, or one of the numbers {numbers}")
        paths += found
    return paths


def notebook_of(path: Path) -> Any:
    """Read a chapter as a notebook, whose cells have the same ids each time."""
    notebook = jupytext.reads(path.read_text("utf-8"), fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"{path.stem[:40]}-{number}"
    return notebook


def tags(cell: Any) -> list[str]:
    """Return the tags of a cell."""
    return list(cell.metadata.get("tags", []))


def write_notebooks(paths: Sequence[Path], folder: Path, without_solutions: bool) -> None:
    """Write chapters as notebooks for students, which have no outputs yet."""
    import nbformat

    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        notebook, last = notebook_of(path), None
        kept = []
        for cell in notebook.cells:
            if not (without_solutions and "solution" in tags(cell)):
                kept.append(cell)
            elif last is not None and "solution" not in tags(last):
                kept.append(nbformat.v4.new_code_cell(YOURS, id=f"{cell.id}-yours"))
            last = cell
        notebook.cells = kept
        target = folder / f"{path.stem}.ipynb"
        nbformat.write(notebook, target)
        print(target)


def run(paths: Sequence[Path], markdown: Path | None, times: int) -> int:
    """Execute chapters, two side by side; say how long each took, and return 1 where one fails."""
    began = time.perf_counter()
    failed = 0
    print(f"executing {len(paths)} chapters, {AT_ONCE} at once{', each twice' if times > 1 else ''}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lecture-") as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
        tasks = [
            (path, pool.submit(timed, executed, path, times, Path(scratch) / str(number)))
            for number, path in enumerate(paths)
        ]
        try:
            for path, task in tasks:
                try:
                    seconds, notebook = task.result()
                except ChapterError as error:
                    failed += 1
                    print(f"{path.stem:<28} failed", flush=True)
                    print(f"lecture: {error}", file=sys.stderr, flush=True)
                    continue
                print(f"{path.stem:<28} {len(notebook.cells):>3} cells {seconds:>6.1f} s", flush=True)
                if markdown is not None:
                    write_markdown(notebook, path.stem, markdown)
        except KeyboardInterrupt:
            shutil.rmtree(scratch, ignore_errors=True)
            print("lecture: stopped", file=sys.stderr, flush=True)
            os._exit(130)  # kernels end with the process that began them; waiting for their cells would take long
    print(
        f"{len(paths) - failed} of {len(paths)} chapters ran to their end, {time.perf_counter() - began:.0f} s in all"
    )
    return 1 if failed else 0


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Call a function; return the seconds that it took, and what it returns."""
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def executed(path: Path, times: int, scratch: Path) -> Any:
    """Execute a chapter once, or twice to the same printed text, and return the notebook with its outputs."""
    notebook = execute(path, scratch / "1")
    for number in range(2, times + 1):
        again = execute(path, scratch / str(number))
        for place, (one, other) in enumerate(zip(notebook.cells, again.cells, strict=True)):
            for before, after in zip(printed(one), printed(other), strict=False):
                if before != after:
                    raise ChapterError(
                        f"{where(path, place)} prints {after!r} now, and {before!r} before: fix its seed"
                    )
            if len(printed(one)) != len(printed(other)):
                raise ChapterError(f"{where(path, place)} prints more or fewer lines the second time: fix its seed")
    return notebook


def execute(path: Path, scratch: Path) -> Any:
    """Execute a chapter in a kernel of its own; ChapterError in one line names the cell that fails."""
    scratch.mkdir(parents=True)
    notebook = notebook_of(path)
    specs = KernelSpecManager(kernel_dirs=[])  # this Python, whatever kernels somebody has installed
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=specs, transport="ipc", connection_file=str(scratch / "kernel.json")
    )
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= {"IPYTHONDIR": str(scratch / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # chapters share the cores
        environment.setdefault(variable, "1")
    client = NotebookClient(notebook, km=manager, timeout=SECONDS_OF_A_CELL, startup_timeout=180, coalesce_streams=True)
    client.owns_km = True
    running = [0]
    client.on_cell_start = lambda cell, cell_index: running.__setitem__(0, cell_index)
    try:
        client.execute(env=environment, cwd=str(path.resolve().parent), stdout=DEVNULL, stderr=DEVNULL)
    except CellExecutionError as error:
        words = " ".join(f"{error.ename}: {error.evalue}".split())
        raise ChapterError(f"{where(path, running[0])} failed: {words}") from None
    except CellTimeoutError:
        raise ChapterError(f"{where(path, running[0])} took more than {SECONDS_OF_A_CELL} s") from None
    except DeadKernelError:
        raise ChapterError(f"{where(path, running[0])} ended the kernel: too little memory, or a crash") from None
    for place, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and (found := WARNING.search(output.text)):
                raise ChapterError(f"{where(path, place)} warns, which readers would see: {found[0].strip()}")
    return notebook


def where(path: Path, place: int) -> str:
    """Name a cell by its chapter, its number from 1 and its line."""
    lines = path.read_text("utf-8").splitlines()
    starts = [number for number, line in enumerate(lines, 1) if line.startswith("# %%")]
    line = f", line {starts[place]}" if place < len(starts) else ""
    return f"chapter {path.stem}, cell {place + 1}{line}"


def is_text(output: Any) -> bool:
    """Whether an output is what was printed; the progress of a training goes to stderr, and tells of the machine."""
    return output.output_type == "stream" and output.name == "stdout"


def printed(cell: Any) -> list[str]:
    """Return the lines that a cell has printed, and shown as the text of its last value."""
    texts = []
    for output in cell.get("outputs", []):
        if is_text(output):
            texts += output.text.splitlines()
        elif output.output_type == "execute_result":
            texts += output.data.get("text/plain", "").splitlines()
    return [ADDRESS.sub("0x", text) for text in texts]


def write_markdown(notebook: Any, name: str, folder: Path) -> None:
    """Write an executed chapter as `name.md`, its pictures in `name_files`, each solution folded."""
    pictures = folder / f"{name}_files"
    if pictures.is_dir():
        shutil.rmtree(pictures)
    pictures.mkdir(parents=True)
    blocks: list[str] = []
    heading, is_open = name, False
    for place, cell in enumerate(notebook.cells, 1):
        is_solution = "solution" in tags(cell)
        if is_solution and not is_open:
            blocks.append('<details class="solution" markdown="1">\n<summary>Solution</summary>')
        if is_open and not is_solution:
            blocks.append("</details>")
        is_open = is_solution
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            heading = headings[-1] if headings else heading
            blocks.append(cell.source.strip())
        elif cell.source.strip():
            blocks += [fenced(cell.source, "python"), *shown(cell, f"{place:02}", heading, pictures)]
    if is_open:
        blocks.append("</details>")
    (folder / f"{name}.md").write_text("\n\n".join(blocks) + "\n", "utf-8")


def shown(cell: Any, name: str, heading: str, folder: Path) -> Iterator[str]:
    """Give what a cell has printed and drawn, as Markdown; write its pictures."""
    is_drawn = any("image/png" in output.get("data", {}) for output in cell.outputs)
    number = 0
    for output in cell.outputs:
        if is_text(output):
            yield fenced(output.text, "text")
        data = output.get("data", {})
        if "image/png" in data:
            number += 1
            picture = folder / f"{name}-{number}.png"
            picture.write_bytes(base64.b64decode(data["image/png"]))
            words = cell.metadata.get("alt") or f"Picture: {heading}"
            yield f"![{words}]({folder.name}/{picture.name})"
        elif "text/plain" in data and not is_drawn:  # beside a picture it is Matplotlib's name of an axis
            yield fenced(data["text/plain"], "text")


def fenced(text: str, language: str) -> str:
    """Put text into a fence that is longer than any in it."""
    longest = max((len(ticks) for ticks in re.findall(r"^`{3,}", text, re.MULTILINE)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


if __name__ == "__main__":
    sys.exit(main())
