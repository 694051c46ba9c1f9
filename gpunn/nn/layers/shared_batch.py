"""Exchange the statistics of a batch between ranks, for a layer that normalizes over all of it."""

from gpunn.backend.ranks import world
from gpunn.kernels import normalization as kernels
from gpunn.kernels.record import Array
from gpunn.kernels.sums import copy
from gpunn.nn.layers.base import BuildContext


class SharedBatch:
    """Combine statistics and sums over the ranks' shares of a batch: two messages a step, of 2 numbers a channel.

    Attributes:
        own: Mean and variance of this rank's share, (2, channels).
    """

    def __init__(self, context: BuildContext, channels: int, each: int) -> None:
        self._backend, self._share, self._each = context.backend, context.share, each
        self._of_ranks = context.scratch((world().size, 2, channels))
        self.own, self._sums, self._unused = (context.scratch((2, channels)) for _ in range(3))
        self._backend.assign(self._unused, 0.0)

    @property
    def samples(self) -> int:
        """Number of samples in the batch of all ranks; 0 where each rank has a whole batch."""
        return self._share.of

    @property
    def least(self) -> int:
        """Number of samples in the smallest share that is not empty."""
        return max(1, self._share.of // len(self._of_ranks))

    def take(self, x: Array, scratch: tuple[Array, Array]) -> None:
        """Compute the mean and variance of this rank's share."""
        self._backend.run(kernels.moments, x, 0.0, *self.own, *self._unused, *scratch)

    def merge(self, momentum: float, *statistics: Array) -> None:
        """Merge the statistics of all shares into mean, variance and running averages, equal on every rank."""
        self._backend.all_gather(self.own, self._of_ranks)
        arguments = self._of_ranks, momentum, self.samples, self._each, *statistics
        self._backend.run(kernels.merge_moments, *arguments)

    def add(self, by_gamma: Array, by_beta: Array) -> Array:
        """Return the sums over all shares, (2, channels), from this rank's."""
        self._backend.run(copy, by_gamma, self._sums[0])
        self._backend.run(copy, by_beta, self._sums[1])
        self._backend.all_reduce(self._sums)
        return self._sums

    def add_nothing(self) -> None:
        """Take part in `add` with an empty share."""
        self._backend.assign(self._sums, 0.0)
        self._backend.all_reduce(self._sums)
