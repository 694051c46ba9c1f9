"""Write the page of a run for a static web server: the network runs in the browser.

index.html           the page of `gpunn serve`, with the engine below
static/              its modules; static/browser/ is the engine
network/             network.json, model.onnx and samples.bin, which the engine reads
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
from gpunn.serve.watcher import Watcher

MARK = "network/network.json"  # marks a folder as a page that may be overwritten


def export_page(run: str, folder: StrPath, given: StrPath | None, say: Callable[[str], None]) -> str:
    """Write the page of a run or of a model file into a folder, and return a line about it.

    Args:
        run: Run folder or model file.
        folder: Folder to write into: new, empty, or with an earlier page, which is overwritten.
        given: Folder or archive with the runtime; None for the cache or a download.
        say: Function that prints a line before slow work.

    Raises:
        OptionError: ONNX cannot express a layer, or the extra is missing.
        OutputError: The folder holds other files, or cannot be written.
        DataError: The runtime is missing, or of another version.
    """
    target = as_path(folder)
    check_target(target)
    require_onnx()
    from gpunn.serve.static_files import page_files

    files = page_files(Watcher(RunFolder(run), "cpu", say))
    files |= {f"runtime/{name}": content for name, content in runtime(given, say).items()}
    # The mark is first, so a broken-off page can be overwritten, and index.html last, so a page that opens is complete.
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
    """Raise OutputError for a folder that holds anything but an earlier page."""
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
