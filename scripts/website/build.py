"""Build the site: stage Markdown, let Zensical make pages, draw formulas and sources into them, check the result."""

import html
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from website.check import check
from website.files import Repository, SiteError
from website.formulas import copy_style, draw, unpack_katex
from website.listings import folder_page, listing, listing_page, listing_path
from website.navigation import Chapters, configuration, guide_pages
from website.pages import Context, Page
from website.reference import FOLDER, Reference, anchors

HERE = Path(__file__).resolve().parent
DESIGN = ("docs/architecture.md", "docs/design/README.md")
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
EQUATIONS = "docs/equations.md"
NUMBERS = re.compile(r"\((\d+)\)")


@dataclass
class Options:
    """What is built, and from what."""

    root: Path
    out: Path
    work: Path
    lecture: Path | None = None  # executed chapters, Markdown with pictures and notebooks
    drawing_page: Path | None = None


def build(options: Options) -> list[str]:
    """Build the site into `options.out`, and return its faults, a line each."""
    staged = options.work / "pages"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    repository = Repository(options.root)
    chapters = Chapters(repository, options.lecture)
    context = stage(repository, chapters, staged)
    navigation_file = write_configuration(options, repository, chapters, context)
    shutil.copytree(HERE / "theme", staged / "theme")
    katex = unpack_katex(options.work / "katex-0.19.1")
    copy_style(katex, staged / "theme")
    drawn = draw(context.formulas, katex)
    made = run_zensical(navigation_file)
    finish(made, context, repository, drawn)
    if options.drawing_page:
        shutil.copytree(options.drawing_page, made / "draw", dirs_exist_ok=True)
    shutil.rmtree(options.out, ignore_errors=True)
    shutil.copytree(made, options.out)
    return list(check(options.out))


def execute_lecture(root: Path, folder: Path) -> Path | None:
    """Execute all chapters into Markdown, with notebooks to download; None where there is no lecture.

    The other pages are looked through first: a link that is broken is found in seconds, not after the lecture.
    """
    program = root / "lecture" / "run.py"
    if not program.is_file():
        return None
    repository = Repository(root)
    with tempfile.TemporaryDirectory() as scratch:
        stage(repository, Chapters(repository, None), Path(scratch))
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, str(program), "--markdown", str(folder), "--notebooks", str(folder)]
    if subprocess.run(command, cwd=root).returncode:
        raise SiteError("the lecture was not executed to its end: see above, or build with --without-lecture")
    return folder


def sources(repository: Repository) -> list[str]:
    """Return the Markdown files of the repository that become pages."""
    folders = ("docs/", "lecture/")
    found = [name for name in repository.tracked if name.endswith(".md") and name.startswith(folders)]
    return sorted(["README.md", *(name for name in PROJECT if name in repository.tracked), *found])


def staged_path(source: str) -> str:
    """Return where a page is staged: beside what it stands beside in the repository; README.md is a folder's index."""
    folder, name = posixpath.split(source)
    return posixpath.join(folder, "index.md" if name == "README.md" else name)


def equation_anchors(text: str) -> tuple[str, dict[str, str]]:
    """Return the page of equations with an anchor in each numbered row, and the anchor of each number."""
    places: dict[str, str] = {}

    def row(found: re.Match[str]) -> str:
        new = [number for number in NUMBERS.findall(found[1]) if number not in places]
        places.update((number, f"{EQUATIONS}#eq-{number}") for number in new)
        return "| " + "".join(f'<span id="eq-{number}"></span>' for number in new) + found[1] + " |"

    def span(found: re.Match[str]) -> str:
        new = [number for number in map(str, range(int(found[1]), int(found[2]) + 1)) if number not in places]
        places.update((number, f"{EQUATIONS}#eq-{number}") for number in new)
        return "".join(f'<span id="eq-{number}"></span>' for number in new) + found[0]

    text = re.sub(r"^\| ((?:\(\d+\) ?)+) \|", row, text, flags=re.M)
    above, heading, below = text.partition("## ")  # the text above all tables names the numbers of the whole page
    below = re.sub(r"\((\d+)\)–\((\d+)\)", span, below)  # those that have no row of their own: (9)–(11)
    return above + heading + below, places


def stage(repository: Repository, chapters: Chapters, staged: Path) -> Context:
    """Write all Markdown, pictures and notebooks that Zensical is given."""
    pages = {source: staged_path(source) for source in sources(repository)}
    pages |= chapters.pages
    texts = {source: repository.text(source) for source in pages if source not in chapters.pages}
    texts[EQUATIONS], equations = equation_anchors(texts[EQUATIONS])
    context = Context(repository, pages, equations=equations)

    reference = read_reference(repository, equations)
    context.public = reference.anchors
    from website.commands import commands_page

    for name, text in [*reference.pages(), ("command-line", commands_page())]:
        context.pages[f"{FOLDER}/{name}.md"] = f"{FOLDER}/{name}.md"
        texts[f"{FOLDER}/{name}.md"] = text
    for source, text in chapters.texts(staged, context):
        texts[source] = text
    for source, text in texts.items():
        page = Page(source, context)
        write(staged / page.staged, page.converted(text))
    stage_sources(repository, context, staged)
    for picture in context.pictures:
        if picture in repository.tracked:
            (staged / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository.root / picture, staged / picture)
    return context


def stage_sources(repository: Repository, context: Context, staged: Path) -> None:
    """Write a page for every file of the package, and for each file and folder that a page links to.

    A folder's page leads to the pages of all its files.
    """
    listed = {"gpunn"} | context.listed
    for name in sorted(listed):
        if name in repository.folders:
            write(staged / name / "index.md", folder_page(name, repository))
            context.listed |= {inside for inside in repository.tracked
                               if inside.startswith(f"{name}/") and repository.is_text(inside)}  # fmt: skip
    listed |= context.listed
    for name in sorted(listed - repository.folders):
        write(staged / listing_path(name), listing_page(name))
    context.listed = listed - repository.folders


def read_reference(repository: Repository, equations: dict[str, str]) -> Reference:
    """Return the reference of this checkout's public names."""
    import gpunn

    shown = {"Sequential": set(dir(gpunn.Sequential([gpunn.Dense(1)])))}
    return Reference(repository, list(gpunn.__all__), shown, equations)


def write(path: Path, text: str) -> None:
    """Write a staged file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def write_configuration(options: Options, repository: Repository, chapters: Chapters, context: Context) -> Path:
    """Write Zensical's configuration beside the staged pages."""
    import tomli_w

    design = [name for name in context.pages if name.startswith("docs/design/") and not name.endswith("README.md")]
    guide = guide_pages(repository, {*DESIGN, EQUATIONS, *design})
    order = re.findall(r"\]\(([\w-]+\.md)\)", repository.text("docs/design/README.md"))
    order += sorted({posixpath.basename(name) for name in design} - set(order))
    design.sort(key=lambda name: order.index(posixpath.basename(name)))
    navigation: list[dict[str, Any]] = [{"Home": "index.md"}]
    if chapters.present:
        navigation.append({"Lecture": chapters.navigation()})
    if options.drawing_page:
        navigation.append({"Draw": "draw/index.html"})
    reference = [name for name in context.pages if name.startswith(f"{FOLDER}/")]
    navigation += [
        {"Guide": guide},
        {"Reference": [EQUATIONS, *reference]},
        {
            "Design": [
                *(context.pages[name] for name in (*DESIGN, *design, *PROJECT) if name in context.pages),
                {"Source files": "gpunn/index.md"},
            ]
        },
    ]
    file = options.work / "zensical.toml"
    file.write_text(tomli_w.dumps(configuration(navigation)), "utf-8")
    return file


def run_zensical(file: Path) -> Path:
    """Make the pages, and return their folder; a warning is a `SiteError`."""
    made = file.parent / "site"
    shutil.rmtree(made, ignore_errors=True)
    shutil.rmtree(file.parent / ".cache", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(file)]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True, timeout=600)
    said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    if done.returncode or re.search("warning", said, re.I):
        raise SiteError(f"Zensical found fault with the pages:\n{said.partition('Traceback')[0].strip()[-6000:]}")
    return made


def finish(made: Path, context: Context, repository: Repository, drawn: list[str]) -> None:
    """Draw formulas and sources into the built pages."""

    def formula(found: re.Match[str]) -> str:
        return found[0].replace(f' id="formula-{found[1]}"', "").replace("></span>", f">{drawn[int(found[1])]}</span>")

    def source(found: re.Match[str]) -> str:
        path = html.unescape(found[1])
        return f'<div class="highlight">{listing(path, repository.text(path))}</div>'

    for page in made.rglob("*.html"):
        text = page.read_text("utf-8")
        changed = re.sub(r'<span class="[\w-]+" id="formula-(\d+)"></span>', formula, text)
        changed = re.sub(r'<div class="highlight" data-listing="([^"]+)"></div>', source, changed)
        if page.name == "404.html":
            changed = relative_404(changed)
        if changed != text:
            page.write_text(changed, "utf-8")


def relative_404(text: str) -> str:
    """Return the page for what is not there with links that hold wherever the site lies."""
    return re.sub(r'(href|src)="/(?!/)', r'\1="', text)


__all__ = ["Options", "anchors", "build"]
