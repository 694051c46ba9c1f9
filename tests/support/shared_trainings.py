"""Trainings that one process or several ranks do: `python shared_trainings.py FOLDER NAME …` does some of them.

Each rank prints a line of JSON, and the first leaves the weights in FOLDER/NAME.npz.
"""

import json
import os
import pickle
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.backend.ranks import world
from gpunn.experiments.experiment import read_experiment
from gpunn.train.arguments import TrainOptions
from gpunn.train.callbacks import Callback, TrainingView
from gpunn.train.trainer import Trainer

HALF = 13  # step whose state is kept by "kept", and gone on from by "resumed"
Made = tuple[list[gn.Layer], Any, dict[str, Any]]  # layers, data and options of a training


def digits() -> gn.Data:
    return gn.load_data("digits")


def dense() -> list[gn.Layer]:
    return [gn.Dense(30), gn.Sigmoid(), gn.Dense(10)]


def images() -> list[gn.Layer]:
    first = [gn.Conv2D(6, 3, padding="same"), gn.ReLU(), gn.MaxPool2D(2)]
    return [*first, gn.Dropout(0.2), gn.Flatten(), gn.Dense(10)]


class HalfTheDistance(gn.Loss):
    """½ Σ |a − y| in array code."""

    def function(self, xp: Any, y: Any, t: Any) -> Any:
        return abs(y - t) / 2

    def derivative(self, xp: Any, y: Any, t: Any) -> Any:
        return xp.sign(y - t) / 2


class Spoiling(gn.Layer):
    """Makes one sample of one step NaN: that whose first input is the largest of all."""

    def build(self, context: Any, input_shape: Any) -> Any:
        self._y = context.buffer(input_shape)
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        y = self._y[x.shape[-1]]
        y[...] = x
        if training:
            y[:, x[0] == 7] = np.nan
        return y

    def backward(self, dy: Any) -> Any:
        return dy


class StopsOnTheLastRank(Callback):
    """Asks for the end where only one rank knows why."""

    def on_steps(self, training: TrainingView) -> None:
        if training.step == 17 and world().rank == world().size - 1:
            raise gn.StopTraining("the last rank has seen enough")


class KeepsItsState(Callback):
    """Writes the state of the training after `HALF` steps."""

    def on_steps(self, training: TrainingView) -> None:
        if training.step == HALF:
            state = training.trainer.state()  # of all ranks
            if world().is_first:
                Path(sys.argv[1], "state.pickle").write_bytes(pickle.dumps(state))


def _rows() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6))
    return x, x @ rng.normal(size=(6, 2)) + 0.1 * rng.normal(size=(400, 2))


def _weighted() -> Made:
    x, y = _rows()
    rng = np.random.default_rng(1)
    held = x[:90], y[:90], rng.uniform(0, 2, 90)
    options = {"sample_weight": rng.uniform(0, 2, 310), "validation_data": held, "batch_size": 30}
    return [gn.Dense(8), gn.Tanh(), gn.Dense(2)], (x[90:], y[90:]), {**options, "metrics": ["mae"]}


def _bad() -> Made:
    x, y = _rows()
    x[123, 0] = 7
    return [Spoiling(), gn.Dense(8), gn.Tanh(), gn.Dense(2)], (x, y), {"skip_bad_batches": True, "batch_size": 30}


def _frozen() -> Made:
    layers = gn.Sequential(dense())
    layers.fit(digits(), epochs=1, device="cpu", progress=False, batch_size=500, dtype="float64")
    return [*layers.layers[:-1], gn.Dense(10)], digits(), {"freeze": 1, "batch_size": 129, "epochs": 3}


SINGLE = {"dtype": "float32"}
NESTEROV = gn.SGD(0.1, momentum=0.9, nesterov=True)
TRAININGS: dict[str, Callable[[], Made]] = {
    "plain": lambda: (dense(), digits(), {"optimizer": gn.SGD(0.5), "regularizer": gn.L2(0.1), "batch_size": 50}),
    "plain32": lambda: (dense(), digits(), {"optimizer": gn.SGD(0.5), "batch_size": 50, "dtype": "float32"}),
    "uneven": lambda: (images(), digits(), {"optimizer": NESTEROV, "batch_size": 129, "epochs": 3}),
    "uneven32": lambda: (dense(), digits(), {"optimizer": NESTEROV, "batch_size": 129, "epochs": 3, **SINGLE}),
    "l1": lambda: (dense(), digits(), {"optimizer": gn.SGD(0.5), "regularizer": gn.L1(0.1), "batch_size": 50}),
    "adam": lambda: (dense(), digits(), {"optimizer": gn.Adam(0.01), "average": 0.9, "batch_size": 129}),
    "streamed": lambda: (images(), digits(), {"data_on": "host", "batch_size": 129}),
    "classes": lambda: (dense(), digits(), {"class_weight": "balanced", "batch_size": 50, "metrics": ["f1"]}),
    "weighted": _weighted,
    "bad": _bad,
    "frozen": _frozen,
    "array code": lambda: ([*dense()[:2], gn.Dense(2)], _rows(), {"loss": HalfTheDistance(), "batch_size": 50}),
    "patience": lambda: (dense(), digits(), {"optimizer": gn.SGD(20.0), "patience": 0.5, "batch_size": 50}),
    "stopped": lambda: (dense(), digits(), {"callbacks": [StopsOnTheLastRank()], "batch_size": 50}),
    "kept": lambda: (images(), digits(), {"optimizer": NESTEROV, "callbacks": [KeepsItsState()]}),
    "resumed": lambda: (images(), digits(), {"optimizer": NESTEROV}),
}  # fmt: skip


MNIST = {"mlp": 105, "lenet": 105, "lenet-bn": 110}
"""The trainings on MNIST, and their steps."""


def mnist(name: str) -> Made:
    """105 steps of B = 128, the last of 8 samples."""
    data = gn.load_data("mnist", limit=14_800, validation=0.1)
    dense = [gn.Dense(100), gn.Tanh() if name == "mlp" else gn.ReLU(), gn.Dense(10)]
    features = [
        gn.Conv2D(20, 5),
        gn.ReLU(),
        gn.MaxPool2D(2),
        gn.Conv2D(40, 5),
        gn.ReLU(),
        gn.MaxPool2D(2),
        gn.Flatten(),
    ]
    layers = dense if name == "mlp" else [*features, *dense]
    # No ReLU and no maximum in float32: by the last bit of a sum they fall another way (docs/design/ranks.md).
    options = {"optimizer": NESTEROV, "batch_size": 128, "epochs": 1}
    return layers, data, options | (SINGLE if name == "mlp" else {})


class EndsAfterAnEpoch(Callback):
    """Leaves the schedule as it is for all epochs."""

    def on_epoch_end(self, training: TrainingView) -> None:
        raise gn.StopTraining("one epoch is enough")


def recipe(name: str) -> Trainer:
    """The first epoch of a recipe as it is, but in float64 and with B = 48: 110 steps, the last of 47 samples."""
    data = gn.load_data("mnist", limit=5_866, validation=0.1)
    experiment = read_experiment(name).with_options(batch_size=48, dtype="float64", device="cpu")
    trainer = experiment.trainer(data, progress=False)
    trainer.callbacks.add(EndsAfterAnEpoch())
    return trainer


def by_hand(name: str, folder: Path) -> Trainer:
    """Make the training of layers and options that stand here."""
    layers, data, options = mnist(name) if name in MNIST else TRAININGS[name]()
    given = {"epochs": 2, "dtype": "float64", "device": "cpu", "progress": False, **options}
    x, y = data if isinstance(data, tuple) else (data, None)
    model = gn.Sequential(layers)
    own = {key: given.pop(key) for key in ("validation_data", "sample_weight") if key in given}
    trainer = Trainer(model, TrainOptions.among(given), x, y, **own)
    if name == "resumed":
        trainer.restore(pickle.loads((folder / "state.pickle").read_bytes()))
    return trainer


def train(name: str, folder: Path) -> dict[str, Any]:
    """Do one of the trainings, and return what is to be the same."""
    trainer = recipe(name) if name == "lenet-bn" else by_hand(name, folder)
    history = trainer.run()
    model = trainer.model
    arrays = model.arrays()
    if world().is_first:
        np.savez(folder / f"{name}.npz", **arrays)
    records = [{k: v for k, v in vars(record).items() if k != "seconds"} for record in history]
    return {
        "rank": world().rank,
        "weights": sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest(),
        "records": records,
        "steps": trainer.done,
        "stopped": history.stopped,
        "skipped": history.skipped,
        "capacity": model.batch_size,
    }


if __name__ == "__main__":
    done = {name: train(name, Path(sys.argv[1])) for name in sys.argv[2:]}
    os.write(1, (json.dumps(done) + "\n").encode())
