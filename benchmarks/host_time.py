"""Measure how long a device would wait for the host in an epoch: order, upload, looks, checks and around replays.

python benchmarks/host_time.py [--step-us 39] [FOLDER]          # on a GPU, whose own work is left out
PYTHONPATH=tests/simulated_cuda/everywhere python benchmarks/host_time.py FOLDER          # without one

Launches of graphs do nothing but note when a device would be done that takes --step-us a step, one after another. All
else is the training as it is, on 59,904 samples of 784-128-10 in batches of 128: 468 steps an epoch, with four records
and the checks for NaN. What is measured is the host alone, in processor time of its thread, so that other work of the
machine counts nothing; a wait for the device, or for the thread that draws orders, moves the clock on. So the device is
a clock, not a GPU, and threads that hold each other up are not seen. Calls of CUDA take what they take here: on the
simulated one they copy at once, which real ones leave to the device. The medians of the epochs go to host-time.json.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import RESULTS, command, commit, machine, write_result
from workloads import dense, layers_of

import gpunn as gn
from gpunn.backend.cuda import CupyBackend
from gpunn.backend.pinned import PinnedMirror
from gpunn.train.arguments import TrainOptions
from gpunn.train.orders import Orders
from gpunn.train.step import Step
from gpunn.train.trainer import Trainer

SECTIONS = {  # what the host does, by the method that does it; "replays" is all else
    "order": (Orders, ("of", "draw_ahead")),
    "upload": (Step, ("start_epoch",)),
    "looks": (Trainer, ("_record", "settle")),
    "checks": (Trainer, ("_check_numbers_soon",)),
}
BATCH, SAMPLES = 128, 468 * 128


class Clock:
    """A device that takes the same time for every step; sections of the host's time, and what of it the device is idle.

    Attributes:
        host, idle: Seconds in each section, and those of them in which the device had nothing to do.
        replays: Number of launches.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._waited = seconds, 0.0
        self._last = self.end = time.thread_time()  # of what is accounted for; of all work that the device was given
        self._sections = ["replays"]
        self.host, self.idle, self.replays = Counter[str](), Counter[str](), 0

    @property
    def now(self) -> float:
        """Seconds of the host's work and waits."""
        return time.thread_time() + self._waited

    def _account(self) -> None:
        now, section = self.now, self._sections[-1]
        self.host[section] += now - self._last
        self.idle[section] += max(0.0, now - max(self._last, self.end))
        self._last = now

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Within, the time is that of a section; of sections in each other, it is the inner one's."""
        self._account()
        self._sections.append(name)
        yield
        self._account()
        self._sections.pop()

    def launch(self, steps: int) -> None:
        """Give the device so many steps."""
        self._account()
        self.end = max(self._last, self.end) + steps * self._seconds
        self.replays += 1

    def wait(self, until: float) -> None:
        """Let the host wait, which costs it nothing, and the device what it has no work for."""
        self._account()
        if until > self._last:
            self.idle[self._sections[-1]] += max(0.0, until - max(self._last, self.end))
            self._waited += until - self._last
            self._last = until


def attach(clock: Clock, patch: Callable[[Any, str, Any], None]) -> None:
    """Let the clock stand for the device, and watch the sections."""

    def timed(section: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with clock.section(section):
                return method(*given, **named)

        return call

    def waiting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            clock.wait(clock.end)
            return method(*given, **named)

        return call

    def capture(step: Step, steps: int) -> None:
        step._is_to_capture = False
        step._graphs[steps] = lambda: clock.launch(steps)

    ends: dict[PinnedMirror, float] = {}  # when the last copies are done
    drawn: dict[int, float] = {}  # when the orders of epochs are
    wait, run, order = PinnedMirror._wait, CupyBackend.run, Orders._drawn

    def copying(method: Callable[..., None]) -> Callable[..., None]:
        def call(mirror: PinnedMirror, *given: Any) -> None:
            method(mirror, *given)
            ends[mirror] = clock.end

        return call

    def waits(mirror: PinnedMirror) -> None:
        clock.wait(ends.get(mirror, 0.0))
        wait(mirror)

    def draws(orders: Orders, epoch: int) -> Any:
        began = time.thread_time()
        try:
            return order(orders, epoch)
        finally:
            if threading.current_thread() is not threading.main_thread():
                drawn[epoch] = drawn.get(epoch, 0.0) + time.thread_time() - began

    def asks_for(method: Callable[..., None]) -> Callable[..., None]:
        def call(orders: Orders, epoch: int) -> None:
            drawn[epoch] = clock.now
            method(orders, epoch)

        return call

    def takes(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(orders: Orders, epoch: int) -> Any:
            found = method(orders, epoch)
            clock.wait(drawn.get(epoch, 0.0))
            return found

        return call

    def launched(backend: CupyBackend, kernel: Any, *arguments: Any) -> None:
        if kernel.name != "mark_not_finite":  # which the simulated CUDA would do at once
            run(backend, kernel, *arguments)

    patch(Orders, "_drawn", draws)
    patch(Orders, "draw_ahead", asks_for(Orders.draw_ahead))
    patch(Orders, "of", takes(Orders.of))
    for section, (kind, methods) in SECTIONS.items():
        for name in methods:
            patch(kind, name, timed(section, getattr(kind, name)))
    for name in ("to_host", "synchronize"):
        patch(CupyBackend, name, waiting(getattr(CupyBackend, name)))
    for name in ("send", "fetch"):
        patch(PinnedMirror, name, copying(getattr(PinnedMirror, name)))
    patch(Step, "_capture", capture)
    patch(PinnedMirror, "_wait", waits)
    patch(CupyBackend, "run", launched)


def epochs(clock: Clock, count: int, patch: Callable[[Any, str, Any], None]) -> list[dict[str, dict[str, float]]]:
    """Train, and return for each epoch but the first two and the last the seconds of each section, and the replays."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.integers(0, 256, (SAMPLES, 784), np.uint8), rng.integers(0, 10, SAMPLES)
    data = gn.Data.from_arrays(inputs, labels, validation=0)
    model = gn.Sequential(layers_of(dense(128, 10)))
    options = TrainOptions(optimizer=gn.SGD(0.1), epochs=count, batch_size=BATCH, device="cuda", progress=False)
    trainer, marks = Trainer(model, options, data), list[tuple[Counter[str], Counter[str], int]]()
    attach(clock, patch)
    begin = Trainer._begin_epoch

    def marking(self: Trainer, *given: Any) -> None:
        marks.append((clock.host.copy(), clock.idle.copy(), clock.replays))
        begin(self, *given)

    patch(Trainer, "_begin_epoch", marking)
    trainer.run()
    found = []
    for (host, idle, replays), (host_after, idle_after, replays_after) in list(pairwise(marks))[2:]:
        names = ("order", "upload", "looks", "checks", "replays")
        took = {name: {"host": host_after[name] - host[name], "idle": idle_after[name] - idle[name]} for name in names}
        total = {kind: sum(each[kind] for each in took.values()) for kind in ("host", "idle")}
        found.append(took | {"all": total, "launches": {"number": replays_after - replays}})
    return found


def measured(step_us: float, count: int, patch: Callable[[Any, str, Any], None] = setattr) -> dict[str, Any]:
    """Measure a training of so many epochs, and return the medians in µs."""
    every = epochs(Clock(step_us * 1e-6), count, patch)
    sections = {
        name: {kind: round(1e6 * median(epoch[name][kind] for epoch in every), 1) for kind in ("host", "idle")}
        for name in every[0]
        if name != "launches"
    }
    most = max(1e6 * epoch["all"]["idle"] for epoch in every)
    launches = sorted({int(epoch["launches"]["number"]) for epoch in every})
    return {
        "step_us": step_us,
        "epochs": len(every),
        "us": sections,
        "most_idle_us": round(most, 1),
        "launches": launches,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--step-us", type=float, default=39.0, help="of the device; 39 is predicted for an H100")
    parser.add_argument("--epochs", type=int, default=23)
    options = parser.parse_args()
    result = {
        "what": "an epoch of 468 steps of 784-128-10",
        "command": command(),
        "commit": commit(),
        "machine": machine(),
    }
    result |= measured(options.step_us, options.epochs)
    write_result(options.folder / "host-time.json", result)
    print(f"{'µs an epoch':12} {'of the host':>12} {'device idle':>12}")
    for name, took in result["us"].items():
        print(f"{name:12} {took['host']:12,.0f} {took['idle']:12,.0f}")
    launches = " or ".join(map(str, result["launches"]))
    print(f"{launches} replays an epoch; idle at most {result['most_idle_us']:,.0f} µs, of {result['epochs']} epochs")


if __name__ == "__main__":
    main()
