"""Predict samples in one pass, batch by batch, and keep a few numbers a sample instead of all outputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import require
from gpunn.data import Samples
from gpunn.data.loader import DataLoader, place, sizes_of
from gpunn.kernels.gather import NEXT_STEP
from gpunn.nn.layout import swap_batch_axis
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task, by_class
from gpunn.train.metrics import ranks

_A_SAMPLE = 64  # bytes for a sample's predictions, and for the arrays of metrics, such as a sorted order


@dataclass(frozen=True, eq=False)
class Answers:
    """True and predicted classes of samples, all (n,).

    Attributes:
        labels, predicted: True and predicted class.
        of_true, of_predicted: Outputs of the true and the predicted class, usually probabilities.
        ranks: Rank of the true class among the outputs, 0 for the largest; of equal outputs the later class first.
        scores: Output of class 1 of two classes, else empty.
    """

    labels: NDArray[Any]
    predicted: NDArray[Any]
    of_true: NDArray[Any]
    of_predicted: NDArray[Any]
    ranks: NDArray[Any]
    scores: NDArray[Any]

    @classmethod
    def of(cls, outputs: NDArray[Any], labels: NDArray[Any], classes: int = 2) -> "Answers":
        """Predict from outputs (n, outputs); a single output is that of class 1, unless there is only one class."""
        shares, predicted = by_class(outputs, classes), Task.CLASSES.answers(outputs, classes)
        true, best = (np.take_along_axis(shares, places[:, None], 1)[:, 0] for places in (labels, predicted))
        scores = outputs[:, -1] if shares.shape[1] == 2 else outputs[:0, 0]
        return cls(labels, predicted.astype(np.int32), true, best, ranks(shares, labels), scores)


def answers_to(model: Network, samples: Samples) -> Answers:
    """Predict the classes of samples batch by batch."""
    n = len(samples)
    require(_A_SAMPLE * n, f"the predictions for {n:,} samples")
    made: dict[str, NDArray[Any]] = {}
    for start, outputs in outputs_of(model, samples):
        part = vars(Answers.of(outputs, samples.targets[start : start + len(outputs)], model.classes))
        for name, values in part.items():
            whole = made.setdefault(name, np.empty(n if len(values) else 0, values.dtype))
            whole[start : start + len(values)] = values
    return Answers(**made)


def all_outputs(model: Network, samples: Samples) -> NDArray[Any]:
    """Return all outputs (n, outputs), one for each target."""
    n, columns = samples.targets.shape
    require(n * (8 * columns + _A_SAMPLE), f"the outputs of {n:,} samples")
    made: NDArray[Any] | None = None
    for start, outputs in outputs_of(model, samples):
        made = np.empty((n, columns), outputs.dtype) if made is None else made  # float64 in units of a table
        made[start : start + len(outputs)] = outputs
    return made if made is not None else np.empty((0, columns))


def outputs_of(
    model: Network, samples: Samples, batches: DataLoader | None = None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the first sample's index and the outputs of each batch, as in `predict_proba`.

    `batches` is a loader that already has the samples on the device.
    """
    backend, size = model._built(), model.capacity
    batches = place(backend, samples, model.dtype) if batches is None else batches
    clock = backend.zeros((4,), np.int32)

    def computed(n: int) -> Any:
        rows, x = model.input.views(n)
        batches.take(clock, n, rows)
        return swap_batch_axis(model.propagate(x, False, model.stages))

    batches.start(size)
    key = ("outputs", batches.size % size)
    model.compile_ahead(key, lambda: [computed(n) for n in sizes_of(batches.size, size)])
    for number, start in enumerate(range(0, batches.size, size)):
        n = min(size, batches.size - start)
        backend.assign(clock[NEXT_STEP : NEXT_STEP + 1], number)
        outputs = backend.to_host(computed(n))
        batches.advance(n)
        yield start, model.linked(outputs)
