"""Wrap a network as a scikit-learn regressor."""

from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin

from gpunn.config import as_part, from_config
from gpunn.data import Samples
from gpunn.errors import ShapeError
from gpunn.nn.layers.base import unchained
from gpunn.nn.losses import Loss
from gpunn.nn.tasks import Task
from gpunn.sequential import Sequential
from gpunn.sklearn.base import ONE_PASS, Estimator, weighted


class Regressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """Predict numbers by a network, as a scikit-learn estimator.

    If the network ends in a `Dense`, targets are standardised, so the loss is in those units, and predictions are
    scaled back. A network that ends in an activation, or is trained by BinaryCrossEntropy, learns the targets
    unscaled.

    Args and attributes are those of `Classifier`, without `class_weight` and `classes_`. The last layer has an output
    for each target, and any activation may follow it.
    """

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Train a new network on numbers y, (n,) or (n, targets); see `Classifier.fit`."""
        X, y = self._rows(X, y, is_first=True, multi_output=True, y_numeric=True)
        X, y, weights = weighted(X, y, sample_weight)
        return self._learn(self._begin_with(X, y, weights), X, y, weights)

    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one more epoch on these samples; targets are scaled as in the first call."""
        is_first = not hasattr(self, "model_")
        X, y = self._rows(X, y, is_first=is_first, multi_output=True, y_numeric=True)
        X, y, weights = weighted(X, y, sample_weight)
        network = self._begin_with(X, y, weights) if is_first else self.model_
        return self._learn(network, X, y, weights, **ONE_PASS)

    def _begin_with(self, x: NDArray[Any], y: NDArray[Any], weights: NDArray[Any] | None) -> Sequential:
        targets = np.asarray(y, np.float64).reshape(len(y), -1)
        self._is_flat = y.ndim == 1
        network = self._begin(x, targets.shape[1], takes_any_end=True)
        self._mean, self._deviation = np.zeros(targets.shape[1]), np.ones(targets.shape[1])
        loss = None if self.loss is None else cast(Loss, as_part("loss", self.loss))
        if loss is None and self._experiment is not None and self._experiment.loss is not None:
            loss = from_config("loss", self._experiment.loss)
        if list(unchained(network.layers))[-1].outputs and (loss is None or loss.of_targets is not Task.BINARY):
            self._mean = np.average(targets, axis=0, weights=weights)
            deviation = np.sqrt(np.average((targets - self._mean) ** 2, axis=0, weights=weights))
            self._deviation = np.where(deviation > 0, deviation, 1.0)
        return network

    def _learn(
        self, network: Sequential, x: NDArray[Any], y: NDArray[Any], weights: NDArray[Any] | None, **changed: Any
    ) -> Self:
        targets = np.asarray(y, np.float64).reshape(len(y), -1)
        if targets.shape[1] != len(self._mean):
            raise ShapeError(f"y had {len(self._mean)} targets in the first call of partial_fit, got {targets.shape}")
        targets = (targets - self._mean) / self._deviation
        samples = Samples(self._shaped(x), targets, self._scale, 0, weights=weights)
        return self._train(network, samples, None, **changed)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict in the units and shape of y, as float64."""
        answers = self._outputs(X) * self._deviation + self._mean
        return np.asarray(answers[:, 0] if self._is_flat else answers, np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
