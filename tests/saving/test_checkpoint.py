"""Checkpoints as folders: whole or not at all, and whatever is damaged is found out, in one line."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.checkpoint_helpers import ORIGIN, adam, convolutional, images, momentum, stopped_after, trainer
from support.harness import one_line

import gpunn as gn
from gpunn.errors import CheckpointError, OutputError
from gpunn.files import remove_leftovers
from gpunn.saving.checkpoint import (
    BEST,
    MANIFEST,
    MODEL,
    STATE,
    DamagedCheckpointError,
    _fingerprint,
    open_checkpoint,
    write_checkpoint,
)
from gpunn.train.record import State
from gpunn.train.trainer import Trainer

FILES = (MODEL, BEST, STATE, MANIFEST)


@pytest.fixture(scope="module")
def stopped() -> tuple[Trainer, State]:
    """A training after a step that no record belongs to."""
    training = momentum(validate_every=4, epochs=2)
    return training, stopped_after(training, 7)


@pytest.fixture(scope="module")
def original(stopped: tuple[Trainer, State], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "step-7"
    write_checkpoint(path, stopped[1], ORIGIN, stopped[0].model)
    return path


@pytest.fixture
def written(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "step-7"))


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who knows how its fingerprint is made."""
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["sha256"]
    change(manifest)
    (path / MANIFEST).write_text(json.dumps({**manifest, "sha256": _fingerprint(manifest)}))


def assert_equal(first: State, second: State) -> None:
    for name in ("now", "last", "good", "best"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.step == other.step
            np.testing.assert_equal(one.arrays, other.arrays)
    np.testing.assert_equal(first.optimizer, second.optimizer)
    np.testing.assert_equal(first.totals, second.totals)
    for name in ("samples", "stopped", "skipped", "untrained_loss", "seconds"):
        assert getattr(first, name) == getattr(second, name)
    np.testing.assert_equal([astuple(r) for r in first.records], [astuple(r) for r in second.records])


@pytest.mark.parametrize("make", [momentum, adam])
@pytest.mark.parametrize("validation", [0.2, 0])
@pytest.mark.parametrize("steps", [0, 3, 6, 9])
def test_what_is_read_is_what_was_written(make: Any, validation: float, steps: int, tmp_path: Path) -> None:
    training = make(data=images(validation=validation), patience=None)
    state = stopped_after(training, steps)
    write_checkpoint(tmp_path / "step", state, ORIGIN, training.model)
    checkpoint = open_checkpoint(tmp_path / "step")
    assert (checkpoint.step, checkpoint.origin) == (steps, ORIGIN)
    assert_equal(checkpoint.state(state), state)


def test_a_checkpoint_holds_safetensors_and_json_only(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == set(FILES)
    for name in FILES[:3]:
        assert load_file(written / name)
    json.loads((written / MANIFEST).read_text("ascii"))


def test_its_networks_are_model_files_like_any_other(written: Path, stopped: tuple[Trainer, State]) -> None:
    for name, weights in ((MODEL, stopped[1].now), (BEST, stopped[1].best)):
        np.testing.assert_equal(gn.load_model(written / name, "cpu").arrays(), weights.arrays)


def test_a_checkpoint_may_replace_another(written: Path, stopped: tuple[Trainer, State]) -> None:
    write_checkpoint(written, replace(stopped[1], seconds=77.0), ORIGIN, stopped[0].model)
    assert open_checkpoint(written).state(stopped[1]).seconds == 77.0
    assert [path.name for path in written.parent.iterdir()] == [written.name]


# Damage


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_anywhere_is_found_out(name: str, written: Path) -> None:
    content = (written / name).read_bytes()
    for size in {0, 1, 7, 8, 9, len(content) // 2, len(content) - 1, *range(0, len(content), 97)}:
        (written / name).write_bytes(content[:size])
        with pytest.raises(DamagedCheckpointError) as caught:
            open_checkpoint(written)
        one_line(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_bit_that_is_flipped_anywhere_is_found_out(name: str, written: Path) -> None:
    """By the manifest, where the bit is in what is read: white space between its words says nothing."""
    content = (written / name).read_bytes()
    manifest = json.loads((written / MANIFEST).read_text())
    for at in range(0, len(content), 13):
        changed = bytearray(content)
        changed[at] ^= 1
        (written / name).write_bytes(changed)
        try:
            open_checkpoint(written)
        except CheckpointError as error:
            one_line(error)
        else:
            assert name == MANIFEST
            assert json.loads(changed) == manifest


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_grew_is_found_out(name: str, written: Path) -> None:
    content = (written / name).read_bytes()
    (written / name).write_bytes(content + b"x")
    with pytest.raises(DamagedCheckpointError):
        open_checkpoint(written)
    (written / name).unlink()
    with pytest.raises(DamagedCheckpointError, match="No such file or directory"):
        open_checkpoint(written)


def _linked(path: Path) -> None:
    (path / STATE).rename(path.parent / "elsewhere")
    (path / STATE).symlink_to(path.parent / "elsewhere")


def _piped(path: Path) -> None:
    (path / STATE).unlink()
    os.mkfifo(path / STATE)


def _folded(path: Path) -> None:
    (path / STATE).unlink()
    (path / STATE).mkdir()


@pytest.mark.parametrize("spoil", [_linked, _piped, _folded])
def test_what_is_no_file_of_the_folder_is_not_opened(spoil: Callable[[Path], None], written: Path) -> None:
    spoil(written)
    with pytest.raises(DamagedCheckpointError) as caught:
        open_checkpoint(written)
    one_line(caught.value)


def test_a_link_in_the_place_of_a_checkpoint_is_not_followed(written: Path) -> None:
    link = written.with_name("step-8")
    link.symlink_to(written, target_is_directory=True)
    with pytest.raises(DamagedCheckpointError, match="is a link"):
        open_checkpoint(link)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"1", b"\xff", b"{" * 100_000, b'{"format": 1}', b'{"format": NaN}', b"[" * 10**6],
    ids=["empty", "table", "list", "null", "number", "byte", "braces", "bare", "NaN", "brackets"],
)
def test_what_is_no_manifest_is_one_line(content: bytes, written: Path) -> None:
    (written / MANIFEST).write_bytes(content)
    with pytest.raises(DamagedCheckpointError) as caught:
        open_checkpoint(written)
    one_line(caught.value)


def test_a_manifest_of_another_format_is_not_called_damaged(written: Path) -> None:
    """A newer gpunn wrote it: an older checkpoint must not be taken silently in its place."""
    rewrite(written, lambda manifest: manifest.update(format=2))
    with pytest.raises(CheckpointError, match="has format 2, this gpunn knows 1: update gpunn") as caught:
        open_checkpoint(written)
    assert not isinstance(caught.value, DamagedCheckpointError)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["files"].update({"../../x": {"bytes": 1, "sha256": ""}}), "files must be a table of"),
        (lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}), "files must be a table of"),
        (lambda m: m["files"].pop(MODEL), "files.model.safetensors must be a table"),
        (lambda m: m["files"].pop(BEST), "best.safetensors must be there if and only if"),
        (lambda m: m.update(step=-1), "its steps must lie from 0 to -1"),
        (lambda m: m.update(step=2**40), "its steps must lie"),
        (lambda m: m.update(step="7"), "step must be of type int"),
        (lambda m: m.update(step=True), "step must be of type int"),
        (lambda m: m.update(extra=1), "it must be a table of"),
        (lambda m: m.pop("experiment"), "experiment must be of type str"),
        (lambda m: m["position"].update(records=10**9), "its steps must lie"),
        (lambda m: m["position"].update(best=8), "its steps must lie"),
        (lambda m: m["position"].update(seconds=-1.0), "seconds must be at least 0"),
        (lambda m: m["position"].update(samples=-1), "samples must be at least 0"),
        (lambda m: m["data"]["train"].update(shape=["x"]), "shape of its samples"),
        (lambda m: m["versions"].update(numpy=["x"]), "versions must be texts"),
    ],
)
def test_a_manifest_with_values_that_cannot_be_is_refused(change: Any, words: str, written: Path) -> None:
    rewrite(written, change)
    with pytest.raises(DamagedCheckpointError, match=words) as caught:
        open_checkpoint(written)
    one_line(caught.value)


# Another network


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: trainer(optimizer=gn.Adam(0.1)), "optimizer/first is missing, expected float32.*optimizer/velocity"),
        (lambda: trainer(optimizer=gn.SGD(0.1)), "optimizer/velocity is float32 .*, expected none"),
        (lambda: momentum(dtype="float64"), r"is float32 .*, expected float64"),
        (
            lambda: momentum(model=gn.Sequential([*convolutional().layers[:4], gn.Dense(7), gn.Dense(3)])),
            r"dense2.w is missing, expected float32 \(3, 7\)",
        ),
    ],
    ids=["Adam", "no momentum", "float64", "layers"],
)
def test_another_network_or_optimizer_is_refused_with_the_difference(other: Any, words: str, written: Path) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(written).state(other().state())
    one_line(caught.value)


def test_a_header_that_would_take_much_memory_is_not_read(written: Path, stopped: tuple[Trainer, State]) -> None:
    """Names by the hundred thousand take many times their bytes once they are objects."""
    save_file({f"{'x' * 40}{number}": np.zeros(0, np.float32) for number in range(20_000)}, written / STATE)
    with pytest.raises(CheckpointError, match=r"its header promises [\d,]+ bytes, at most [\d,]+ are read"):
        _unchecked(written).state(stopped[1])


def test_figures_of_the_task_and_the_penalty_come_back(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(80, 36))
    data = gn.Data.from_arrays(x, x[:, :2], validation=0.2)
    made = trainer(data, gn.Sequential([gn.Dense(2)]), regularizer=gn.L2(0.5), optimizer=gn.SGD(0.01), epochs=3)
    state = stopped_after(made, 6)
    assert state.records
    write_checkpoint(tmp_path / "step-6", state, ORIGIN, made.model)
    again = open_checkpoint(tmp_path / "step-6").state(state)
    assert again.records == state.records
    assert again.records[-1].validation_r2 == state.records[-1].validation_r2
    assert again.records[-1].penalty > 0


def test_a_checkpoint_of_the_version_before_knows_no_figures_beside(tmp_path: Path) -> None:
    """It has eight columns, and its manifest says of no others."""
    made = trainer(regularizer=None, optimizer=gn.SGD(0.05), epochs=3)
    state = stopped_after(made, 7)
    write_checkpoint(tmp_path / "step-7", state, ORIGIN, made.model)
    rewrite(tmp_path / "step-7", lambda manifest: manifest["position"].pop("figures"))
    assert open_checkpoint(tmp_path / "step-7").state(state).records == state.records


@pytest.mark.parametrize("figures", [["seconds"], ["train_r2", "train_r2"], ["a cost"], [1], [["penalty"]], 3])
def test_figures_that_are_no_columns_are_refused(written: Path, figures: Any) -> None:
    rewrite(written, lambda manifest: manifest["position"].update(figures=figures))
    with pytest.raises(DamagedCheckpointError, match="figures must be"):
        open_checkpoint(written)


@pytest.mark.parametrize("rows", [[[1.0] + [0.0] * 7] * 4, [[float("nan")] * 8] * 4, [[float("inf")] * 8] * 4])
def test_what_is_no_history_is_refused(
    rows: Any, tmp_path: Path, written: Path, stopped: tuple[Trainer, State]
) -> None:
    arrays = load_file(written / STATE)
    arrays["records"] = np.array(rows)[: len(arrays["records"])]
    if len(arrays["records"]) == 1:
        arrays["records"][:] = float("nan")
    save_file(arrays, written / STATE)
    with pytest.raises(CheckpointError, match="holds no history"):
        _unchecked(written).state(stopped[1])


def _unchecked(path: Path) -> Any:
    """A checkpoint whose manifest was made to fit its files."""
    import hashlib

    def fit(manifest: dict[str, Any]) -> None:
        for name, entry in manifest["files"].items():
            content = (path / name).read_bytes()
            entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    rewrite(path, fit)
    return open_checkpoint(path)


# Killed and full


def _operations() -> list[str]:
    return ["open", "fsync", "rename", "mkdir", "replace", "rmdir", "unlink", "close"]


class Counter:
    """Counts what is done to the disk, and does something instead of the n-th."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, instead: Callable[[], None], at: int = -1) -> None:
        self.count, self.at, self.instead = 0, at, instead
        for name in _operations():
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count - 1 == self.at:
                self.instead()
            return function(*arguments, **options)

        return counted


def _in_a_child(work: Callable[[], object]) -> int:
    """The exit status of a forked process that does some work."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_a_process_killed_at_any_operation_leaves_whole_checkpoints_only(
    there: bool, stopped: tuple[Trainer, State], tmp_path: Path
) -> None:
    """Whatever has the name of a checkpoint is whole, and leftovers are known for what they are."""
    training, state = stopped
    killed = 0
    for at in range(1000):
        folder = tmp_path / str(at)
        folder.mkdir()
        if there:
            write_checkpoint(folder / "step-7", state, ORIGIN, training.model)

        def work(folder: Path = folder, at: int = at) -> None:
            with pytest.MonkeyPatch.context() as patch:
                Counter(patch, lambda: os._exit(9), at)
                write_checkpoint(folder / "step-7", replace(state, seconds=77.0), ORIGIN, training.model)

        status = _in_a_child(work)
        remove_leftovers(folder)
        names = [path.name for path in folder.iterdir()]
        assert names in ([], ["step-7"])
        if names:
            assert_equal(
                replace(open_checkpoint(folder / "step-7").state(state), seconds=0.0), replace(state, seconds=0.0)
            )
        if status == 0:
            break
        assert status == 9
        killed += 1
    assert killed > 10


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_an_operation_that_fails_leaves_the_checkpoint_before_and_nothing_else(
    number: int, written: Path, stopped: tuple[Trainer, State], tmp_path: Path
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    failed = 0
    for at in range(1000):
        with pytest.MonkeyPatch.context() as patch:
            counter = Counter(patch, fail, at)
            caught = None
            try:
                write_checkpoint(tmp_path / "step-9", stopped[1], ORIGIN, stopped[0].model)
            except OutputError as error:
                caught = error
            done = counter.count <= at
        if caught is not None:
            assert os.strerror(number) in one_line(caught)
            failed += 1
        assert_equal(open_checkpoint(written).state(stopped[1]), stopped[1])
        assert {path.name for path in tmp_path.iterdir()} <= {"step-7", "step-9"}
        shutil.rmtree(tmp_path / "step-9", ignore_errors=True)
        if done:
            break
    assert failed > 10


def test_an_operation_that_fails_leaves_the_checkpoint_that_was_to_be_replaced(
    written: Path, stopped: tuple[Trainer, State]
) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    training, state = stopped
    for at in range(1000):
        with pytest.MonkeyPatch.context() as patch:
            counter = Counter(patch, fail, at)
            with contextlib.suppress(OutputError):
                write_checkpoint(written, state, ORIGIN, training.model)
            done = counter.count <= at
        remove_leftovers(written.parent)  # the operation that failed may be the removal of the old folder
        assert [path.name for path in written.parent.iterdir()] == [written.name], f"operation {at}"
        assert_equal(open_checkpoint(written).state(state), state)
        if done:
            break
    assert at > 10
