"""A run that is being trained: its records come as they are made, and its newest network is served."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import gpunn as gn
from gpunn.errors import GpunnError
from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment
from gpunn.experiments.folder import HISTORY
from gpunn.experiments.live_history import LiveHistory
from gpunn.serve.folder import RunFolder

from .conftest import Served, draw_nothing, serving

RECIPE = """
name = "slow"
layers = [{ type = "Flatten" }, { type = "Dense", units = "outputs" }]
optimizer = { type = "SGD", learning_rate = 0.1 }

[data]
source = "digits"
limit = 200

[training]
epochs = 6
batch_size = 50
device = "cpu"

[checkpoints]
every = 4
"""


class Held:
    """A training in a thread, which goes on record by record as it is let."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, work: object = None) -> None:
        (folder.parent / "slow.toml").write_text(RECIPE)
        self.turn, self.step = threading.Semaphore(0), 0
        self.is_free = False
        held = self

        class Holding(gn.Callback):
            def on_steps(self, training: gn.TrainingView) -> None:
                if training.history and training.history[-1].step == training.step and not held.is_free:
                    held.step = training.step
                    held.turn.acquire(timeout=20)

        def both(path: Path) -> gn.Callback:
            made = LiveHistory(path)
            made.on_steps = lambda training: (LiveHistory.on_steps(made, training), Holding().on_steps(training))
            return made

        monkeypatch.setattr(run, "LiveHistory", both)
        experiment = read_experiment(str(folder.parent / "slow.toml"))
        start = work or (lambda: run.train(experiment, folder, lambda _: None, progress=False))
        self.thread = threading.Thread(target=start)
        self.thread.start()

    def until(self, steps: int) -> None:
        """Let the training go on until so many steps are done."""
        deadline = time.monotonic() + 20
        while self.step < steps:
            before = self.step
            if before:
                self.turn.release()
            while self.step == before:
                assert time.monotonic() < deadline
                time.sleep(0.005)

    def end(self) -> None:
        self.is_free = True
        for _ in range(100):
            self.turn.release()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    draw_nothing(monkeypatch)
    monkeypatch.setattr("gpunn.experiments.live_history._SECONDS", 0.0)
    monkeypatch.setattr("gpunn.experiments.live_history._MOST_SHARE", 1e9)
    training = Held(tmp_path / "run", monkeypatch)
    training.until(1)
    yield training
    training.end()


class Stream:
    """The events of a page, gathered in a thread with the time when each came."""

    def __init__(self, served: Served, **headers: str) -> None:
        self.events: list[tuple[float, str, str, dict]] = []
        self._served, self._headers, self.is_open = served, headers, True
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with httpx.Client(base_url=self._served.server.url, timeout=60, trust_env=False) as client:
            name = number = ""
            with client.stream("GET", "/api/events", headers=self._headers) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                for line in answer.iter_lines():
                    key, _, value = line.partition(": ")
                    if key == "id":
                        number = value
                    elif key == "event":
                        name = value
                    elif key == "data":
                        self.events.append((time.monotonic(), name, number, json.loads(value)))
                        number = ""
                    if not self.is_open:
                        return

    def of(self, name: str) -> list[dict]:
        return [data for _, each, _, data in list(self.events) if each == name]

    def wait(self, name: str, found: object, seconds: float = 10.0) -> float:
        """Wait until an event is there, and return when it came."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for when, each, _, data in list(self.events):
                if each == name and found(data):
                    return when
            time.sleep(0.01)
        raise AssertionError(f"no such {name}: {self.events[-3:]}")


def test_a_run_is_followed_from_its_first_record_to_its_end(held: Held, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with serving(folder) as served:
        described = served.get("/api/model")
        assert (described["state"], described["has_test"]) == ("training", False)
        assert "once, at the end" in served.get("/api/sample?set=test&index=0", 404)["error"]
        stream = Stream(served)
        stream.wait("state", lambda data: data["state"] == "training")
        for steps in (4, 8):
            held.until(steps)
            asked = time.monotonic()
            last = gn.History.read_csv(folder / HISTORY)[-1]
            came = stream.wait("record", lambda data, step=last.step: data["step"] == step)
            assert came - asked < 1
            assert stream.of("record")[-1]["train_loss"] == last.train_loss
        held.until(12)
        stream.wait("model", lambda data: data["steps_trained"] >= 8)
        assert served.get("/api/model")["steps_trained"] >= 8
        held.end()
        asked = time.monotonic()
        assert stream.wait("state", lambda data: data["state"] == "finished") - asked < 1
        history = gn.History.read_csv(folder / HISTORY)
        assert [row["step"] for row in stream.of("record")] == history["step"]
        assert [number for _, name, number, _ in stream.events if name == "record"] == list(map(str, history["step"]))
        told = served.get("/api/history")
        assert [row[told["columns"].index("validation_loss")] for row in told["rows"]] == history["validation_loss"]
        again = Stream(served, **{"Last-Event-ID": str(history[-3].step)})  # of a page that was reloaded
        again.wait("state", lambda data: data["state"] == "finished")
        assert [row["step"] for row in again.of("record")] == history["step"][-2:]
        described = served.get("/api/model")
        assert described["has_test"] is True
        assert described["figures"]["test_accuracy"] == described["accuracy"]
        assert served.get("/api/sample?set=test&index=0")["set"] == "test"


def test_a_run_that_goes_on_is_followed_again(held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    held.end()
    with serving(folder) as served:
        stream = Stream(served)
        stream.wait("state", lambda data: data["state"] == "finished")
        before = len(stream.of("record"))
        resumed = lambda: run.resume(str(folder), lambda _: None, progress=False, epochs=8)  # noqa: E731
        later = Held(folder, monkeypatch, resumed)
        later.until(28)
        stream.wait("state", lambda data: data["state"] == "training")
        later.end()
        stream.wait("state", lambda data: data["state"] == "finished" and len(stream.of("state")) > 2)
        history = gn.History.read_csv(folder / HISTORY)
        assert [row["step"] for row in stream.of("record")] == history["step"]
        assert len(history) > before
        assert not stream.of("reset")


def test_a_history_that_begins_again_is_told_whole(tmp_path: Path, digits: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for path in digits.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    history = gn.History.read_csv(folder / HISTORY)
    with serving(folder) as served:
        stream = Stream(served)
        stream.wait("record", lambda data: data["step"] == history[-1].step)
        gn.History(history[:2]).write_csv(folder / HISTORY)
        stream.wait("reset", lambda data: data["columns"])
        deadline = time.monotonic() + 5
        while len(stream.of("record")) < len(history) + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [row["step"] for row in stream.of("record")][len(history) :] == history["step"][:2]
        late = Stream(served, **{"Last-Event-ID": "999999"})
        late.wait("reset", lambda data: data["columns"])
        (folder / HISTORY).write_text("damaged")  # as it may be for a moment
        time.sleep(0.5)
        served.get("/api/history")


def test_a_network_that_cannot_be_read_is_not_served_and_said_once(tmp_path: Path, digits: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for path in digits.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    with serving(folder) as served:
        before = served.get("/api/model")["version"]
        (folder / "model.safetensors").write_bytes(b"damaged")
        deadline = time.monotonic() + 5
        while not served.said and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        (line,) = served.said
        assert line.startswith("gpunn: the newer network is not served: ")
        assert served.get("/api/model")["version"] == before
        for path in folder.iterdir():  # and then the whole run goes
            path.unlink()
        folder.rmdir()
        time.sleep(0.5)
        assert served.post("/api/predict", json={"pixels": [0.5] * 64})["best"]
        (line,) = served.said


def test_states_of_a_folder(held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    assert folder.state() == "training"
    assert folder.network("training").path.parent.parent.name == "checkpoints"
    monkeypatch.setattr(Path, "read_text", lambda *_: (_ for _ in ()).throw(OSError))  # a system without /proc/locks
    assert folder.state() == "training"
    monkeypatch.undo()
    held.end()
    assert folder.state() == "finished"
    assert folder.network("finished").path == tmp_path / "run" / "model.safetensors"
    (tmp_path / "run" / "metrics.json").unlink()
    assert folder.state() == "stopped"
    (tmp_path / "run" / "model.safetensors").unlink()  # as of a run that was killed
    assert folder.network("stopped").path.parent.name == "step-24"


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpunnError, match="holds no network, neither"):
        RunFolder(str(tmp_path))
    with pytest.raises(GpunnError, match="there is no run"):
        RunFolder(str(tmp_path / "none"))
