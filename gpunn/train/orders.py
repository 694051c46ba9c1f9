"""Draw the shuffled order of each epoch, the next one in a thread while a device still computes this one."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from gpunn.kernels.random import epoch_order

Order = NDArray[np.int32]


class Orders:
    """Draw the order of an epoch from seed and epoch alone; whether it is drawn ahead changes no bit.

    Learning rates are not computed ahead: callbacks may change them until the epoch begins, and they take microseconds.

    Args:
        size: Number of samples.
        seed: Seed of the training.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[Order]] | None = None

    def of(self, epoch: int) -> Order:
        """Return the order of an epoch, counted over all trainings of the network, drawn ahead or now.

        Raises:
            MemoryError: Too little memory, now or in the thread, whose other errors are raised too.
        """
        ahead, self._ahead = self._ahead, None
        return ahead[1].result() if ahead is not None and ahead[0] == epoch else self._drawn(epoch)

    def draw_ahead(self, epoch: int) -> None:
        """Start to draw the order of an epoch in a thread."""
        self._thread = self._thread or ThreadPoolExecutor(1, "gpunn order")
        self._ahead = epoch, self._thread.submit(self._drawn, epoch)

    def close(self) -> None:
        """Wait for the thread, and end it."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._ahead = None

    def _drawn(self, epoch: int) -> Order:
        return epoch_order(self._size, seed=self._seed, epoch=epoch)
