"""Measure where a step's time goes, part by part, beside what the machine would need at its best.

The parts are watched from outside: while a profile is taken, the methods of one trainer's stages, batches, loss and
optimizer leave marks. So the step itself knows nothing of it, and pays nothing.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil, prod
from statistics import fmean
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from gpunn.backend.base import Backend, Shape
from gpunn.kernels.cores import WORTHWHILE, cores, in_pieces
from gpunn.kernels.random import epoch_order
from gpunn.nn.layers import Activation, BatchNorm, Concatenate, ConvTranspose2D, Flatten, Layer, Residual
from gpunn.nn.layers.dense import Bias, BiasActivation
from gpunn.train.step import Step
from gpunn.train.trainer import Trainer

GATHER, FORWARD, LOSS, BACKWARD, UPDATE = PASSES = ("gather", "forward", "loss", "backward", "update")
BETWEEN = "between"

_LEAST_STEPS, _MOST_STEPS = 6, 200

_Key = tuple[str, str]
"""A pass, and the stage that it is of, "" for the passes of the whole network."""


@dataclass(frozen=True)
class Part:
    """The work of one stage in one pass, and the least time that it could take."""

    part: str  # one of PASSES, or BETWEEN for the rest: Python, and on a device gaps between kernels
    stage: str  # "" for the passes of the whole network
    seconds: float
    flops: int = 0  # of matrix products; element-wise work is measured by its bytes
    nbytes: int = 0  # of arrays that must be read or written at least once
    least_seconds: float = 0.0  # of the machine's own products and copies for the same work


@dataclass(frozen=True)
class Profile:
    """A step in its parts, which add up to it; times are means over the faster half of the steps watched."""

    batch_size: int
    device: str
    dtype: str
    precision: str
    is_replayed: bool  # as one graph, inside which nothing can be timed: the parts were timed kernel by kernel
    steps: int
    step_seconds: float  # as training runs it, unwatched
    parts: tuple[Part, ...]
    product_size: int  # rows and columns of the product that stands for the machine's own
    product_flops: float  # a second
    copy_bytes: int  # read and written
    copy_rate: float  # bytes a second

    @property
    def seconds(self) -> float:
        """Time of all parts together: a step while it was watched."""
        return sum(part.seconds for part in self.parts)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make a profile from its dictionary, such as `dataclasses.asdict` gives."""
        return cls(**{**values, "parts": tuple(Part(**part) for part in values["parts"])})


class Rates:
    """The machine at its best, measured here and now: FLOPs a second of a large product, bytes a second of a copy."""

    def __init__(self, backend: Backend, dtype: DTypeLike, size: int | None = None, copy_bytes: int = 2**28) -> None:
        self._backend = backend
        self.size = size or (2048 if backend.device == "cpu" else 4096)
        self.copy_bytes = copy_bytes  # by default more than most caches hold, so that it stands for memory itself
        a, b, c = (backend.zeros((self.size, self.size), dtype) for _ in range(3))
        backend.assign(a, 0.5)
        backend.assign(b, 0.5)
        self._product = partial(backend.gemm, 1.0, a, b, 0.0, c)
        self._product_seconds = 0.0
        self._product_seconds = self._best_seconds(self._product)
        self._copies: dict[int, float] = {}
        self.flops = 2 * self.size**3 / self._product_seconds
        self.copy = copy_bytes / self.copy_seconds(copy_bytes)

    def copy_seconds(self, nbytes: int) -> float:
        """Return the time of a copy that reads and writes so many bytes together; small ones stay in the caches."""
        if nbytes not in self._copies:
            times = 20 if nbytes < 2**24 else 1
            works = _copies(self._backend, max(1, nbytes // 2))
            self._copies[nbytes] = min(self._best_seconds(work, times) for work in works)
        return self._copies[nbytes]

    def least_seconds(self, flops: int, nbytes: int) -> float:
        """Return the time of some work at these rates: of its products or its copies, whichever takes longer."""
        return max(flops / self.flops, self.copy_seconds(nbytes) if nbytes else 0.0)

    def head_start(self, seconds: float) -> None:
        """Give a CUDA device other work, so that the host is done launching before the measured work begins.

        Without it the device would wait for launches, and the times of short kernels would be those of the host.
        """
        if self._backend.device != "cpu" and self._product_seconds:
            for _ in range(ceil(seconds / self._product_seconds)):
                self._product()

    def _best_seconds(self, work: Callable[[], Any], times: int = 1) -> float:
        """Return the shortest time of some work; the first time, which warms up, does not count."""
        work()
        on_host, _ = _timed(self._backend, work)
        found = []
        for _ in range(5):
            self.head_start(2 * times * on_host)
            begin = mark(self._backend)
            for _ in range(times):
                work()
            found.append(elapsed(self._backend, begin, mark(self._backend)) / times)
        return min(found)


def _copies(backend: Backend, nbytes: int) -> Iterator[Callable[[], None]]:
    """Ways to copy so many bytes from one place to another: at once, and on the host also by all cores together."""
    parts = cores() if backend.device == "cpu" else 1
    source, target = (backend.zeros((parts, -(-nbytes // parts)), np.uint8) for _ in range(2))
    for array in (source, target):
        backend.assign(array, 1)  # zeros that nobody has written may all be one page of memory
    yield partial(backend.assign, target, source)
    if parts > 1 and 2 * nbytes >= WORTHWHILE:
        yield lambda: in_pieces(lambda part: np.copyto(target[part], source[part]), parts, 2 * nbytes)


def mark(backend: Any) -> Any:
    """Return this point in the device's work, for `elapsed`: the clock on the CPU, an event on CUDA."""
    if backend.device == "cpu":
        return time.perf_counter()
    with backend.lock, backend.current:
        event = backend.cupy.cuda.Event()
        event.record(backend.stream)
    return event


def elapsed(backend: Any, begin: Any, end: Any) -> float:
    """Return the seconds between two marks by the device's own clock; waits until it has come to the second."""
    if backend.device == "cpu":
        return float(end - begin)
    with backend.gate:
        end.synchronize()
        return float(backend.cupy.cuda.get_elapsed_time(begin, end)) / 1000


def _timed(backend: Backend, work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of some work until the host is free again, and until the device is done."""
    backend.synchronize()
    begun = time.perf_counter()
    work()
    on_host = time.perf_counter() - begun
    backend.synchronize()
    return on_host, time.perf_counter() - begun


def profile(trainer: Trainer, seconds: float = 1.0, rates: Rates | None = None) -> Profile:
    """Watch some more steps of a training for about `seconds`; the network and all that is remembered are put back."""
    step, backend = trainer.step, trainer.step.backend
    rates = rates or Rates(backend, trainer.model.dtype)

    def timed_steps(samples: Iterator[int], head_start: float, replay: bool) -> Iterator[float]:
        for n in islice(samples, count):
            rates.head_start(head_start)
            begin = mark(backend)
            step(n, replay)
            yield elapsed(backend, begin, mark(backend))

    with _put_back(trainer), np.errstate(over="ignore", divide="ignore", invalid="ignore"), trainer.loops():
        batches = _full_batches(trainer)
        step(next(batches))  # the first compiles, and is recorded where the device can
        on_host, whole = _timed(backend, lambda: step(next(batches), replay=False))
        count = min(max(int(seconds / 2 / whole), _LEAST_STEPS), _MOST_STEPS)
        # As training does them: on a device several at once, which are replayed as one graph.
        together = min(step.steps_per_graph if step.is_recorded else 1, len(trainer.data.train) // step.batch_size)
        plain = sorted(timed_steps(_full_batches(trainer, together), 2 * together * on_host, replay=True))
        watched: list[tuple[float, dict[_Key, float]]] = []
        with _marks(step) as (marks, returning):
            for whole in timed_steps(_full_batches(trainer), 4 * on_host, replay=False):  # marks take the host time too
                taken: dict[_Key, float] = defaultdict(float)
                for key, begin, end in marks:
                    taken[key] += elapsed(backend, begin, end)
                for whole_stage, within in _within(step.stages):  # which are parts of their own
                    for name in (FORWARD, BACKWARD):
                        taken[name, whole_stage] -= sum(taken.get((name, part), 0.0) for part in within)
                marks.clear()
                watched.append((whole, taken))
        half = (count + 1) // 2
        faster = sorted(watched, key=lambda each: each[0])[:half]
        works = _least_work(trainer, returning)
        parts = []
        for key in sorted(faster[0][1], key=lambda key: PASSES.index(key[0])):
            spent = fmean(taken[key] for _, taken in faster)
            parts.append(Part(*key, spent, *works[key], rates.least_seconds(*works[key])))
    rest = fmean(whole for whole, _ in faster) - sum(part.seconds for part in parts)
    return Profile(
        batch_size=step.batch_size,
        device=backend.description,
        dtype=trainer.model.dtype,
        precision=backend.precision,
        is_replayed=step.is_recorded,
        steps=count,
        step_seconds=fmean(plain[:half]) / together,
        parts=(*parts, Part(BETWEEN, "", rest)),
        product_size=rates.size,
        product_flops=rates.flops,
        copy_bytes=rates.copy_bytes,
        copy_rate=rates.copy,
    )


@contextmanager
def _put_back(trainer: Trainer) -> Iterator[None]:
    """Leave no trace of the steps within in what was learned and remembered."""
    model, step = trainer.model, trainer.step
    arrays = [model.parameters.values, model.clock, *model.statistics.values(), *trainer.optimizer.state.values()]
    kept = [step.backend.to_host(array) for array in arrays]
    try:
        yield
    finally:
        for array, values in zip(arrays, kept, strict=True):
            step.backend.assign(array, values)
        model.parameters.keep_gradients()
        step.backend.assign(step.totals, 0.0)
        if step.skip is not None:
            step.backend.assign(step.skip.counts, 0)


def _full_batches(trainer: Trainer, together: int = 1) -> Iterator[int]:
    """Sizes of full batches, some together, for ever; each time the epoch is at a place where there are so many."""
    step, train = trainer.step, trainer.data.train
    order = epoch_order(len(train), seed=trainer.options.seed, epoch=0)
    schedule = trainer.optimizer.schedule.for_epochs_of(step.steps_per_epoch)
    rates = schedule.rates(np.arange(step.steps_per_epoch) / step.steps_per_epoch, trainer.options.epochs)
    while True:
        step.start_epoch(order, rates)
        yield from [together * step.batch_size] * (len(train) // step.batch_size // together)


@contextmanager
def _marks(step: Step) -> Iterator[tuple[list[tuple[_Key, Any, Any]], set[_Key]]]:
    """Within, every part that the step runs leaves a mark before and after; and its key, if it returns an array."""
    marks: list[tuple[_Key, Any, Any]] = []
    returning: set[_Key] = set()

    def marked(method: Callable[..., Any], key: _Key) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            begin = mark(step.backend)
            result = method(*arguments)
            marks.append((key, begin, mark(step.backend)))
            if result is not None:
                returning.add(key)
            return result

        return call

    methods: list[tuple[Any, str, _Key]] = [(step.batches, name, (GATHER, "")) for name in ("take", "advance")]
    methods += [(step.loss, "evaluate", (LOSS, ""))]
    updating = ["before_backward", *(["add_penalty"] if step.optimizer.penalty else []), "update"]
    methods += [(step.optimizer, name, (UPDATE, "")) for name in updating]
    every = [stage for stage, _ in _every_stage(step.stages, step.model.input_shape)]
    methods += [(stage, name, (name, _words(stage))) for stage in every for name in (FORWARD, BACKWARD)]
    try:
        for owner, name, key in methods:
            setattr(owner, name, marked(getattr(owner, name), key))
        yield marks, returning
    finally:
        for owner, name, _ in methods:
            delattr(owner, name)  # and that of its class is seen again


def _every_stage(stages: Sequence[Layer], shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Give each stage with the shape of a sample that comes in, those that run within another before it."""
    for stage in stages:
        for branch in stage.running:
            yield from _every_stage(branch.stages, shape)
        yield stage, shape
        shape = stage.output_shape(shape)


def _within(stages: Sequence[Layer]) -> Iterator[tuple[str, list[str]]]:
    """Give each stage that has others within by its name, with the names of those; the outer before the inner."""
    for stage in stages:
        inner = [each for branch in stage.running for each in branch.stages]
        if inner:
            yield _words(stage), [_words(each) for each in inner]
            yield from _within(inner)


def _words(stage: Layer) -> str:
    """Name a stage by its layer, and by its part of the layer."""
    name = f"{stage.name} bias" if stage.name_prefix == "bias" else stage.name
    return f"{name}, {stage.fused.name_prefix}" if stage.fused else name


_TRAFFIC: dict[type[Layer], tuple[tuple[int, int], tuple[int, int]]] = {
    Activation: ((1, 1), (1, 2)),  # the gradient is written from ∂C/∂a and a
    BiasActivation: ((1, 1), (1, 2)),
    BatchNorm: ((1, 1), (2, 1)),  # x is read again, and ∂C/∂x written
    Bias: ((1, 1), (0, 1)),
    Flatten: ((0, 0), (0, 0)),
    Residual: ((0, 3), (3, 0)),  # both branches are read and their sum is written
    Concatenate: ((0, 2), (3, 0)),
}
"""How often a stage reads or writes the elements that it is given, and those that it returns: forward, and backward."""


def _traffic(stage: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    return next((each for kind, each in _TRAFFIC.items() if isinstance(stage, kind)), ((1, 1), (1, 1)))


def _least_work(trainer: Trainer, returning: set[_Key]) -> dict[_Key, tuple[int, int]]:
    """Count the FLOPs and bytes that the equations of every part need, from the shapes.

    Code that moves more bytes than these does them no faster, and its distance to the limit shows.
    """
    model, step, shape = trainer.model, trainer.step, trainer.model.input_shape
    n, itemsize = step.batch_size, np.dtype(model.dtype).itemsize
    stored = trainer.data.train.inputs.dtype.itemsize
    works: dict[_Key, tuple[int, int]] = {(GATHER, ""): (0, n * prod(shape) * (stored + itemsize))}
    for stage, shape in _every_stage(step.stages, model.input_shape):
        name, output, w = _words(stage), stage.output_shape(shape), stage.w
        inputs, outputs = n * prod(shape), n * prod(output)
        flops, moved = [0, 0], [inputs * ins + outputs * outs for ins, outs in _traffic(stage)]
        if w is not None:
            learns, hands_back = not w.is_frozen, (BACKWARD, name) in returning
            is_folded = learns and w.grad is None  # updated by the very product that would give its gradient (21)
            # Each weight is used once for every output place: one for Dense, rows × columns for Conv2D. A transposed
            # convolution's is used once for every place of its input.
            places = shape if isinstance(stage, ConvTranspose2D) else output
            product = 2 * n * prod(places[:-1]) * w.size
            flops = [product, product * (learns + hands_back)]
            # δ and a are read and ∂C/∂w written (13); w is read for wᵀ δ (8), which is written, or to be updated.
            back = outputs + learns * (inputs + w.size) + (hands_back or is_folded) * w.size + hands_back * inputs
            moved = [inputs + w.size + outputs, back]
        works[FORWARD, name], works[BACKWARD, name] = ((f, m * itemsize) for f, m in zip(flops, moved, strict=True))
    works[LOSS, ""] = 0, 2 * n * prod(model.output_shape) * itemsize  # z is read, ∂C/∂z written
    updated = sum(parameter.size for parameter in model.parameters if parameter.grad is not None)
    # Gradient and value are read, value is written; what the optimizer remembers of each is read and written.
    works[UPDATE, ""] = 0, (3 + 2 * len(trainer.optimizer.state)) * updated * itemsize
    return works
