"""The samples of a run beside its network: mistakes, the confusion matrix, and what a unit answers to most."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data import Data, Samples
from gpunn.errors import DataError, GpunnError, in_one_line
from gpunn.serve.arrays import encoded, finite
from gpunn.serve.inputs import Prepared
from gpunn.serve.served import Served
from gpunn.train.arguments import renumbered
from gpunn.train.metrics import confusion_matrix
from gpunn.train.predictions import Answers

SETS = ("validation", "test")
MOST_LOOKED = 2000  # samples among which those are looked for that a unit answers to most
MOST_IMAGES = 12  # of these that are shown
MOST_CLASSES = 200  # of a confusion matrix
_MOST_KEPT = 32  # layers whose images are remembered
_BATCH = 64


class UnavailableError(GpunnError):
    """What a run does not have, or does not show yet; the page is told so."""


@dataclass(frozen=True, eq=False)
class Largest:
    """The samples that each unit of a layer answers to most, (kept, units), the most first."""

    numbers: NDArray[np.int64]
    values: NDArray[Any]


class RunSamples:
    """The data of a run, loaded when they are first asked for; what is computed of them is remembered."""

    def __init__(self, load: Callable[[], Data] | None, may_show_test: Callable[[], bool]) -> None:
        self._load, self._may_show_test = load, may_show_test
        self._lock, self._error = threading.Lock(), ""
        self._data: Data | None = None
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._computing: dict[tuple[Any, ...], threading.Lock] = {}
        self._was_tried = threading.Event()

    def begin(self) -> None:
        """Load the data in a thread, so that nobody waits for them."""
        threading.Thread(target=self._try, daemon=True).start()

    def _try(self) -> None:
        try:
            with suppress(UnavailableError):
                self.data()
        finally:
            self._was_tried.set()

    def trouble(self, seconds: float) -> str:
        """Say why there are no samples; "" where there are some, or where loading them takes longer than this."""
        self._was_tried.wait(seconds)
        return self._error

    def data(self) -> Data:
        """Return the data of the run; raise UnavailableError where there are none."""
        with self._lock:
            if self._data is None and not self._error:
                try:
                    if self._load is None:
                        raise UnavailableError("a network without its run folder has no samples: serve the run folder")
                    self._data = self._load()
                except (GpunnError, OSError, MemoryError) as error:
                    self._error = str(error) or "out of memory"
                except Exception as error:  # noqa: BLE001 - in a thread of its own, where nobody would be told in a line
                    self._error = in_one_line(f"the data cannot be loaded: {type(error).__name__}: {error}")
            if self._data is None:
                raise UnavailableError(self._error)
            return self._data

    def has_test(self) -> bool:
        """Tell whether the test set may be looked at: only where the run has measured its network on it at the end."""
        return self._load is not None and self._may_show_test()

    def of(self, name: str, served: Served) -> Samples:
        """Return the samples of a set, numbered as the network knows their classes."""
        if name not in SETS:
            raise DataError(f"set is {' or '.join(SETS)}, got {name!r:.40}")
        data = self.data()
        if name == "test":
            if not self.has_test():
                raise UnavailableError("the test set is opened once, at the end of a run: take the validation set")
            found = data.test
        else:
            found = data.validation
        if found is None:
            raise UnavailableError(f"the run has no {name} set")
        return renumbered(found, data.class_names, served.model.class_names)

    def usual(self) -> str:
        """Return the set that is shown where none is named: validation, else a test set that may be looked at."""
        data = self.data()
        return "test" if data.validation is None and self.has_test() else "validation"

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the least and largest number of each column of a table among the training samples."""
        train = self.data().train
        columns = train.columns
        if columns is None:
            return {}
        rows = np.asarray(train.inputs[:], np.float64)
        low, high = rows.min(axis=0), rows.max(axis=0)
        places = {name: at for at, name in enumerate(columns.feature_names)}
        found = {}
        for name, mean, deviation in zip(columns.names, columns.means, columns.deviations, strict=True):
            if name not in columns.categories:
                ends = (float(f"{v[places[name]] * deviation + mean:.6g}") for v in (low, high))
                found[name] = (next(ends), next(ends))
        return found

    def _remembered(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Return what was computed before; two who ask at once wait for one."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            own = self._computing.setdefault(key, threading.Lock())
        with own:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            made = compute()
            with self._lock:
                self._kept[key] = made
                self._computing.pop(key, None)
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        return made

    def sample(self, served: Served, name: str, index: int) -> dict[str, Any]:
        """Return a sample as the network sees it."""
        samples = self.of(name, served)
        if not 0 <= index < len(samples):
            raise DataError(f"index is a number from 0 to {len(samples) - 1}, got {index}")
        return {"set": name, "index": index, "of": len(samples), **self._shown(served, samples, index)}

    def _shown(self, served: Served, samples: Samples, index: int) -> dict[str, Any]:
        rows = np.asarray(samples.inputs[index : index + 1])
        scale = 1.0 if samples.tokens else samples.scale
        return {"pixels": encoded(served.seen(_flat(served, rows)[0], scale)), "label": _label(served, samples, index)}

    def _answers(self, served: Served, name: str) -> tuple[Samples, Answers]:
        samples = self.of(name, served)
        if not samples.classes or served.task != "classification":
            raise UnavailableError(f"mistakes are of classes, and this network answers {served.task}")
        return samples, self._remembered(("answers", served.version, name), lambda: _answers(served, samples))

    def mistakes(self, served: Served, name: str, first: int, count: int) -> dict[str, Any]:
        """Return some of the samples that are taken for another class, the surest of the wrong first."""
        samples, answers = self._answers(served, name)
        wrong = np.flatnonzero(answers.predicted != answers.labels)
        ordered = wrong[np.argsort(np.nan_to_num(answers.of_true[wrong], nan=0.0), kind="stable")]
        names = served.classes
        return {
            "set": name,
            "total": len(wrong),
            "of": len(samples),
            "first": first,
            "mistakes": [
                {
                    "index": int(at),
                    "true": names[int(answers.labels[at])],
                    "predicted": names[int(answers.predicted[at])],
                    "probability": finite(answers.of_predicted[at]),
                    "of_true": finite(answers.of_true[at]),
                    **self._shown(served, samples, int(at)),
                }
                for at in ordered[first : first + count]
            ],
        }

    def confusion(self, served: Served, name: str) -> dict[str, Any]:
        """Return how often each class was taken for which."""
        samples, answers = self._answers(served, name)
        names = served.classes
        if len(names) > MOST_CLASSES:
            raise UnavailableError(f"a matrix of {len(names):,} classes cannot be shown, at most {MOST_CLASSES} can")
        counts = confusion_matrix(answers.labels, answers.predicted, len(names))
        return {"set": name, "of": len(samples), "classes": names, "counts": counts.astype(int).tolist()}

    def unit(self, served: Served, layer: int, unit: int) -> dict[str, Any]:
        """Return weights of a unit, and the samples that it answers to most."""
        weights, bias = served.unit(layer, unit)
        place = served.view.places[layer]
        found: dict[str, Any] = {
            "layer": layer,
            "unit": unit,
            "weights": None if weights is None else encoded(weights),
            "bias": None if bias is None else finite(bias),
            "weights_of": place.weighted,
            "images": [],
            "note": "",
        }
        try:
            name = self.usual()
            samples = self.of(name, served)
        except UnavailableError as error:
            return {**found, "note": str(error)}
        largest = self._remembered(
            ("unit", served.version, name, layer), lambda: _largest(served, samples, layer, _spread(len(samples)))
        )
        of_unit = zip(largest.numbers[:, unit].tolist(), largest.values[:, unit].tolist(), strict=True)
        found["images"] = [
            {"index": at, "set": name, "activation": finite(value), **self._shown(served, samples, at)}
            for at, value in of_unit
        ]
        return {**found, "of": min(len(samples), MOST_LOOKED)}


def _label(served: Served, samples: Samples, index: int) -> str:
    """Write the target of a sample: its class, or its numbers."""
    target = samples.targets[index]
    if samples.classes:
        return served.classes[int(target)] if int(target) < len(served.classes) else str(int(target))
    if len(target) > 8:
        return ""
    columns = samples.columns
    values = target[None] if columns is None else columns.answers(np.asarray(target[None], np.float64))
    return ", ".join(f"{value:.6g}" for value in values[0])


def _spread(count: int) -> NDArray[np.int64]:
    """Return the numbers of samples spread over all."""
    return np.linspace(0, count - 1, min(count, MOST_LOOKED)).astype(np.int64)


def _flat(served: Served, rows: NDArray[Any]) -> NDArray[Any]:
    """Return inputs in the shape that the network takes."""
    return np.asarray(served.model._batch(rows, served.model._built()))


def _answers(served: Served, samples: Samples) -> Answers:
    """Answer all samples, a batch at a time: whoever draws meanwhile comes between two."""
    made: dict[str, list[NDArray[Any]]] = {}
    for part in _batches(np.arange(len(samples))):
        outputs = served.proba(Prepared(_flat(served, np.asarray(samples.inputs[part])), samples.scale))
        for name, values in vars(Answers.of(outputs, samples.targets[part], served.model.classes)).items():
            made.setdefault(name, []).append(values)
        time.sleep(0.001)
    return Answers(**{name: np.concatenate(parts) for name, parts in made.items()})


def _largest(served: Served, samples: Samples, layer: int, numbers: NDArray[np.int64]) -> Largest:
    """Find the samples of the largest outputs of each unit; of a map its largest counts."""
    scale = 1.0 if samples.tokens else samples.scale
    best: Largest | None = None
    for part in _batches(numbers):
        batch = _flat(served, np.asarray(samples.inputs[part]))
        outputs = served.view.outputs(batch, scale, [layer])[0]
        values = outputs if outputs.ndim == 2 else outputs.max(axis=(1, 2))
        held = part[:, None].repeat(values.shape[1], axis=1)
        if best is not None:
            values, held = np.concatenate([best.values, values]), np.concatenate([best.numbers, held])
        order = np.argsort(-np.nan_to_num(values, nan=-np.inf), axis=0, kind="stable")[:MOST_IMAGES]
        best = Largest(np.take_along_axis(held, order, 0), np.take_along_axis(values, order, 0))
        time.sleep(0.001)
    assert best is not None
    return best


def _batches(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(numbers), _BATCH):
        yield numbers[start : start + _BATCH]
