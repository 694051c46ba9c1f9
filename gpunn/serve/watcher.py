"""Follow a run while it trains: stream its state, its records, and news of its network to every page."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gpunn.errors import GpunnError, in_one_line
from gpunn.saving.checkpointer import Say
from gpunn.serve.arrays import finite
from gpunn.serve.folder import RunFolder, Stamp
from gpunn.serve.network import ServedNetwork
from gpunn.serve.samples import RunSamples
from gpunn.train.history import History, columns_of

EVERY = 0.2  # seconds between two looks at the folder
_HEARTBEAT = 15.0  # seconds between two signs of life of a stream
_FIGURES = ("accuracy", "rmse", "r2", "loss")


class Watcher:
    """Hold the present state of a run; `run` keeps it up to date."""

    def __init__(self, folder: RunFolder, device: str, say: Say) -> None:
        self.folder, self._device, self._say = folder, device, say
        self.experiment = folder.experiment()
        self.state = folder.state()
        found, model = folder.load(device)
        self.served = ServedNetwork(model, self.experiment, Path(folder.name))
        self.served.warm_up()
        self._of_network: Stamp = found.stamp
        self._failed: Stamp = None  # of a network that could not be loaded
        self._of_history: Stamp = None
        self.columns: list[str] = []
        self.rows: list[dict[str, float | None]] = []
        self.best: int | None = None
        self.overfitting_since: int | None = None
        self.generation = 0  # counts how often the history began anew
        self.is_ending = False
        self._changed = asyncio.Event()
        self._loading: asyncio.Task[None] | None = None
        self._read()

    def _read(self) -> bool:
        """Read history and state; return whether anything changed."""
        state, stamp, changed = self.folder.state(), self.folder.history_stamp(), False
        if state != self.state:
            self.state, changed = state, True
        if stamp != self._of_history:
            self._of_history, changed = stamp, True
            self._take(self.folder.history())
        return changed

    def _take(self, history: History) -> None:
        columns = columns_of(history.records)
        rows = [{n: finite(record.number(n)) for n in columns} | {"step": record.step} for record in history]
        before = [row["step"] for row in self.rows]
        if [row["step"] for row in rows[: len(before)]] != before or (
            before and rows[len(before) - 1] != self.rows[-1]
        ):
            self.generation += 1
        self.columns, self.rows = columns, rows
        self.best = None if history.best is None else history.best.step
        since = history.overfitting_since
        self.overfitting_since = None if since is None else since.step

    async def run(self) -> None:
        """Read the folder again and again."""
        while not self.is_ending:
            await asyncio.sleep(EVERY)
            try:
                changed = await asyncio.to_thread(self._read)
            except OSError:  # of a folder that is being moved or removed
                continue
            if self._loading is None or self._loading.done():
                self._loading = asyncio.create_task(self._follow())
            if changed:
                self.tell()

    def tell(self) -> None:
        """Wake all streams."""
        before, self._changed = self._changed, asyncio.Event()
        before.set()

    def end(self) -> None:
        """End all streams."""
        self.is_ending = True
        self.tell()

    async def _follow(self) -> None:
        """Load a newer network, if there is one."""
        if await asyncio.to_thread(self._reload):
            self.tell()

    def _reload(self) -> bool:
        found = self.folder.network(self.state)
        if found.stamp in (None, self._of_network, self._failed):
            return False
        try:
            found, model = self.folder.load(self._device)
            served = ServedNetwork(model, self.experiment, self.served.path, self.served.version + 1)
            served.warm_up()
        except Exception as error:  # noqa: BLE001 - keep serving the previous one
            self._failed = found.stamp
            words = str(error) if isinstance(error, GpunnError) else f"{type(error).__name__}: {error}"
            self._say(f"gpunn: the newer network is not served: {in_one_line(words)}")
            return False
        self.served, self._of_network = served, found.stamp
        return True

    def describe(self, samples: RunSamples) -> dict[str, Any]:
        """Describe the network and its run."""
        served, experiment, figures = self.served, self.experiment, self.figures()
        return {
            "name": self.folder.name,
            "recipe": experiment.name if experiment else "",
            "data": Path(experiment.data.source).name if experiment else "",
            "accuracy": figures.get("test_accuracy", figures.get("validation_accuracy")),
            "figures": figures,
            **served.describe({} if served.columns is None else samples.ranges()),
        }

    def figures(self) -> dict[str, float | None]:
        """Return the metrics of the test set once the run has opened it, and the last of the validation set."""
        metrics = self.folder.metrics()
        tested = {f"test_{name}": metrics.get(f"test_{name}") for name in _FIGURES}
        last = self.rows[-1] if self.rows else {}
        seen = {f"validation_{name}": last.get(f"validation_{name}") for name in _FIGURES}
        return {name: value for name, value in (tested | seen).items() if isinstance(value, int | float)}

    def has_test(self) -> bool:
        """Return whether the run has ended and evaluated its test set."""
        return self.folder.metrics().get("test") is not None and self.state == "finished"

    def history(self) -> dict[str, Any]:
        """Return the whole history."""
        rows = [[row.get(name) for name in self.columns] for row in self.rows]
        marks = {"best": self.best, "overfitting_since": self.overfitting_since}
        return {"columns": self.columns, "rows": rows, **marks, "state": self.state}

    async def events(self, after: int | None) -> AsyncIterator[str]:
        """Yield the events of a stream, records after a step and later changes, until the server ends."""
        sent = -1 if after is None else after
        generation, state, version = self.generation, "", self.served.version
        yield "retry: 1000\n\n"
        if self.rows and sent > int(self.rows[-1]["step"] or 0):  # of an earlier history
            generation = -1
        while not self.is_ending:
            changed = self._changed
            if generation != self.generation:
                generation, sent = self.generation, -1
                yield event("reset", {"columns": self.columns})
            for row in list(self.rows):
                if (step := int(row["step"] or 0)) > sent:
                    sent = step
                    yield event("record", row, step)
            if state != self.state:
                state = self.state
                yield event("state", {"state": state, "figures": self.figures()})
            if version != self.served.version:
                version = self.served.version
                yield event("model", {"version": version, "steps_trained": self.served.model.steps_trained})
            try:
                await asyncio.wait_for(changed.wait(), _HEARTBEAT)
            except TimeoutError:
                yield ": still here\n\n"


def event(name: str, data: Any, number: int | None = None) -> str:
    """Format an event of a stream."""
    begin = "" if number is None else f"id: {number}\n"
    return f"{begin}event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
