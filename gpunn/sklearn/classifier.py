"""Wrap a network as a scikit-learn classifier."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from gpunn.config import nearest
from gpunn.data import Samples
from gpunn.data.augmentation import Augmentation
from gpunn.data.class_weights import ClassWeight
from gpunn.data.labels import checked_names
from gpunn.errors import DataError, OptionError
from gpunn.experiments.experiment import Experiment
from gpunn.nn.losses import Loss
from gpunn.nn.tasks import by_class
from gpunn.sequential import Sequential
from gpunn.sklearn.base import ONE_PASS, Estimator, Layers, weighted
from gpunn.train.callbacks import Callback
from gpunn.train.optimizers import Optimizer, Regularizer


class Classifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """Classify by a network, as a scikit-learn estimator.

    Args:
        layers: Units of hidden layers, each with ReLU, by default (100,); or layers, to which a last `Dense` is added
            unless they end in one with an output for each class (Softmax or Sigmoid may follow); or a function that
            returns all layers for a number of outputs.
        experiment: `gpunn.experiments.experiment.Experiment`, name of a recipe or path of an experiment file, for
            everything that is not given here, except the data.
        input_shape: Shape of one sample, (height, width) or (height, width, channels), for images flat in rows.
        loss: Loss. Default: chosen by the targets.
        optimizer: Optimizer, or its class or name. Default: Adam(0.01).
        learning_rate: Learning rate, or a schedule of it, instead of the optimizer's own.
        regularizer: L1 or L2, or None.
        epochs: Number of epochs. Default: 50.
        batch_size: Number of samples in a batch, at most all. Default: 128.
        validation: Share or number of samples that are split off for validation. Default: none.
        patience: Number of epochs without a lower validation loss after which training stops.
        class_weight: "balanced", or weights by label, 1 for others, or a list in the order of `classes_`.
        augmentation: Random changes of the training images, or None.
        callbacks: `gn.Callback` objects.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "float32" or "float64". Default: on a CPU that of X (float64 for integers), on a GPU float32.
        random_state: Seed, RandomState, or None for a new seed in each `fit`.
        verbose: Whether to show progress.

    Attributes:
        classes_: Labels, sorted.
        model_: Trained network, `gn.Sequential`, with classes numbered as in `classes_`.
        history_: Records of the last training.
        n_iter_: Number of epochs trained.
        n_features_in_, feature_names_in_: Number of features, and their names if X was a data frame.
    """

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
        class_weight: ClassWeight = None,
        augmentation: Augmentation | None = None,
        callbacks: Sequence[Callback] = (),
        device: str | None = None,
        dtype: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            layers,
            experiment=experiment,
            input_shape=input_shape,
            loss=loss,
            optimizer=optimizer,
            learning_rate=learning_rate,
            regularizer=regularizer,
            epochs=epochs,
            batch_size=batch_size,
            validation=validation,
            patience=patience,
            augmentation=augmentation,
            callbacks=callbacks,
            device=device,
            dtype=dtype,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Train a new network.

        Args:
            X: (n, features), or images (n, height, width) or (n, height, width, channels).
            y: Labels, (n,).
            sample_weight: Weight of each sample, (n,), at least 0: one of weight 2 counts as two, one of 0 is left out.

        Raises:
            ValueError: Invalid data or parameters, in one line of gpunn or scikit-learn.
        """
        X, y = self._rows(X, y, is_first=True)
        check_classification_targets(y)
        X, y, weights = weighted(X, y, sample_weight)
        return self._learn(self._begin_with(X, np.unique(y)), X, y, weights)

    def partial_fit(
        self, X: Any, y: Any, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one more epoch on these samples; the first call needs `classes`, all labels of all calls.

        A network trained by `fit` continues, with the same seed and scale of the inputs.
        """
        is_first = not hasattr(self, "model_")
        X, y = self._rows(X, y, is_first=is_first)
        check_classification_targets(y)
        if isinstance(self.class_weight, str):
            mend = "give the weights of all classes, or sample_weight"
            raise OptionError(f"class_weight='{self.class_weight}' needs all samples, partial_fit has some: {mend}")
        X, y, weights = weighted(X, y, sample_weight)
        if is_first:
            if classes is None:
                raise OptionError("the first call of partial_fit needs classes, all labels that there will be")
            network = self._begin_with(X, np.unique(np.asarray(classes)))
        else:
            network = self.model_
        if classes is not None and not np.array_equal(self.classes_, np.unique(np.asarray(classes))):
            raise OptionError(f"classes are {self.classes_.tolist()!r:.60} since the first call of fit or partial_fit")
        if (unknown := np.setdiff1d(y, self.classes_)).size:
            known = f"{self.classes_.tolist()!r:.80}"
            raise DataError(f"y has the label {unknown[0].item()!r:.40}, which is none of the classes {known}")
        return self._learn(network, X, y, weights, **ONE_PASS)

    def _begin_with(self, x: NDArray[Any], classes: NDArray[Any]) -> Sequential:
        if len(classes) < 2:
            got = f"one class, {classes[0]!s:.40}" if len(classes) else "no class"
            raise DataError(f"a classifier needs samples of at least two classes, y has {got}")
        self.classes_ = classes
        return self._begin(x, len(classes), takes_any_end=False)

    def _learn(
        self, network: Sequential, x: NDArray[Any], y: NDArray[Any], weights: NDArray[Any] | None, **changed: Any
    ) -> Self:
        places = np.searchsorted(self.classes_, y).astype(np.int32)
        samples = Samples(self._shaped(x), places, self._scale, len(self.classes_), weights=weights)
        if self.class_weight is not None:
            changed["class_weight"] = _weights_of(self.class_weight, self.classes_)
        return self._train(network, samples, _names(self.classes_), **changed)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Predict the probability of each class, (n, classes), in the order of `classes_`."""
        return by_class(self._outputs(X), len(self.classes_))[:, : len(self.classes_)]

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Predict the logarithm of each probability."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the most probable label of each sample, (n,)."""
        places = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[places])


def _names(classes: NDArray[Any]) -> Sequence[str] | None:
    """Return labels as class names of the network; None if a model file cannot hold them."""
    try:
        return checked_names([str(label) for label in classes.tolist()], len(classes))
    except DataError:
        return None


def _weights_of(given: ClassWeight, classes: NDArray[Any]) -> ClassWeight:
    """Return weights by label as a list in the order of `classes`, which may be fewer in a fold."""
    if not isinstance(given, Mapping):
        return given
    labels = classes.tolist()
    unknown = [label for label in given if label not in labels]
    if unknown and len(given) - len(unknown) < len(labels):
        near = nearest(str(unknown[0]), map(str, labels))
        raise OptionError(f"class_weight has a weight for {unknown[0]!r:.40}, which is no label of y{near}")
    return [given.get(label, 1.0) for label in labels]
