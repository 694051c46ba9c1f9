"""Make and train the network of an estimator, and check its inputs."""

import copy
import logging
import numbers
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from math import prod
from typing import Any, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from gpunn.backend.devices import on_host, select
from gpunn.config import PARTS, as_part, from_config, to_config
from gpunn.config.scalars import positive_whole
from gpunn.data import Data, Samples
from gpunn.data.augmentation import Augmentation
from gpunn.data.checks import checked_weights
from gpunn.data.training_inputs import reach_beyond
from gpunn.errors import OptionError, ShapeError
from gpunn.experiments.experiment import Experiment, read_experiment
from gpunn.nn.arguments import as_shape, checked_dtype
from gpunn.nn.layers import Activation, Dense, Layer, ReLU, Sigmoid, Softmax
from gpunn.nn.layers.base import unchained
from gpunn.nn.layers.chain import as_layers
from gpunn.nn.losses import Loss
from gpunn.sequential import Sequential
from gpunn.train.arguments import TrainOptions, next_batch_size
from gpunn.train.callbacks import Callback
from gpunn.train.optimizers import Adam, Optimizer, Regularizer
from gpunn.train.predictions import outputs_of

log = logging.getLogger(__name__)

EPOCHS, LEARNING_RATE, UNITS = 50, 0.01, (100,)  # unless the estimator or its experiment sets them
ONE_PASS: dict[str, Any] = {"epochs": 1, "patience": None, "freeze": 0, "validation": 0}  # of `partial_fit`
Layers: TypeAlias = Sequence[int] | Sequence[Layer | type[Layer] | str] | Callable[[int], Sequence[Layer]] | int | None


class Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Train a network behind the interface of scikit-learn; `Classifier` documents the parameters."""

    model_: Sequential

    def __init__(
        self,
        layers: Layers = None,
        *,
        experiment: Experiment | str | os.PathLike[str] | None = None,
        input_shape: Sequence[int] | None = None,
        loss: Loss | str | None = None,
        optimizer: Optimizer | str | None = None,
        learning_rate: float | None = None,
        regularizer: Regularizer | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation: float | int | None = None,
        patience: float | None = None,
        augmentation: Augmentation | None = None,
        callbacks: Sequence[Callback] = (),
        device: str | None = None,
        dtype: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        # Stored unchanged, since `clone` compares identities; `fit` checks them.
        self.layers = layers
        self.experiment = experiment
        self.input_shape = input_shape
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.regularizer = regularizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation = validation
        self.patience = patience
        self.augmentation = augmentation
        self.callbacks = callbacks
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def _rows(self, x: Any, y: Any = "no_validation", *, is_first: bool = False, **checks: Any) -> Any:
        """Validate x, and y if there is one, as scikit-learn does; return x as rows (n, features)."""
        x = on_host(x)
        shape = tuple(getattr(x, "shape", ()))
        if len(shape) in (3, 4) and prod(shape):
            if is_first:
                self._given_shape = shape[1:]
            x = np.reshape(np.asarray(x), (shape[0], -1))
        elif is_first:
            self._given_shape = ()
        wanted = np.dtype(checked_dtype(self.dtype)) if self.dtype is not None else (np.float64, np.float32)
        return validate_data(self, x, y, reset=is_first, dtype=wanted, **checks)

    def _shaped(self, x: NDArray[Any]) -> NDArray[Any]:
        """Reshape rows to the input shape of the network."""
        return x.reshape(len(x), *self._shape)

    def _begin(self, x: NDArray[Any], outputs: int, *, takes_any_end: bool) -> Sequential:
        """Make the network of a first training; fix shape, seed, dtype, optimizer and scale for later calls."""
        if hasattr(self, "model_"):
            del self.model_  # so a failed fit leaves no earlier network
        given = self._given_shape if self.input_shape is None else as_shape(_with_channels(self.input_shape))
        shape = _with_channels(given) or x.shape[1:]
        if prod(shape) != x.shape[1]:
            raise ShapeError(f"input_shape {shape} has {prod(shape)} numbers, the samples have {x.shape[1]}")
        self._shape, state = shape, self.random_state
        is_seed = isinstance(state, numbers.Integral) and 0 <= int(state) < 2**32
        self._seed = int(state) if is_seed else int(check_random_state(state).randint(2**31 - 1))
        self._experiment = _as_experiment(self.experiment)
        device = self.device or ("auto" if self._experiment is None else self._experiment.training.device)
        self._dtype = checked_dtype(self.dtype or self._default_dtype(x, device))
        self._optimizer = self._made_optimizer()
        network = self._network(x, outputs, takes_any_end)
        self._scale = 1.0
        if not network.tokens and not network.layers[0].normalizes_batch and (reach := reach_beyond(x)):
            self._scale = 1 / reach
            mend = "StandardScaler() before it in a pipeline scales each feature by itself"
            log.warning("inputs reach to %.4g and beyond, and are divided by that: %s", reach, mend)
        return network

    def _default_dtype(self, x: NDArray[Any], device: str) -> str:
        if self._experiment is not None:
            return self._experiment.training.dtype
        # A GPU is many times slower in float64, the dtype of every data frame.
        return str(x.dtype) if select(device).device == "cpu" else "float32"

    def _made_optimizer(self) -> Optimizer:
        given, rate = self.optimizer, self.learning_rate
        if given is None and self._experiment is not None:
            given = from_config("optimizer", self._experiment.optimizer)
        if given is None:
            return Adam(LEARNING_RATE if rate is None else rate)
        if rate is None:
            return cast(Optimizer, as_part("optimizer", given))
        word = str(given.__name__ if isinstance(given, type) else given).lower()
        name = next((known for known in PARTS["optimizer"] if known.lower() == word), None)  # it may need the rate
        table = {"type": name} if name else to_config(as_part("optimizer", given))
        return cast(Optimizer, from_config("optimizer", {**table, "learning_rate": rate}))

    def _network(self, x: NDArray[Any], outputs: int, takes_any_end: bool) -> Sequential:
        """Make the network, with a last Dense added unless the layers end in one of `outputs` outputs."""
        layers: Any = self.layers
        if layers is None and self._experiment is not None:
            return self._experiment.model(_blank(self._shaped(x[:1]), outputs, takes_any_end))
        if callable(layers) and not isinstance(layers, type):
            return Sequential(layers(outputs))
        layers = UNITS if layers is None else layers
        if isinstance(layers, numbers.Integral):
            layers = (layers,)
        units = isinstance(layers, list | tuple | np.ndarray) and all(isinstance(u, numbers.Integral) for u in layers)
        if units:  # () too, a linear model
            hidden = [part for u in layers for part in (Dense(positive_whole(u, "units of layers")), ReLU())]
            return Sequential([*hidden, Dense(outputs)])
        listed = [copy.copy(layer) for layer in as_layers(layers)]  # the parameter stays unchanged
        links: Any = Activation if takes_any_end else Softmax | Sigmoid
        end = next((layer for layer in reversed(list(unchained(listed))) if not isinstance(layer, links)), listed[0])
        is_binary = not takes_any_end and outputs == 2  # for which one output suffices
        if end.outputs not in ((1, 2) if is_binary else (outputs,)):
            listed.append(Dense(outputs))
        return Sequential(listed)

    def _train(self, network: Sequential, samples: Samples, names: Sequence[str] | None, **changed: Any) -> Self:
        """Train a network on samples, with options of the estimator, else of its experiment."""
        held = changed.pop("validation", self.validation)
        if held is None:
            held = 0 if self._experiment is None else self._experiment.data.validation
            held = 0 if isinstance(held, str) else held
        data = Data.from_samples(samples, validation=held, seed=self._seed, class_names=names)
        own: dict[str, Any] = {"epochs": self.epochs, "batch_size": self.batch_size, "loss": self.loss}
        own |= {"regularizer": self.regularizer, "patience": self.patience, "augmentation": self.augmentation}
        own["device"] = self.device
        options: dict[str, Any] = {"epochs": EPOCHS}
        if self._experiment is not None:
            resolved = self._experiment.options(data, progress=False)
            options = {each.name: getattr(resolved, each.name) for each in fields(TrainOptions)}
        options |= {name: value for name, value in own.items() if value is not None}
        options |= changed | {"optimizer": self._optimizer, "seed": self._seed, "dtype": self._dtype}
        options |= {"progress": bool(self.verbose), "callbacks": self.callbacks}
        if (size := options.get("batch_size")) is not None:  # the size of a fold is not the user's choice
            count = len(data.train)
            size = min(positive_whole(size, "batch_size"), count)
            options["batch_size"] = next_batch_size(size, count, network.layers)
        self.history_ = network.fit(data, **options)
        self.model_, self.n_iter_ = network, max(1, network.epochs_trained)
        return self

    def _outputs(self, x: Any) -> NDArray[Any]:
        """Compute the outputs of the network, (n, outputs)."""
        check_is_fitted(self)
        rows = self._shaped(self._rows(x))
        targets = np.zeros((len(rows), 1), np.float32)
        samples = Samples(rows, targets, self._scale, tokens=self.model_.tokens)
        return np.concatenate([outputs for _, outputs in outputs_of(self.model_, samples)])


def _with_channels(shape: Any) -> tuple[int, ...]:
    """Return a shape of one sample, with a channel added to (height, width)."""
    sizes = tuple(shape) if isinstance(shape, Sequence | np.ndarray) and not isinstance(shape, str) else (shape,)
    return (*sizes, 1) if len(sizes) == 2 else sizes


def _as_experiment(given: Any) -> Experiment | None:
    if given is None or isinstance(given, Experiment):
        return given
    if not isinstance(given, str | os.PathLike):
        raise OptionError(f"experiment is a gpunn experiment, a recipe's name or a file, got {given!r:.60}")
    return read_experiment(os.fspath(given))


def _blank(x: NDArray[Any], outputs: int, is_float: bool) -> Data:
    """Return data of one sample with `outputs` classes or targets, from which an experiment makes its network."""
    targets = np.zeros((len(x), outputs), np.float32) if is_float else np.zeros(len(x), np.int32)
    return Data("X", Samples(x, targets, classes=0 if is_float else outputs), None, ())


def weighted(x: NDArray[Any], y: NDArray[Any], given: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return the samples of weight above 0, and their weights."""
    if given is None:
        return x, y, None
    if isinstance(given, numbers.Real):
        given = np.full(len(x), float(given))
    weights = checked_weights(given, len(x))
    kept = weights > 0
    return (x, y, weights) if kept.all() else (x[kept], y[kept], weights[kept])
