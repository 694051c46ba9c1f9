"""Trainings that use everything a state has, for the tests of checkpoints and of going on from them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.saving.checkpoint import Origin
from gpunn.train.arguments import TrainOptions
from gpunn.train.callbacks import LambdaCallback
from gpunn.train.record import COLUMNS, State
from gpunn.train.trainer import Trainer

ORIGIN = Origin(
    experiment='name = "x"\n',
    data={"train": {"samples": 1, "shape": [2], "sha256": "ab"}, "validation": None},
    versions={"gpunn": gn.__version__},
)


def images(count: int = 110, validation: float = 0.2) -> gn.Data:
    """Small images of three classes."""
    rng = np.random.default_rng(1)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 100, (count, 6, 6)) + 50 * labels[:, None, None]
    return gn.Data.from_arrays(pixels.astype(np.uint8), labels, validation=validation)


def convolutional() -> gn.Sequential:
    """A network with everything that is remembered or drawn from step to step."""
    return gn.Sequential([gn.Conv2D(3, size=3), gn.BatchNorm(), gn.ReLU(), gn.Flatten(), gn.Dropout(0.3), gn.Dense(3)])


def momentum(**options: Any) -> Trainer:
    """Dropout, BatchNorm and momentum: 6 steps an epoch, the last of them shorter."""
    usual: dict[str, Any] = {
        "optimizer": gn.SGD(0.05, momentum=0.9, nesterov=True),
        "regularizer": gn.L2(0.5),
        "epochs": 4,
    }
    return trainer(**usual | options)


def adam(**options: Any) -> Trainer:
    """AdamW, synthetic data and a schedule, with early stopping and statistics gathered at the end."""
    usual: dict[str, Any] = {
        "optimizer": gn.AdamW(gn.Warmup(gn.Cosine(0.01), steps=9)),
        "augmentation": gn.Augmentation(shift=1.0, rotation=10.0),
        "epochs": 4,
        "patience": 2.0,
        "recompute_statistics": True,
        "validate_every": 5,
    }
    return trainer(**usual | options)


def trainer(data: gn.Data | None = None, model: gn.Sequential | None = None, **options: Any) -> Trainer:
    """A training that has not begun."""
    usual = {"batch_size": 16, "device": "cpu", "seed": 3, "progress": False}
    return Trainer(model or convolutional(), TrainOptions(**usual | options), data or images())


@contextmanager
def calling(training: Trainer, function: Callable[[], object]) -> Iterator[None]:
    """Within, a function is called wherever the training pauses."""
    callback = LambdaCallback(lambda _: function())
    training.callbacks.add(callback)
    try:
        yield
    finally:
        training.callbacks.remove(callback)


def stopped_after(training: Trainer, steps: int) -> State:
    """The state of a training after so many steps, where it is stopped."""

    class EnoughError(Exception):
        pass

    def stop() -> None:
        training.step.steps_per_graph = 1  # of the step that was made when held layers began to learn, too
        if training.done == steps:
            raise EnoughError

    training.step.steps_per_graph = 1  # so that it can be stopped after each; who goes on takes several at once
    if steps:
        with suppress(EnoughError), calling(training, stop):
            training.train()
    assert training.done == steps
    return training.state()


def outcome(training: Trainer) -> Any:
    """Everything that a finished training leaves, but for the time it took: to be compared bit by bit."""
    columns = [name for name in COLUMNS if name != "seconds"]
    records = [
        [*(float(getattr(record, name)).hex() for name in columns), record.measured] for record in training.history
    ]
    arrays = {name: array.tobytes() for name, array in training.model.arrays().items()}
    remembered = {
        name: training.step.backend.to_host(array).tobytes() for name, array in training.optimizer.state.items()
    }
    return training.done, records, training.history.stopped, arrays, remembered
