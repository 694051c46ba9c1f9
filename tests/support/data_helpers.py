"""Files and servers for the tests of the data: small IDX sets, and a server that misbehaves."""

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: NDArray) -> bytes:
    """An IDX file, written from its definition and not by the package."""
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def one_line(error: Exception) -> None:
    """What the program prints of an error is one line."""
    assert "\n" not in str(error)
    assert len(str(error)) < 600


def small_set(train: int = 40, test: int = 12, classes: int = 4, seed: int = 0) -> dict[str, NDArray]:
    """Four arrays as the four files of MNIST have them, 5x6 pixels."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 5, 6)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % classes).astype(np.uint8)
    return arrays


def write_set(folder: Path, arrays: dict[str, NDArray], *, packed: bool = False) -> Path:
    """Write the files of a set into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in arrays.items():
        content = idx_bytes(array)
        if packed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content, 1))
        else:
            (folder / stem).write_bytes(content)
    return folder


Answer = Callable[[BaseHTTPRequestHandler, str], None]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server on the loopback: gives (its address with a slash, the names asked for so far)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            asked.append(name)
            answer(self, name)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}/", asked
        finally:
            http.shutdown()
            thread.join()


def sends(files: dict[str, bytes]) -> Answer:
    """Answers with the content of a name, 404 for all others."""

    def answer(handler: BaseHTTPRequestHandler, name: str) -> None:
        if name not in files:
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(files[name])))
        handler.end_headers()
        handler.wfile.write(files[name])

    return answer


def fails(status: int) -> Answer:
    """Answers every question with an error."""
    return lambda handler, name: handler.send_error(status)


def breaks_off(content: bytes, after: int) -> Answer:
    """Promises the whole content and closes the connection after some bytes of it."""

    def answer(handler: BaseHTTPRequestHandler, name: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:after])

    return answer
