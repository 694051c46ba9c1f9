"""Files made by malice and by chance: loaded, or refused in one line, soon, and in little memory; see fuzz.

Where memory is what matters, files are read in a process of its own: in one that has run thousands of tests, the C
library holds free memory of any size, which it gives to a reader without asking the kernel that bounds it.
"""

import gzip
import mmap
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fuzz import bombs, harness
from fuzz.harness import Finding, Target, check, each, scratch, warm_up
from fuzz.mutations import mutated
from fuzz.regressions import regressions
from fuzz.targets import TARGETS
from fuzz.targets.models import a_model
from PIL import Image
from support.cli_helpers import TINY, assert_one_line, gpunn, without_pictures

import gpunn as gn
from gpunn.data.formats.idx import read_idx
from gpunn.data.formats.inputs import read_inputs
from gpunn.errors import DataError, GpunnError
from gpunn.experiments.experiment import read_experiment
from gpunn.experiments.folder import EXPERIMENT, MODEL
from gpunn.train.history import History

MUTATED = 400

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@pytest.fixture(scope="module")
def fresh() -> Iterator[ProcessPoolExecutor]:
    """A process that has done nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield process


@targets
def test_files_as_they_should_be_are_read(target: Target) -> None:
    with scratch() as folder:
        warm_up(target, folder)
        for name, data in target.seeds().items():
            assert check(target, target.file(data), folder) is None, name


def _read_what_does_harm(name: str, file: str) -> None:
    target = TARGETS[name]
    with scratch() as folder:
        warm_up(target, folder)
        check(target, target.hostile[file](), folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [pytest.param(name, file, id=f"{name}: {file}") for name, target in TARGETS.items() for file in target.hostile],
)
def test_files_that_were_made_to_do_harm_do_none(fresh: ProcessPoolExecutor, name: str, file: str) -> None:
    fresh.submit(_read_what_does_harm, name, file).result()


def _read_what_did_harm(name: str) -> None:
    target = TARGETS[name]
    with scratch() as folder:
        warm_up(target, folder)
        for data in regressions(name).values():
            check(target, target.file(data), folder)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_once_treated_wrongly_is_so_no_more(fresh: ProcessPoolExecutor, name: str) -> None:
    fresh.submit(_read_what_did_harm, name).result()


@targets
def test_files_that_end_anywhere_are_one_line_or_read(target: Target) -> None:
    with scratch() as folder:
        warm_up(target, folder)
        for data in target.seeds().values():
            content = target.file(data)
            for length in {*range(min(len(content), 200)), *range(0, len(content), 1 + len(content) // 100)}:
                check(target, content[:length], folder)


@targets
def test_files_that_are_changed_by_chance_are_one_line_or_read(target: Target) -> None:
    with scratch() as folder:
        warm_up(target, folder)
        for data in mutated(list(target.seeds().values()), target.words, MUTATED, seed=0):
            check(target, target.file(data), folder)


# What is no file


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))


READERS: dict[str, Callable[[Path], object]] = {
    "idx": read_idx,
    "data": gn.load_data,
    "inputs": lambda path: read_inputs(path, (28, 28, 1)),
    "model": lambda path: gn.load_model(path, "cpu"),
    "experiment": lambda path: read_experiment(str(path)),
    "history": History.read_csv,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "make",
    [
        _pipe,
        _socket,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["pipe", "socket", "folder", "device", "link to itself", "link to nowhere"],
)
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, reader: str, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "x.toml")
    with pytest.raises(GpunnError):
        READERS[reader](tmp_path / "x.toml")


@pytest.mark.parametrize("name", [MODEL, EXPERIMENT, "metrics.json", "checkpoints"])
@pytest.mark.parametrize("where", ["/dev/zero", "../elsewhere", "pipe"])
def test_a_run_folder_whose_files_lead_out_is_one_line_and_nothing_outside_changes(
    tmp_path: Path, name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked about an image and gone on with, whichever of its files is another's, a device or a pipe."""
    monkeypatch.chdir(tmp_path)
    without_pictures(monkeypatch)
    outside, run = tmp_path / "elsewhere", tmp_path / "run"
    (outside / "step-7").mkdir(parents=True)
    (outside / ".x.tmp").touch()
    run.mkdir()
    a_model().save(run / MODEL)
    (run / EXPERIMENT).write_text(TINY)
    (run / name).unlink(missing_ok=True)
    if where == "pipe":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(where)
    Image.new("L", (5, 6)).save(tmp_path / "image.png")
    before = sorted(outside.rglob("*"))
    for command in (("predict", "run", "image.png"), ("train", "--resume", "run", "--device", "cpu")):
        done = gpunn(*command)
        if done.code:
            assert_one_line(done._replace(err=done.err.splitlines()[-1]), 1)
    assert sorted(outside.rglob("*")) == before


# The harness itself, which must find what it looks for


def _raise(error: BaseException) -> object:
    raise error


class _TwoLinesError(DataError):
    def __str__(self) -> str:
        return "one line\nand another"


def _swallow(_: Path) -> None:
    try:
        np.empty(200 << 20, np.uint8)
    except MemoryError:
        raise DataError("too large") from None


def _loop(_: Path) -> None:
    while True:
        with suppress(Exception):  # as a loader might
            sum(range(10_000))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "another error": (lambda _: _raise(KeyError("x")), "KeyError instead of an error"),
    "another error under a reader's": (lambda p: each(p, lambda _: _raise(ValueError("x"))), "ValueError instead"),
    "two lines": (lambda _: _raise(_TwoLinesError("")), "not one line"),
    "two lines of one of two": (lambda p: each(p, lambda _: _raise(_TwoLinesError("")), len), "not one line"),
    "no words": (lambda _: _raise(DataError("")), "not one line"),
    "memory that is used": (lambda _: np.ones(70 << 20, np.uint8).sum(), "MemoryError instead"),
    "memory that is only promised": (lambda _: np.empty(10 << 30, np.uint8), "MemoryError instead"),
    "memory of Pillow": (lambda _: Image.new("RGB", (5000, 5000)), "MemoryError instead"),
    "memory by pieces": (lambda _: [bytes(1000) for _ in range(200_000)], "MemoryError instead"),
    "memory, and the error hidden": (_swallow, "memory was taken before it was asked for"),
    "no end": (_loop, "not done after 2.0 s"),
}


def _read_wrongly(name: str) -> None:
    with scratch() as folder:
        check(Target("wrong", WRONG[name][0], dict), b"x", folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WRONG)
def test_the_harness_finds_a_reader_that_is_wrong(fresh: ProcessPoolExecutor, name: str) -> None:
    with pytest.raises(Finding, match=WRONG[name][1]):
        fresh.submit(_read_wrongly, name).result()


def test_the_harness_lets_a_reader_take_what_it_may() -> None:
    target = Target("right", lambda path: np.ones(40 << 20, np.uint8)[: len(path.read_bytes())], dict)  # type: ignore
    with scratch() as folder:
        assert check(target, b"x", folder) is None
        with mmap.mmap(-1, 100 << 20):  # and afterwards all is as before
            pass
    assert harness.SECONDS == 2.0
    assert harness.MEMORY == 64 << 20


def test_a_changed_file_is_the_same_each_time() -> None:
    seeds = [b"abcdefgh", b"12345678"]
    first = list(mutated(seeds, (b"word",), 200, seed=5))
    assert first == list(mutated(seeds, (b"word",), 200, seed=5))
    assert first != list(mutated(seeds, (b"word",), 200, seed=6))
    assert len(set(first)) > 150


def test_a_bomb_is_a_good_file_of_what_it_says() -> None:
    """A reader that refuses it must do so for what it unpacks to, and not for damage."""
    assert gzip.decompress(bombs.zeros(b"ab", 2, b"c")) == b"ab" + bytes(2 << 20) + b"c"
