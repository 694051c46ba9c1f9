"""Find the runtime of a static page, two files of onnxruntime-web, in a folder, an archive, the cache, or npm.

Source: https://onnxruntime.ai/docs/tutorials/web, MIT licence. The files are 14 MB, so no wheel of gpunn has them.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gpunn.backend.limits import size
from gpunn.data.download import make_shared, receive, user_cache
from gpunn.errors import DataError, OutputError
from gpunn.files import StrPath, as_path, read_regular, write_atomically


class File(NamedTuple):
    """Name, size and SHA-256 of a file."""

    name: str
    size: int
    sha256: str


PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = File(
    f"{PACKAGE}-{VERSION}.tgz", 33_106_585, "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
)
FILES = (
    File("ort.wasm.bundle.min.mjs", 73_054, "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    File("ort-wasm-simd-threaded.wasm", 14_239_897, "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"),
)
# The default registry of npm.
REGISTRY, REGISTRY_OPTION = "https://registry.npmjs.org/", "npm_config_registry"
_NPM_SECONDS = 20
_MEND = f"--runtime takes a folder with the files, or the archive that `npm pack {PACKAGE}@{VERSION}` writes"

Runtime = dict[str, bytes]


def runtime(given: StrPath | None = None, say: Callable[[str], None] = lambda _: None) -> Runtime:
    """Return the files of the runtime by name, from `given`, else from the cache, else downloaded into the cache.

    Args:
        given: Folder with the files, or archive of the npm package; None for the cache or npm's registry.
        say: Function that prints a line before a download.

    Raises:
        DataError: A file is missing, is not of the version that the page was made with, or cannot be downloaded.
    """
    if given is not None:
        path = as_path(given)
        return _in_folder(path) if path.is_dir() else _unpacked(_checked(ARCHIVE, path), str(path))
    folder = user_cache() / f"{PACKAGE}-{VERSION}"
    with suppress(DataError):
        return _in_folder(folder)
    found = _downloaded(say)
    with suppress(OSError, OutputError):  # the page does not need the cache
        make_shared(folder)
        for name, content in found.items():
            write_atomically(folder / name, content)
    return found


def _in_folder(folder: Path) -> Runtime:
    """Read the files from their own folder, from the package's, or from one where npm has installed it."""
    inner = (Path(), Path("dist"), Path("package/dist"), Path("node_modules") / PACKAGE / "dist")
    found = next((folder / each for each in inner if (folder / each / FILES[0].name).is_file()), folder)
    return {file.name: _checked(file, found / file.name) for file in FILES}


def _checked(file: File, path: Path) -> bytes:
    try:
        content = read_regular(path, file.size)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): {_MEND}") from None
    return _known(file, content, str(path))


def _known(file: File, content: bytes, name: str) -> bytes:
    if (got := hashlib.sha256(content).hexdigest()) != file.sha256:
        expected = f"expected {file.name} of {PACKAGE} {VERSION}, SHA-256 {file.sha256[:12]}…"
        raise DataError(f"{name} is another file (SHA-256 {got[:12]}…), {expected}: {_MEND}")
    return content


def _unpacked(content: bytes, name: str) -> Runtime:
    """Read the files from an archive of known hash, without unpacking it to disk."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for file in FILES:
            with archive.extractfile(f"package/dist/{file.name}") or io.BytesIO() as member:
                found[file.name] = _known(file, member.read(file.size + 1), f"{name}: {file.name}")
    return found


def _downloaded(say: Callable[[str], None]) -> Runtime:
    url = f"{registry().rstrip('/')}/{PACKAGE}/-/{ARCHIVE.name}"
    shown = re.sub(r"//[^/@]*@", "//", url)  # without a password
    say(f"downloading {shown} ({size(ARCHIVE.size)}, once): the runtime of the page")
    try:
        content = receive(url, ARCHIVE.name, ARCHIVE.size)
        if (got := hashlib.sha256(content).hexdigest()) != ARCHIVE.sha256:
            raise DataError(f"sent another file (SHA-256 {got[:12]}…, expected {ARCHIVE.sha256[:12]}…)")
    except DataError as error:
        wrong = f"the page needs {PACKAGE} {VERSION}, which is not on this machine; {shown} {error}"
        raise DataError(f"{wrong}: name another registry by {REGISTRY_OPTION}; {_MEND}") from None
    return _unpacked(content, shown)


def registry() -> str:
    """Return the registry that npm would use: by its environment variable, its configuration, or its default."""
    named = next((value for name in (REGISTRY_OPTION, REGISTRY_OPTION.upper()) if (value := os.environ.get(name))), "")
    if not named and (npm := shutil.which("npm")):
        with suppress(OSError, subprocess.SubprocessError):
            command = [npm, "config", "get", "registry"]
            asked = subprocess.run(command, capture_output=True, text=True, timeout=_NPM_SECONDS, check=True)
            named = asked.stdout.strip()
    return named if named.startswith(("https://", "http://")) else REGISTRY
