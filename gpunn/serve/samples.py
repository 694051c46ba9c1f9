"""Read samples of a run, and find mistakes, the confusion matrix, and the samples that activate a unit most."""

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
from gpunn.serve.network import ServedNetwork
from gpunn.train.arguments import renumbered
from gpunn.train.metrics import confusion_matrix
from gpunn.train.predictions import Answers

SETS = ("validation", "test")
MOST_SEARCHED = 2000  # samples that are searched for a unit's largest activations
MOST_IMAGES = 12  # samples shown for a unit
MOST_CLASSES = 200  # of a confusion matrix
_MOST_CACHED = 32  # results: answers of a set, or top samples of a layer
_BATCH = 64


class UnavailableError(GpunnError):
    """Error for data that a run does not have, or does not show yet; the page shows its text."""


@dataclass(frozen=True, eq=False)
class TopSamples:
    """Indices of the samples that activate each unit of a layer most, (kept, units), with the activations."""

    numbers: NDArray[np.int64]
    values: NDArray[Any]


class RunSamples:
    """Load the data of a run at their first use, and cache what is computed from them."""

    def __init__(self, load: Callable[[], Data] | None, may_show_test: Callable[[], bool]) -> None:
        self._load, self._may_show_test = load, may_show_test
        self._lock, self._error = threading.Lock(), ""
        self._data: Data | None = None
        self._cache: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._computing: dict[tuple[Any, ...], threading.Lock] = {}
        self._was_tried = threading.Event()

    def begin(self) -> None:
        """Load the data in a thread of their own."""
        threading.Thread(target=self._try, daemon=True).start()

    def _try(self) -> None:
        try:
            with suppress(UnavailableError):
                self.data()
        finally:
            self._was_tried.set()

    def trouble(self, seconds: float) -> str:
        """Return why there are no samples; "" if there are, or if loading takes longer than `seconds`."""
        self._was_tried.wait(seconds)
        return self._error

    def data(self) -> Data:
        """Return the data of the run; raise UnavailableError if there are none."""
        with self._lock:
            if self._data is None and not self._error:
                try:
                    if self._load is None:
                        raise UnavailableError("a network without its run folder has no samples: serve the run folder")
                    self._data = self._load()
                except (GpunnError, OSError, MemoryError) as error:
                    self._error = str(error) or "out of memory"
                except Exception as error:  # noqa: BLE001 - a thread's traceback would reach nobody
                    self._error = in_one_line(f"the data cannot be loaded: {type(error).__name__}: {error}")
            if self._data is None:
                raise UnavailableError(self._error)
            return self._data

    def has_test(self) -> bool:
        """Return whether the page may show the test set: only after the run has evaluated its network on it."""
        return self._load is not None and self._may_show_test()

    def get(self, name: str, served: ServedNetwork) -> Samples:
        """Return the samples of a set, with the class numbers of the network."""
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

    def default_set(self) -> str:
        """Return the set that is shown by default: validation, else a test set that may be shown."""
        data = self.data()
        return "test" if data.validation is None and self.has_test() else "validation"

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the range of each numeric column among the training samples; {} without data."""
        try:
            train = self.data().train
        except UnavailableError:
            return {}
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

    def _cached(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Return a cached result, or compute it; a second caller waits for the first."""
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            own = self._computing.setdefault(key, threading.Lock())
        with own:
            with self._lock:
                if key in self._cache:
                    return self._cache[key]
            made = compute()
            with self._lock:
                self._cache[key] = made
                self._computing.pop(key, None)
                while len(self._cache) > _MOST_CACHED:
                    self._cache.popitem(last=False)
        return made

    def sample(self, served: ServedNetwork, name: str, index: int) -> dict[str, Any]:
        """Return a sample as the network sees it."""
        samples = self.get(name, served)
        if not 0 <= index < len(samples):
            raise DataError(f"index is a number from 0 to {len(samples) - 1}, got {index}")
        return {"set": name, "index": index, "of": len(samples), **_shown(served, samples, index)}

    def _answers(self, served: ServedNetwork, name: str) -> tuple[Samples, Answers]:
        samples = self.get(name, served)
        if not samples.classes or served.task != "classification":
            raise UnavailableError(f"only classification has mistakes, the task of this network is {served.task}")
        return samples, self._cached(("answers", served.version, name), lambda: _answers(served, samples))

    def mistakes(self, served: ServedNetwork, name: str, first: int, count: int) -> dict[str, Any]:
        """Return misclassified samples, those of lowest true-class probability first."""
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
                    **_shown(served, samples, int(at)),
                }
                for at in ordered[first : first + count]
            ],
        }

    def confusion(self, served: ServedNetwork, name: str) -> dict[str, Any]:
        """Return the confusion matrix of a set."""
        samples, answers = self._answers(served, name)
        names = served.classes
        if len(names) > MOST_CLASSES:
            raise UnavailableError(f"a matrix of {len(names):,} classes cannot be shown, at most {MOST_CLASSES} can")
        counts = confusion_matrix(answers.labels, answers.predicted, len(names))
        return {"set": name, "of": len(samples), "classes": names, "counts": counts.astype(int).tolist()}

    def unit(self, served: ServedNetwork, layer: int, unit: int) -> dict[str, Any]:
        """Return a unit's weights and the samples that activate it most."""
        weights, bias = served.unit(layer, unit)
        probed = served.probed.layers[layer]
        found: dict[str, Any] = {
            "layer": layer,
            "unit": unit,
            "weights": None if weights is None else encoded(weights),
            "bias": None if bias is None else finite(bias),
            "weights_of": probed.weighted,
            "images": [],
            "note": "",
        }
        try:
            name = self.default_set()
            samples = self.get(name, served)
        except UnavailableError as error:
            return {**found, "note": str(error)}
        top = self._cached(("unit", served.version, name, layer), lambda: _top_samples(served, samples, layer))
        of_unit = zip(top.numbers[:, unit].tolist(), top.values[:, unit].tolist(), strict=True)
        found["images"] = [
            {"index": at, "set": name, "activation": finite(value), **_shown(served, samples, at)}
            for at, value in of_unit
        ]
        return {**found, "of": min(len(samples), MOST_SEARCHED)}


def _shown(served: ServedNetwork, samples: Samples, index: int) -> dict[str, Any]:
    return {"pixels": encoded(seen(served, samples, index)), "label": label(served, samples, index)}


def seen(served: ServedNetwork, samples: Samples, index: int) -> NDArray[np.float32]:
    """Return a sample as the network sees it, in the shape that the page shows."""
    rows = np.asarray(samples.inputs[index : index + 1])
    return served.seen(_flat(served, rows)[0], 1.0 if samples.tokens else samples.scale)


def label(served: ServedNetwork, samples: Samples, index: int) -> str:
    """Format the target of a sample: its class name, or its numbers."""
    target = samples.targets[index]
    if samples.classes:
        return served.classes[int(target)] if int(target) < len(served.classes) else str(int(target))
    if len(target) > 8:
        return ""
    columns = samples.columns
    values = target[None] if columns is None else columns.answers(np.asarray(target[None], np.float64))
    return ", ".join(f"{value:.6g}" for value in values[0])


def _flat(served: ServedNetwork, rows: NDArray[Any]) -> NDArray[Any]:
    """Reshape inputs as the network takes them."""
    return np.asarray(served.model._batch(rows, served.model._built()))


def _answers(served: ServedNetwork, samples: Samples) -> Answers:
    """Answer all samples in batches; a drawing can be answered between two."""
    made: dict[str, list[NDArray[Any]]] = {}
    for part in _batches(np.arange(len(samples))):
        outputs = served.proba(Prepared(_flat(served, np.asarray(samples.inputs[part])), samples.scale))
        for name, values in vars(Answers.of(outputs, samples.targets[part], served.model.classes)).items():
            made.setdefault(name, []).append(values)
        time.sleep(0.001)
    return Answers(**{name: np.concatenate(parts) for name, parts in made.items()})


def _top_samples(served: ServedNetwork, samples: Samples, layer: int) -> TopSamples:
    """Find the samples that activate each unit of a layer most, among some spread over all."""
    scale, count = 1.0 if samples.tokens else samples.scale, len(samples)
    best: TopSamples | None = None
    for part in _batches(np.linspace(0, count - 1, min(count, MOST_SEARCHED)).astype(np.int64)):
        batch = _flat(served, np.asarray(samples.inputs[part]))
        values = per_unit(served.probed.outputs(batch, scale, [layer])[0])
        held = part[:, None].repeat(values.shape[1], axis=1)
        if best is not None:
            values, held = np.concatenate([best.values, values]), np.concatenate([best.numbers, held])
        order = largest_first(values)[:MOST_IMAGES]
        best = TopSamples(np.take_along_axis(held, order, 0), np.take_along_axis(values, order, 0))
        time.sleep(0.001)
    assert best is not None
    return best


def per_unit(outputs: NDArray[Any]) -> NDArray[Any]:
    """Reduce outputs (n, ..., units) to (n, units), the largest value of each feature map."""
    return outputs if outputs.ndim == 2 else np.asarray(outputs.max(axis=tuple(range(1, outputs.ndim - 1))))


def largest_first(values: NDArray[Any]) -> NDArray[np.intp]:
    """Sort the samples of each unit by activation; NaN comes last."""
    return np.argsort(-np.nan_to_num(values, nan=-np.inf), axis=0, kind="stable")


def _batches(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(numbers), _BATCH):
        yield numbers[start : start + _BATCH]
