"""Normalize by the statistics of a batch, (23) and (24)."""

from math import prod

from gpunn.backend.base import Shape
from gpunn.backend.ranks import world
from gpunn.config import register
from gpunn.config.scalars import POSITIVE, real
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels import normalization as kernels
from gpunn.kernels.bias_normalization import Joined, joined
from gpunn.kernels.normalization import Statistics
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Constant
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.nn.layers.dense import BiasActivation
from gpunn.nn.layers.shared_batch import SharedBatch


@register
class BatchNorm(Layer):
    """x̂ = (x − x̄)/√(σ² + ε) (23), y = γ x̂ + β (24), over the minibatch; images also over height and width.

    γ and β are learned, without weight decay. Outside of training, x̄ and σ² are the running averages of the training
    batches, r := (1 − momentum) r + momentum · (value of the batch), or, after `Sequential.recompute_statistics`, the
    statistics of the whole training set (S. Ioffe, C. Szegedy, 2015). With `trainable = False` training uses them too,
    and they stay constant. On several ranks x̄ and σ² are those of the whole minibatch.

    Args:
        epsilon: ε, added to the variance.
        momentum: Share of the newest batch in the running averages.
        over: "batch", or "rank": on several ranks, each normalizes its share by itself. That takes one message a step
            instead of two, but the result differs from one process. Running averages are over the whole batch.

    Raises:
        OptionError: An argument out of its range.
        ShapeError: In training, fewer than two values a channel: their variance is meaningless.

    Shapes: (features,) or (height, width, channels), unchanged; γ and β are (features,) or (channels,).
    """

    normalizes_batch = True
    is_pictured = False
    role = "normalization"

    def __init__(self, epsilon: float = 1e-5, momentum: float = 0.1, over: str = "batch") -> None:
        self.epsilon = real(epsilon, "epsilon of BatchNorm", POSITIVE)
        self.momentum = real(momentum, "momentum of BatchNorm", ("lie above 0 and up to 1", lambda m: 0 < m <= 1))
        if not isinstance(over, str) or over not in ("batch", "rank"):
            raise OptionError(f'over of BatchNorm must be "batch" or "rank", got {over!r}')
        self.over = over

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
        self._each = each = prod(input_shape[:-1])
        self._scratch = context.shared_rows(channels, each * context.capacity, 2)
        self._ranks = SharedBatch(context, channels, each) if world().size > 1 and not self.is_frozen else None
        self._shared: SharedBatch | None = None  # set where ranks share the batch of the last `forward`
        self._gathered: Statistics | None = None
        self._joined: Joined | None = None  # kernels that also compute the bias and activation of the stage before
        self._uses_joined = False  # for the batch of the last `forward`
        return input_shape

    def comes_after(self, before: Layer) -> None:
        if isinstance(before, BiasActivation) and not before.bias.b.is_frozen and not self.is_frozen:
            self._joined, self._bias = joined[before.activation.kernel], before.bias
            before.left_to = self._decide_joined

    def _decide_joined(self, x: Array, training: bool) -> bool:
        self._uses_joined = training and self._ranks is None and self._is_split(x.size // self._channels)
        return self._uses_joined

    def forward(self, x: Array, training: bool) -> Array:
        y = self._y[x.shape[-1]]
        self._x, self._by_batch = x, (training and not self.is_frozen) or self._gathered is not None
        if not self._by_batch:
            self._by_statistics(x, self.beta.column, self.mean, self.variance, y)
            return y
        self._shared = self._ranks if self._ranks is not None and self._ranks.samples else None
        self._check(values := x.size // self._channels)
        momentum = self.momentum if self._gathered is None else 0.0  # gathering leaves the running averages alone
        statistics = *self._of_batch, self.mean, self.variance
        if self._shared is not None:
            self._shared.take(x, self._scratch)
            self._shared.merge(momentum, *statistics)
            self._by_statistics(x, self.beta.column, *self._normalizing(), y)
        elif self._is_split(values):
            if self._joined is not None and self._uses_joined:
                given = x, self._bias.b.value, momentum
                self._backend.run(self._joined.forward, *given, *statistics, *self._scratch)
            else:
                self._backend.run(kernels.moments, x, momentum, *statistics, *self._scratch)
            self._by_statistics(x, self.beta.column, *self._of_batch, y)
        else:
            parameters = self.gamma.value, self.beta.value
            self._backend.run(kernels.normalize, x, *parameters, self.epsilon, momentum, *statistics, y)
        if self._gathered is not None:
            self._gathered.add(values, *map(self._backend.to_host, self._of_batch))
        return y

    def idle(self, forward: bool) -> None:
        if (ranks := self._ranks) is None:
            return
        if forward:
            self._shared = ranks
            self._check(0)
            ranks.merge(self.momentum, *self._of_batch, self.mean, self.variance)
        elif self.over == "batch":
            ranks.add_nothing()

    def _check(self, values: int) -> None:
        """Raise ShapeError, on every rank, where a channel has fewer than two values."""
        if self._shared is not None:
            values = self._each * (self._shared.samples if self.over == "batch" else self._shared.least)
        if values < 2:
            needed = "BatchNorm in training needs at least two values a channel"
            share = " on each rank" if self._shared is not None and self.over == "rank" else ""
            raise ShapeError(f"{self.name}: {needed}{share}, got a batch of one: take a larger batch")

    def _normalizing(self) -> tuple[Array, Array]:
        """Return the mean and variance that normalized the last batch."""
        if not self._by_batch:
            return self.mean, self.variance
        if self._shared is not None and self.over == "rank":
            mean, variance = self._shared.own
            return mean, variance
        return self._of_batch

    def _is_split(self, values: int) -> bool:
        """Return whether several GPU blocks share each channel of a batch with this many values a channel."""
        return self._scratch[0].size > 0 and kernels.are_shared(self._channels, values)

    def _by_statistics(self, x: Array, beta: Array, mean: Array, variance: Array, y: Array) -> None:
        """Compute y := γ (x − mean)/√(variance + ε) + β."""
        flat = x.reshape(self._channels, -1)
        columns = self.gamma.column, beta, mean.reshape(-1, 1), variance.reshape(-1, 1)
        self._backend.run(kernels.normalize_as_remembered, flat, *columns, self.epsilon, y.reshape(flat.shape))

    def backward(self, dy: Array) -> Array | None:
        dx = dy if self._dx is None else self._dx[dy.shape[-1]]
        if self.is_frozen:  # γ/√(σ² + ε) dy: constant statistics pass no gradient
            self._by_statistics(dy, self._zeros, self._zeros, self.variance, dx)
            return dx
        statistics, values = self._normalizing(), dy.size // self._channels
        sums: tuple[Array, Array] = (self.gamma.grad, self.beta.grad)
        shared = self._shared if self._by_batch and self.over == "batch" else None
        in_one_kernel = shared is None and not self._is_split(values)
        if not in_one_kernel:
            self._backend.run(kernels.normalize_sums, dy, self._x, *statistics, self.epsilon, *sums, *self._scratch)
        if shared is not None:
            of_all, values = shared.add(*sums), self._each * shared.samples
            sums = of_all[0], of_all[1]
        share = 1 / values if self._by_batch else 0.0
        arguments = dy, self._x, self.gamma.value, *statistics, self.epsilon, share, *sums, dx
        if in_one_kernel:
            self._backend.run(kernels.normalize_gradient, *arguments)
            return dx
        if self._joined is not None and self._uses_joined:
            self._backend.run(self._joined.backward, *arguments, self._bias.b.grad, *self._bias.scratch)
            return dx
        flat, x = (array.reshape(self._channels, -1) for array in (dy, self._x))
        mean, variance, by_gamma, by_beta = (array.reshape(-1, 1) for array in (*statistics, *sums))
        columns = self.gamma.column, mean, variance, self.epsilon, share, by_gamma, by_beta
        out = flat if dx is dy else dx.reshape(flat.shape)
        self._backend.run(kernels.normalize_gradient_by_sums, flat, x, *columns, out)
        return dx

    def start_gathering(self) -> None:
        self._gathered = Statistics(self._channels)

    def stop_gathering(self, keep: bool) -> None:
        if keep and (found := self._gathered) is not None and found.count:
            self._backend.assign(self.mean, found.mean.astype(self.mean.dtype))
            self._backend.assign(self.variance, (found.squares / found.count).astype(self.variance.dtype))
        self._gathered = None
