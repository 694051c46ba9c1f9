"""A network that tells classes apart, as a classifier of scikit-learn."""

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
from gpunn.sklearn.base import ONE_PASS, Estimator, Layers, counted
from gpunn.train.callbacks import Callback
from gpunn.train.optimizers import Optimizer, Regularizer


class Classifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A network as a classifier of scikit-learn.

    Args:
        layers: Units of hidden layers, each with ReLU, (100,) where nothing is given; or layers, to which a last
            `Dense` is added unless they end in one of as many outputs as there are classes (Softmax or Sigmoid may
            follow); or a function that returns all layers for a number of outputs.
        experiment: `gpunn.experiments.experiment.Experiment`, name of a recipe or path of an experiment file, for all
            that is not given here; its data are left aside.
        input_shape: Shape of one sample, (height, width) or (height, width, channels), for images flat in rows.
        loss: Loss, chosen by the targets where none is given.
        optimizer: Optimizer, or its class or name. Default: Adam(0.01).
        learning_rate: Learning rate, or a schedule of it, in place of the optimizer's own.
        regularizer: L1 or L2, or None.
        epochs: Number of epochs; 50 where nothing says it.
        batch_size: Samples in a batch; 128 where nothing says it, never more than there are.
        validation: Share or number of samples that are held back and watched; none where nothing says it.
        patience: Number of epochs without a better validation loss after which training stops.
        class_weight: "balanced", or weights by label, 1 for others, or a list in the order of `classes_`.
        augmentation: Random changes of the training images, or None.
        callbacks: Objects of `gn.Callback`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "float32" or "float64"; left out, that of X on a CPU (float64 for
            whole numbers), on a GPU float32.
        random_state: Seed, RandomState, or None for a new seed in each `fit`.
        verbose: Whether progress is shown.

    Attributes:
        classes_: Labels, sorted.
        model_: The network, `gn.Sequential`; it knows classes by their places in `classes_`.
        history_: Records of the last training.
        n_iter_: Number of epochs trained.
        n_features_in_, feature_names_in_: Number of features, and their names where X was a data frame.
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
            sample_weight: Weight of each sample, (n,), at least 0: one of weight 2 counts as two, one of 0 as none.

        Raises:
            ValueError: Data or parameters that cannot be, in one line of gpunn's or scikit-learn's.
        """
        X, y = self._rows(X, y, is_first=True)
        check_classification_targets(y)
        X, y, weights = counted(X, y, sample_weight)
        return self._learn(self._begin_with(X, np.unique(y)), X, y, weights)

    def partial_fit(
        self, X: Any, y: Any, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one more epoch, on these samples; in the first call `classes` are all labels there will be.

        A network that `fit` has trained goes on from where it is. Scale of the inputs and seed stay as they were.
        """
        is_first = not hasattr(self, "model_")
        X, y = self._rows(X, y, is_first=is_first)
        check_classification_targets(y)
        if isinstance(self.class_weight, str):
            mend = "give the weights of all classes, or sample_weight"
            raise OptionError(f"class_weight='{self.class_weight}' needs all samples, partial_fit has some: {mend}")
        X, y, weights = counted(X, y, sample_weight)
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
        """Return the probability of each class, (n, classes), in the order of `classes_`."""
        return by_class(self._outputs(X), len(self.classes_))[:, : len(self.classes_)]

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Return the logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the likeliest label of each sample, (n,)."""
        places = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[places])


def _names(classes: NDArray[Any]) -> Sequence[str] | None:
    """Return labels as names of the network's classes; None where a model file could not hold them."""
    try:
        return checked_names([str(label) for label in classes.tolist()], len(classes))
    except DataError:
        return None


def _weights_of(given: ClassWeight, classes: NDArray[Any]) -> ClassWeight:
    """Return weights by label as a list in the order of the classes; the labels of a fold may be fewer."""
    if not isinstance(given, Mapping):
        return given
    labels = classes.tolist()
    unknown = [label for label in given if label not in labels]
    if unknown and len(given) - len(unknown) < len(labels):
        near = nearest(str(unknown[0]), map(str, labels))
        raise OptionError(f"class_weight has a weight for {unknown[0]!r:.40}, which is no label of y{near}")
    return [given.get(label, 1.0) for label in labels]
