"""Batch normalization, (23) and (24)."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Shape
from gpunn.config import register
from gpunn.errors import ShapeError
from gpunn.kernels import normalization as kernels
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Constant
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.scalars import POSITIVE, real


@register
class BatchNorm(Layer):
    """x̂ = (x − x̄)/√(σ² + ε) (23), y = γ x̂ + β (24), over the minibatch; images also over height and width.

    γ and β are learned and not decayed. When not training, x̄ and σ² are remembered: running averages of training,
    r := (1 − momentum) r + momentum · (value of the batch), or, after `Sequential.recompute_statistics`, those of the
    whole training set (S. Ioffe, C. Szegedy, 2015). With `trainable = False` they are taken in training too, and stay.

    Args:
        epsilon: ε, added to the variance.
        momentum: Share of the newest batch in the running averages.

    Raises:
        ShapeError: in training, fewer than two values a channel, whose variance says nothing.
    """

    normalizes_batch = True
    is_pictured = False

    def __init__(self, epsilon: float = 1e-5, momentum: float = 0.1) -> None:
        self.epsilon = real(epsilon, "epsilon of BatchNorm", POSITIVE)
        self.momentum = real(momentum, "momentum of BatchNorm", ("lie above 0 and up to 1", lambda m: 0 < m <= 1))

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._backend, zeros = context.backend, context.backend.zeros
        self._channels = channels = input_shape[-1]
        self.gamma = context.parameter("gamma", (channels,), Constant(1.0))
        self.beta = context.parameter("beta", (channels,), Constant(0.0))
        self.mean = context.statistic("mean", (channels,), 0.0)
        self.variance = context.statistic("variance", (channels,), 1.0)
        self._of_batch = zeros((channels,), context.dtype), zeros((channels,), context.dtype)  # mean and variance
        self._y = context.buffer(input_shape)
        self._dx = context.buffer(input_shape) if context.is_last else None
        self.is_frozen = context.is_frozen
        self._zeros = zeros((channels, 1), context.dtype) if self.is_frozen else None
        self._scratch = context.shared_rows(channels, prod(input_shape[:-1]) * context.capacity, 2)
        self._seen: Statistics | None = None
        return input_shape

    def forward(self, x: Array, training: bool) -> Array:
        y = self._y[x.shape[-1]]
        self._x, self._by_batch = x, (training and not self.is_frozen) or self._seen is not None
        if not self._by_batch:
            self._by_statistics(x, self.beta.column, self.mean, self.variance, y)
            return y
        if (values := x.size // self._channels) < 2:
            needed = "BatchNorm in training needs at least two values a channel"
            raise ShapeError(f"{self.name}: {needed}, got a batch of one: take a larger batch")
        momentum = self.momentum if self._seen is None else 0.0  # running averages then stay as they are
        statistics = *self._of_batch, self.mean, self.variance
        if self._is_shared(values):
            self._backend.run(kernels.moments, x, momentum, *statistics, *self._scratch)
            self._by_statistics(x, self.beta.column, *self._of_batch, y)
        else:
            parameters = self.gamma.value, self.beta.value
            self._backend.run(kernels.normalize, x, *parameters, self.epsilon, momentum, *statistics, y)
        if self._seen is not None:
            self._seen.add(values, *map(self._backend.to_host, self._of_batch))
        return y

    def _is_shared(self, values: int) -> bool:
        """Whether several blocks of a GPU share each channel of a batch, with so many values of it."""
        return self._scratch[0].size > 0 and kernels.are_shared(self._channels, values)

    def _by_statistics(self, x: Array, beta: Array, mean: Array, variance: Array, y: Array) -> None:
        """Compute y := γ (x − mean)/√(variance + ε) + β."""
        flat = x.reshape(self._channels, -1)
        columns = self.gamma.column, beta, mean.reshape(-1, 1), variance.reshape(-1, 1)
        self._backend.run(kernels.normalize_as_remembered, flat, *columns, self.epsilon, y.reshape(flat.shape))

    def backward(self, dy: Array) -> Array | None:
        dx = dy if self._dx is None else self._dx[dy.shape[-1]]
        if self.is_frozen:  # γ/√(σ² + ε) dy: the statistics are constants
            self._by_statistics(dy, self._zeros, self._zeros, self.variance, dx)
            return dx
        statistics = self._of_batch if self._by_batch else (self.mean, self.variance)
        share = self._channels / dy.size if self._by_batch else 0.0
        sums: tuple[Array, Array] = (self.gamma.grad, self.beta.grad)
        if self._is_shared(dy.size // self._channels):
            self._backend.run(kernels.normalize_sums, dy, self._x, *statistics, self.epsilon, *sums, *self._scratch)
            flat, x = (array.reshape(self._channels, -1) for array in (dy, self._x))
            mean, variance, by_gamma, by_beta = (array.reshape(-1, 1) for array in (*statistics, *sums))
            columns = self.gamma.column, mean, variance, self.epsilon, share, by_gamma, by_beta
            out = flat if dx is dy else dx.reshape(flat.shape)
            self._backend.run(kernels.normalize_gradient_by_sums, flat, x, *columns, out)
        else:
            arguments = dy, self._x, self.gamma.value, *statistics, self.epsilon, share, *sums, dx
            self._backend.run(kernels.normalize_gradient, *arguments)
        return dx

    def start_gathering(self) -> None:
        self._seen = Statistics(self._channels)

    def stop_gathering(self, keep: bool) -> None:
        if self._seen is not None and self._seen.count and keep:
            self._backend.assign(self.mean, self._seen.mean.astype(self.mean.dtype))
            self._backend.assign(self.variance, (self._seen.squares / self._seen.count).astype(self.variance.dtype))
        self._seen = None


class Statistics:
    """Mean and squared distances of values that come in parts, in float64 (T. Chan, G. Golub, R. LeVeque, 1979)."""

    def __init__(self, channels: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(channels), np.zeros(channels)

    def add(self, count: int, mean: NDArray[Any], variance: NDArray[Any]) -> None:
        """Add a part by its size, means and variances."""
        total = self.count + count
        distance = mean.astype(np.float64) - self.mean
        self.squares += variance.astype(np.float64) * count + distance**2 * (self.count * count / total)
        self.mean += distance * (count / total)
        self.count = total
