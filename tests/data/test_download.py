"""Downloads, against a server on the loopback: mirrors, checks, and that nothing half-done is left behind."""

import contextlib
import errno
import gzip
import hashlib
import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.data_helpers import STEMS, breaks_off, fails, idx_bytes, one_line, sends, server, small_set
from support.paths import ROOT

from gpunn.cli.doctor import _folder_findings
from gpunn.data import load as load_module
from gpunn.data import load_data
from gpunn.data.download import download
from gpunn.data.formats.bounded import Gunzip
from gpunn.data.published import FASHION_MNIST, MNIST, PUBLISHED
from gpunn.errors import DataError, OutputError

ARRAYS = small_set()
CONTENT = {f"{stem}.gz": gzip.compress(idx_bytes(array), 1, mtime=0) for stem, array in ARRAYS.items()}
# A set of our own, small and with true hashes: of the content as for MNIST, or of the archive as for Fashion-MNIST.
BY_CONTENT = replace(
    MNIST,
    files=tuple(
        replace(file, shape=ARRAYS[file.stem].shape, sha256=hashlib.sha256(idx_bytes(ARRAYS[file.stem])).hexdigest())
        for file in MNIST.files
    ),
)
BY_ARCHIVE = replace(
    FASHION_MNIST,
    files=tuple(
        replace(
            file,
            shape=ARRAYS[file.stem].shape,
            archive_sha256=hashlib.sha256(CONTENT[f"{file.stem}.gz"]).hexdigest(),
        )
        for file in FASHION_MNIST.files
    ),
)
IMAGES = f"{STEMS[0]}.gz"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")


def fetched(published, folder, *answers):
    """Downloads from servers that answer so, one mirror each; gives the paths and what each was asked for."""

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server(answer)) for answer in answers]
        paths = download(published, folder, [address for address, _ in servers])
    return paths, [asked for _, asked in servers]


def refused(published, folder, *answers) -> str:
    with pytest.raises(DataError) as caught:
        fetched(published, folder, *answers)
    one_line(caught.value)
    assert STEMS[0] in str(caught.value)
    assert "GPUNN_DATA" in str(caught.value)
    assert list(folder.iterdir()) == []
    return str(caught.value)


def whole(folder) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == {
        stem: idx_bytes(array) for stem, array in ARRAYS.items()
    }


@pytest.mark.parametrize("published", [BY_CONTENT, BY_ARCHIVE], ids=["content", "archive"])
def test_the_files_are_checked_unpacked_and_put_in_place(tmp_path, published):
    paths, _ = fetched(published, tmp_path / "new" / "folder", sends(CONTENT))
    assert [path.name for path in paths] == list(STEMS)
    assert whole(tmp_path / "new" / "folder")


GARBAGE = dict.fromkeys(CONTENT, b"<html>Sign in to this wireless network</html>")
OTHER = {f"{stem}.gz": gzip.compress(idx_bytes(array)) for stem, array in small_set(seed=1).items()}
TOO_LONG = {name: gzip.compress(gzip.decompress(content) + b"\0") for name, content in CONTENT.items()}
TRUNCATED = {name: content[:-9] for name, content in CONTENT.items()}
FAULTS = {
    "500": (fails(500), "answered 500"),
    "404": (fails(404), "answered 404"),
    "another page": (sends(GARBAGE), "sent something else"),
    "empty": (sends(dict.fromkeys(CONTENT, b"")), "sent 0 bytes"),
    "truncated": (sends(TRUNCATED), "cut short"),
    "broken off": (breaks_off(CONTENT[IMAGES], 100), "broke off"),
    "too long": (sends(TOO_LONG), "more than"),
    "endless": (sends(dict.fromkeys(CONTENT, bytes(3 << 20))), "more than the file holds"),
}


@pytest.mark.parametrize("published", [BY_CONTENT, BY_ARCHIVE], ids=["content", "archive"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_mirror_that_fails_is_followed_by_the_next(tmp_path, fault, published):
    _, (first, second) = fetched(published, tmp_path, FAULTS[fault][0], sends(CONTENT))
    assert whole(tmp_path)
    # A mirror that failed is not waited for again.
    assert first == [IMAGES]
    assert len(second) == 4


@pytest.mark.parametrize("fault", FAULTS)
def test_where_every_mirror_fails_each_reason_is_told(tmp_path, fault):
    answer, said = FAULTS[fault]
    message = refused(BY_CONTENT, tmp_path, answer, fails(503))
    assert said in message
    assert "answered 503" in message


def test_wrong_content_of_the_right_size_is_refused_by_its_hash(tmp_path):
    assert "wrong content (SHA-256" in refused(BY_CONTENT, tmp_path, sends(OTHER))
    assert "wrong archive (SHA-256" in refused(BY_ARCHIVE, tmp_path, sends(OTHER))


def test_a_wrapper_of_ones_own_is_taken_where_the_content_is_known(tmp_path):
    rewrapped = {name: gzip.compress(gzip.decompress(content), 9) for name, content in CONTENT.items()}
    fetched(BY_CONTENT, tmp_path, sends(rewrapped))
    assert whole(tmp_path)


PLAIN = {name: gzip.decompress(content) for name, content in CONTENT.items()}


def test_files_that_come_unpacked_are_taken_and_checked(tmp_path, caplog):
    fetched(BY_CONTENT, tmp_path, sends(PLAIN))
    assert whole(tmp_path)
    assert caplog.text == ""


def test_where_only_the_hash_of_the_archive_is_known_unpacked_files_are_taken_with_a_warning(tmp_path, caplog):
    fetched(BY_ARCHIVE, tmp_path, sends(PLAIN))
    assert whole(tmp_path)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 4
    assert "not checked" in warned[0].getMessage()


def test_unpacked_files_of_a_wrong_size_are_refused(tmp_path):
    assert "expected 1,216" in refused(BY_ARCHIVE, tmp_path, sends({n: c[:-1] for n, c in PLAIN.items()}))


def test_a_bomb_is_unpacked_no_further_than_the_file_is_long(tmp_path, monkeypatch):
    header = idx_bytes(ARRAYS[STEMS[0]])[:16]
    bomb = {IMAGES: gzip.compress(header + bytes(100 << 20), 1)}
    unpacked = []

    class Counting(Gunzip):
        def read(self, size):
            unpacked.append(super().read(size))
            return unpacked[-1]

    monkeypatch.setattr("gpunn.data.download.Gunzip", Counting)
    with server(sends(bomb)) as (address, _), pytest.raises(DataError, match="more than 1,216 bytes"):
        download(BY_CONTENT, tmp_path, [address])
    assert sum(map(len, unpacked)) == 1217


def test_files_that_are_there_are_not_asked_for_again(tmp_path):
    for stem in STEMS[:3]:
        (tmp_path / stem).write_bytes(idx_bytes(ARRAYS[stem]))
    _, (asked,) = fetched(BY_CONTENT, tmp_path, sends(CONTENT))
    assert asked == [f"{STEMS[3]}.gz"]


def test_of_several_downloads_at_a_time_one_asks_and_the_others_wait(tmp_path, caplog):
    def slowly(handler, name):
        time.sleep(0.1)
        sends(CONTENT)(handler, name)

    folder = tmp_path / "set"
    with server(slowly) as (address, asked), ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: download(BY_CONTENT, folder, [address]), range(3)))
    assert sorted(asked) == sorted(CONTENT)
    assert done == [tuple(folder / file.stem for file in BY_CONTENT.files)] * 3
    assert "waiting for it" in caplog.text


def test_where_a_folder_knows_no_locks_a_download_goes_on(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("gpunn.data.download.fcntl.flock", refuse)
    fetched(BY_CONTENT, tmp_path, sends(CONTENT))
    assert whole(tmp_path)


def test_a_server_that_is_not_there_cannot_be_reached(tmp_path):
    with server(fails(500)) as (address, _):
        pass  # closed again: nobody listens there now
    with pytest.raises(DataError, match=f"{address} cannot be reached"):
        download(BY_CONTENT, tmp_path, [address])


def test_a_server_that_falls_silent_is_left(tmp_path, monkeypatch):

    monkeypatch.setattr("gpunn.data.download.READ_SECONDS", 0.05)
    done = threading.Event()
    with server(lambda handler, name: done.wait(10)) as (address, _):
        try:
            with pytest.raises(DataError, match="fell silent"):
                download(BY_CONTENT, tmp_path, [address])
        finally:
            done.set()


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="GPUNN_DATA") as caught:
        download(BY_CONTENT, tmp_path / "file" / "mnist", [])
    one_line(caught.value)


@pytest.mark.parametrize("buffering", [0, -1], ids=["at a write", "at the closing"])
def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, monkeypatch, buffering):
    plain_open = Path.open

    def full(path, mode="r", *args, **named):
        if path.suffix == ".tmp" and "x" in mode:
            return plain_open(Path("/dev/full"), "wb", buffering)
        return plain_open(path, mode, *args, **named)

    monkeypatch.setattr(Path, "open", full)
    with server(sends(CONTENT)) as (address, _), pytest.raises(OutputError, match=r"No space left.*GPUNN_DATA"):
        download(BY_CONTENT, tmp_path, [address])
    assert list(tmp_path.iterdir()) == []


def test_the_real_mnist_is_downloaded_into_the_cache_and_read_from_there(mnist_folder, tmp_path, monkeypatch):
    files = {}
    for file in MNIST.files:
        raw = file.find(mnist_folder).read_bytes()
        files[f"{file.stem}.gz"] = raw if raw[:2] == b"\x1f\x8b" else gzip.compress(raw, 1)
    monkeypatch.delenv("GPUNN_DATA", raising=False)
    monkeypatch.setattr(load_module, "user_cache", lambda: tmp_path)
    with server(fails(404)) as (broken, _), server(sends(files)) as (address, asked):
        monkeypatch.setitem(PUBLISHED, "mnist", replace(MNIST, mirrors=(broken, address)))
        first = load_data("mnist", limit=100)
        second = load_data("mnist", limit=100)
        assert len(asked) == 4
    assert first.train.sha256() == second.train.sha256()
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(STEMS)
    assert len(second.test) == 10_000


def test_a_user_without_a_home_is_told_where_to_let_sets_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for variable in ("HOME", "XDG_CACHE_HOME", "GPUNN_DATA"):
        monkeypatch.delenv(variable, raising=False)
    finding = next(found for found in _folder_findings() if found.name == "data cache")
    assert (finding.status, finding.mend) == ("warn", "export XDG_CACHE_HOME=FOLDER with a folder that can be written")
    with server(sends({})) as (address, _):
        monkeypatch.setitem(PUBLISHED, "mnist", replace(MNIST, mirrors=(address,)))
        with pytest.raises(OutputError, match=r"or put the files into a folder that .* GPUNN_DATA names") as caught:
            load_data("mnist")
    one_line(caught.value)


IN_A_NOTEBOOK = """
import sys, types, warnings
ipython = types.ModuleType("IPython")
ipython.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}}, kernel=True)
sys.modules |= {"IPython": ipython, "ipykernel.zmqshell": types.ModuleType("zmqshell"), "ipywidgets": None}
from gpunn.data.download import user_cache
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    user_cache()
assert "tqdm.autonotebook" in sys.modules
print([str(each.message) for each in caught])
"""


def test_a_notebook_without_widgets_does_not_warn_of_a_bar_that_is_never_shown() -> None:
    """In a process of its own: here tqdm may be imported already."""
    command = [sys.executable, "-c", IN_A_NOTEBOOK]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
