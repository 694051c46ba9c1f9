"""Runs that are served by the real uvicorn, in a thread of this process, on a free port."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gpunn.experiments import results, run
from gpunn.experiments.experiment import Experiment, read_experiment
from gpunn.serve.server import PageServer

# Of what lenet-digits has, so few that it is trained in a moment.
LAYERS = (
    {"type": "Conv2D", "filters": 8, "size": 3, "padding": "same"},
    {"type": "ReLU"},
    {"type": "MaxPool2D", "size": 2},
    {"type": "Flatten"},
    {"type": "Dense", "units": 32},
    {"type": "ReLU"},
    {"type": "Dense", "units": "outputs"},
)


class Served:
    """A server that runs, and a client that asks it."""

    def __init__(self, server: PageServer, said: list[str]) -> None:
        self.server, self.said, self.port = server, said, server.socket.getsockname()[1]
        self.client = httpx.Client(base_url=server.url, timeout=30, trust_env=False)

    def get(self, path: str, status: int = 200, **more: object) -> dict:
        answer = self.client.get(path, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, path: str, status: int = 200, **more: object) -> dict:
        answer = self.client.post(path, **more)
        assert answer.status_code == status, answer.text
        return answer.json()


@contextlib.contextmanager
def serving(path: str | Path) -> Iterator[Served]:
    said: list[str] = []
    server = PageServer(str(path), "127.0.0.1", 0, "cpu", said.append)
    thread = threading.Thread(target=server.serve_until_signal)
    thread.start()
    served = Served(server, said)
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started
        yield served
    finally:
        served.client.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs end without their pictures, which take most of their time."""
    monkeypatch.setattr(results, "plot_curves", lambda *_, **__: None)
    for name in ("draw_answers", "draw_network"):
        monkeypatch.setattr(results, name, lambda *_: [])
    monkeypatch.setattr(results, "draw_reconstructions", lambda *_, **__: None)


def trained(experiment: Experiment, folder: Path, **options: object) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        run.train(experiment.with_options(**options), folder, lambda _: None, progress=False)
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits."""
    folder = tmp_path_factory.mktemp("serve") / "digits"
    return trained(replace(read_experiment("lenet-digits"), layers=LAYERS), folder, epochs=8, device="cpu")


@pytest.fixture(scope="session")
def site(digits: Path) -> Iterator[Served]:
    """The server of the finished run."""
    with serving(digits) as served:
        yield served
