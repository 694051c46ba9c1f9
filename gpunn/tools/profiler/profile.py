"""Where a step's time goes, part by part, beside what the machine would need at its best.

The parts are watched from outside: methods of the stages, the batches, the cost and the optimizer of one trainer leave
marks while a profile is taken, and only then. So the step itself knows nothing of it, and pays nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from math import prod
from statistics import fmean
from typing import Any

import numpy as np

from gpunn.backend.base import Shape
from gpunn.kernels.random import epoch_order
from gpunn.nn.layers import Layer
from gpunn.tools.profiler.machine import Rates
from gpunn.tools.profiler.work import Work, gather_work, loss_work, stage_work, update_work
from gpunn.train.step import Step
from gpunn.train.trainer import Trainer

GATHER, FORWARD, LOSS, BACKWARD, UPDATE = PASSES = ("gather", "forward", "loss", "backward", "update")
BETWEEN = "between"

_LEAST_STEPS, _MOST_STEPS = 6, 200


@dataclass(frozen=True)
class Part:
    """What one stage does in one pass.

    Attributes:
        part: one of PASSES, or BETWEEN for what passes between them: Python, and on a device gaps between kernels.
        stage: the layer and what of it, "" where the part is of no layer.
        seconds: of a step.
        flops, nbytes: the least work; see `gpunn.work`.
        least_seconds: what the machine's own products and copies would take for it.
    """

    part: str
    stage: str
    seconds: float
    flops: int = 0
    nbytes: int = 0
    least_seconds: float = 0.0


@dataclass(frozen=True)
class Profile:
    """A step in its parts, which add up to it.

    Attributes:
        batch_size: samples of the step.
        device, dtype, precision: what it ran on and in.
        is_replayed: whether training replays the step as one graph, inside which nothing can be timed, so that the
            parts were timed kernel by kernel.
        steps: so many were watched; all times are means over the faster half of them, which nothing else disturbed.
        step_seconds: of a step as training runs it, unwatched.
        parts: in the order in which they run.
        product_size, product_flops: the product that stands for the machine's own: rows and columns, FLOPs a second.
        copy_bytes, copy_rate: likewise of the copy in memory: bytes read and written, bytes a second.
    """

    batch_size: int
    device: str
    dtype: str
    precision: str
    is_replayed: bool
    steps: int
    step_seconds: float
    parts: tuple[Part, ...]
    product_size: int
    product_flops: float
    copy_bytes: int
    copy_rate: float

    @property
    def seconds(self) -> float:
        """All parts together: a step while it was watched."""
        return sum(part.seconds for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Profile:
        """What `to_dict` gave."""
        return cls(**{**values, "parts": tuple(Part(**part) for part in values["parts"])})


def profile(trainer: Trainer, seconds: float = 1.0, rates: Rates | None = None) -> Profile:
    """Watch some more steps of a training; the network and all that is remembered are put back afterwards.

    Args:
        trainer: before or after its training.
        seconds: about how long to watch.
        rates: of the machine, where they are known; else they are measured.
    """
    step, backend = trainer.step, trainer.step.backend
    rates = rates or Rates(backend, trainer.model.dtype)
    quiet = np.errstate(over="ignore", divide="ignore", invalid="ignore")
    with _put_back(trainer), quiet, trainer.loops():
        batches = _full_batches(trainer)
        step(next(batches))  # the first compiles, and is recorded where the device can
        on_host, whole = _measured(step, next(batches))
        count = min(max(int(seconds / 2 / whole), _LEAST_STEPS), _MOST_STEPS)
        # As training does them: on a device several at once, which are replayed as one graph.
        together = min(step.steps_per_graph if step.is_recorded else 1, len(trainer.data.train) // step.batch_size)
        plain = []
        for n in islice(_full_batches(trainer, together), count):
            rates.head_start(2 * together * on_host)
            begin = backend.mark()
            step(n)
            plain.append(backend.elapsed(begin, backend.mark()) / together)
        batches = _full_batches(trainer)
        with _Watch(step) as watch:
            for n in islice(batches, count):
                rates.head_start(4 * on_host)  # to leave marks takes the host time too
                watch(n)
        parts = watch.parts(_works(trainer, watch.hands_back), rates)
    return Profile(
        batch_size=step.batch_size,
        device=backend.description,
        dtype=trainer.model.dtype,
        precision=backend.precision,
        is_replayed=step.is_recorded,
        steps=count,
        step_seconds=fmean(_faster_half(plain)),
        parts=tuple(parts),
        product_size=rates.size,
        product_flops=rates.flops,
        copy_bytes=rates.large_copy,
        copy_rate=rates.copy,
    )


@contextmanager
def _put_back(trainer: Trainer) -> Iterator[None]:
    """Leave no trace of the steps within in what was learned and remembered."""
    model, backend = trainer.model, trainer.step.backend
    arrays = [model.parameters.values, model.clock, *model.statistics.values(), *trainer.optimizer.state.values()]
    kept = [backend.to_host(array) for array in arrays]
    try:
        yield
    finally:
        for array, values in zip(arrays, kept, strict=True):
            backend.assign(array, values)
        model.parameters.keep_gradients()
        trainer.step.reset_totals()
        if trainer.step.skip is not None:
            trainer.step.skip.reset()


def _full_batches(trainer: Trainer, together: int = 1) -> Iterator[int]:
    """The size of full batches, some together, for ever; each time the epoch is at a place where there are so many."""
    step, train = trainer.step, trainer.data.train
    order = epoch_order(len(train), seed=trainer.seed, epoch=0)
    rates = trainer.optimizer.schedule.rates(np.arange(step.steps_per_epoch) / step.steps_per_epoch, trainer.epochs)
    while True:
        step.start_epoch(order, rates)
        yield from [together * step.batch_size] * (len(train) // step.batch_size // together)


def _measured(step: Step, n: int) -> tuple[float, float]:
    """Seconds of a step, kernel by kernel, until the host is free again, and until the device is done."""
    step.backend.synchronize()
    begun = time.perf_counter()
    step(n, replay=False)
    on_host = time.perf_counter() - begun
    step.backend.synchronize()
    return on_host, time.perf_counter() - begun


def _faster_half(steps: Sequence[Any], seconds: Callable[[Any], float] = float) -> list[Any]:
    """The half of some steps that took the fewest seconds."""
    return sorted(steps, key=seconds)[: (len(steps) + 1) // 2]


Key = tuple[str, int]
"""A pass, and the number of the stage or −1."""


class _Watch:
    """Within it, every part of a step that is run by it leaves a mark before and after.

    Attributes:
        hands_back: the numbers of the stages that computed ∂C/∂input.
    """

    def __init__(self, step: Step) -> None:
        self._step, self._mark = step, step.backend.mark
        self._marks: list[tuple[Key, Any, Any]] = []
        self._steps: list[tuple[Any, Any, list[tuple[Key, Any, Any]]]] = []
        self._methods: list[tuple[Any, str, Key]] = []
        self.hands_back: set[int] = set()

    def __enter__(self) -> _Watch:
        step = self._step
        self._methods = [(step.batches, name, (GATHER, -1)) for name in ("take", "given")]
        self._methods += [(step.loss, "evaluate", (LOSS, -1))]
        self._methods += [(step.optimizer, name, (UPDATE, -1)) for name in ("before_backward", "update")]
        for number, stage in enumerate(step.stages):
            self._methods += [(stage, "forward", (FORWARD, number)), (stage, "backward", (BACKWARD, number))]
        for owner, name, key in self._methods:
            setattr(owner, name, self._timed(getattr(owner, name), key))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, _key in self._methods:
            delattr(owner, name)  # and that of its class is seen again

    def _timed(self, method: Callable[..., Any], key: Key) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begin = self._mark()
            result = method(*arguments)
            self._marks.append((key, begin, self._mark()))
            if key[0] == BACKWARD and result is not None:
                self.hands_back.add(key[1])
            return result

        return timed

    def __call__(self, n: int) -> None:
        """Run a step kernel by kernel."""
        self._marks = []
        begin = self._mark()
        self._step(n, replay=False)
        self._steps.append((begin, self._mark(), self._marks))

    def parts(self, works: dict[Key, Work], rates: Rates) -> Iterator[Part]:
        """What was watched, pass by pass."""
        elapsed = self._step.backend.elapsed
        taken = [(elapsed(begin, end), marks) for begin, end, marks in self._steps]
        faster = _faster_half(taken, lambda step: step[0])
        seconds: dict[Key, float] = {}
        for _, marks in faster:
            for key, begin, end in marks:
                seconds[key] = seconds.get(key, 0.0) + elapsed(begin, end)
        for key in sorted(seconds, key=lambda key: PASSES.index(key[0])):
            part, number = key
            stage = "" if number < 0 else _words(self._step.stages[number])
            work = works[key]
            yield Part(part, stage, seconds[key] / len(faster), *work, rates.least_seconds(*work))
        rest = sum(total for total, _ in faster) - sum(seconds.values())
        yield Part(BETWEEN, "", rest / len(faster))


def _words(stage: Layer) -> str:
    """A stage by its layer's name, and what of the layer it is."""
    bias = " bias" if stage.name_prefix == "bias" else ""
    return f"{stage.name}{bias}, {stage.fused.name_prefix}" if stage.fused else f"{stage.name}{bias}"


def _works(trainer: Trainer, hands_back: set[int]) -> dict[Key, Work]:
    """The least work of every part."""
    model, step = trainer.model, trainer.step
    n, itemsize = step.batch_size, np.dtype(model.dtype).itemsize
    shape: Shape = model.input_shape
    works = {(GATHER, -1): gather_work(n, prod(shape), trainer.data.train.inputs.dtype.itemsize, itemsize)}
    for number, stage in enumerate(step.stages):
        given = stage.output_shape(shape)
        folded = stage.w is not None and stage.w.grad is None and not stage.w.is_frozen
        works[FORWARD, number], works[BACKWARD, number] = stage_work(
            stage, shape, given, n, itemsize, hands_back=number in hands_back, folded=folded
        )
        shape = given
    works[LOSS, -1] = loss_work(n, prod(shape), itemsize)
    updated = sum(p.size for p in model.parameters if p.grad is not None)
    works[UPDATE, -1] = update_work(updated, len(trainer.optimizer.state), itemsize)
    return works
