"""Write the page of a run for a web space that only gives files: the network runs in the browser.

index.html           the page of `gpunn serve`, told to take the engine below
static/              its modules; static/browser/ is the engine
network/             network.json, model.onnx and samples.bin: what the engine reads
runtime/             onnxruntime-web
"""

from collections.abc import Callable
from pathlib import Path

from gpunn.backend.limits import size
from gpunn.errors import OutputError
from gpunn.files import StrPath, as_path, write_atomically
from gpunn.saving.onnx import require_onnx
from gpunn.serve.folder import RunFolder
from gpunn.serve.runtime import runtime
from gpunn.serve.watching import Watcher

MARK = "network/network.json"  # by which a page that was written before is known


def export_page(run: str, folder: StrPath, given: StrPath | None, say: Callable[[str], None]) -> str:
    """Write the page of a run, or of a model file, into a folder; return a line about it.

    Args:
        run: Run folder or model file.
        folder: Folder to write into: a new one, an empty one, or one with such a page, which is written over.
        given: Folder or archive with the runtime; None for the cache or a download.
        say: Takes lines that tell what takes time.

    Raises:
        OptionError: A layer has no form in ONNX, or the extra is missing.
        OutputError: The folder holds something else, or cannot be written.
        DataError: The runtime is missing, or is another.
    """
    target = as_path(folder)
    check_target(target)
    require_onnx()
    from gpunn.serve.contents import page_files

    files = page_files(Watcher(RunFolder(run), "cpu", say))
    files |= {f"runtime/{name}": content for name, content in runtime(given, say).items()}
    # The mark comes first and the page itself last, so that a page is whole, and one that is not can be written again.
    for name in sorted(files, key=lambda name: (name != MARK, name == "index.html")):
        path = target / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {path.parent}: {error.strerror or error}: give another folder") from None
        write_atomically(path, files[name])
    whole = size(sum(map(len, files.values())))
    return f"{target}  {whole}: put it on any web space, or see it by python -m http.server -d {target}"


def check_target(target: Path) -> None:
    """Raise OutputError for a folder that holds anything but such a page."""
    try:
        there = sorted(path.name for path in target.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot write the page into {target}: {error.strerror or error}: name a folder") from None
    if there and not (target / MARK).is_file():
        holds = f"it holds {there[0]}{f' and {len(there) - 1:,} more' if len(there) > 1 else ''}"
        mend = f"give a new or an empty folder, such as {target / 'page'}"
        raise OutputError(f"{target} is no page of gpunn and not empty: {holds}: {mend}")
