"""Say what leads where: the chapters of the lecture, the pages of the guide, and Zensical's configuration."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from website.files import Repository, SiteError
from website.pages import Context

CHAPTER = re.compile(r"lecture/(\d\d_\w+)\.py")


class Chapters:
    """The lecture as it was executed: a Markdown file, its pictures and a notebook for each chapter."""

    def __init__(self, repository: Repository, folder: Path | None) -> None:
        self.folder = folder
        self.repository = repository
        self.present = "lecture/README.md" in repository.tracked or folder is not None
        self.names = sorted(found[1] for name in repository.tracked if (found := CHAPTER.fullmatch(name)))
        if folder is not None:
            executed = sorted(path.stem for path in folder.glob("[0-9][0-9]_*.md"))
            if missing := sorted(set(self.names) - set(executed)):
                raise SiteError(f"{folder} lacks {', '.join(missing)}: execute the lecture again")
            self.names = executed
        # Links to a chapter, be it Markdown or the script that it is made of, lead to its page.
        self.pages = {} if folder is None else {f"lecture/{name}.py": f"lecture/{name}.md" for name in self.names}

    def texts(self, staged: Path, context: Context) -> Iterator[tuple[str, str]]:
        """Give each chapter's source and Markdown, having copied its pictures and notebook."""
        if self.folder is None:
            return
        (staged / "lecture").mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if path.is_file() and path.suffix in {".png", ".svg", ".jpg", ".gif", ".ipynb"}:
                (staged / "lecture" / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, staged / "lecture" / inside)
                context.pictures.add(f"lecture/{inside.as_posix()}")
        for name in self.names:
            text = (self.folder / f"{name}.md").read_text("utf-8")
            if (self.folder / f"{name}.ipynb").is_file():
                text = with_download(text, f"{name}.ipynb")
            yield f"lecture/{name}.py", text

    def navigation(self) -> list[str]:
        """Return the pages of the lecture in their order."""
        known = self.repository.tracked
        pages = ["lecture/index.md"] if "lecture/README.md" in known else []
        pages += sorted(self.pages.values())
        others = sorted(name for name in known if re.fullmatch(r"lecture/(?!README)\w+\.md", name))
        return pages + others


def with_download(text: str, notebook: str) -> str:
    """Return a chapter with a link to its notebook under the title."""
    title, line, rest = text.partition("\n")
    return (
        f'{title}{line}\n<a class="download" href="{notebook}" download>Download this chapter as a notebook</a>\n{rest}'
    )


def guide_pages(repository: Repository, elsewhere: set[str]) -> list[str]:
    """Return the pages of docs/ in the README's order, those last that it does not name."""
    list_of_pages = repository.text("README.md").partition("## Read on")[2]
    named = re.findall(r"\]\((docs/[\w-]+\.md)\)", list_of_pages)
    all_pages = sorted(name for name in repository.tracked if re.fullmatch(r"docs/[\w-]+\.md", name))
    ordered = [*dict.fromkeys(named), *all_pages]
    return [name for name in dict.fromkeys(ordered) if name not in elsewhere]


def configuration(navigation: list[Any]) -> dict[str, Any]:
    """Return Zensical's configuration: no font, script or address of another host."""
    schemes = [("default", "(prefers-color-scheme: light)", "lucide/sun", "dark"),
               ("slate", "(prefers-color-scheme: dark)", "lucide/moon", "light")]  # fmt: skip
    palette = [
        {"scheme": scheme, "media": media, "toggle": {"icon": icon, "name": f"Switch to {other} mode"}}
        for scheme, media, icon, other in schemes
    ]
    features = ["content.code.copy", "navigation.footer", "navigation.indexes", "navigation.tabs", "navigation.top"]
    features += ["search.highlight", "toc.follow"]
    extensions: dict[str, Any] = {
        "attr_list": {},
        "md_in_html": {},
        "sane_lists": {},
        "tables": {},
        "toc": {"permalink": True, "slugify": {"object": "pymdownx.slugs.slugify", "kwds": {"case": "lower"}}},
        "pymdownx.highlight": {"pygments_lang_class": True},
        "pymdownx.superfences": {},
    }
    return {
        "project": {
            "site_name": "gpunn",
            "site_description": "Neural networks trained straight from their equations, on CUDA and on CPUs",
            "docs_dir": "pages",
            "site_dir": "site",
            "use_directory_urls": False,
            "nav": navigation,
            "extra_css": ["theme/katex.css", "theme/site.css"],
            "extra": {"generator": False},
            "markdown_extensions": extensions,
            "validation": {"invalid_links": True, "invalid_link_anchors": False},  # of lines come later: check.py
            "plugins": {"search": {}},
            "theme": {"font": False, "language": "en", "features": features, "palette": palette},
        }
    }
