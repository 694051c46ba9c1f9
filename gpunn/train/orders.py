"""The orders of a training's epochs, of which a thread may draw the next while a device works on this one."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from gpunn.kernels.random import epoch_order

Order = NDArray[np.int32]


class Orders:
    """Gives the order of an epoch, which depends on seed and epoch alone: who draws it, and when, changes no bit.

    Learning rates are not drawn ahead: callbacks may change them until the epoch begins, and they take microseconds.

    Args:
        size: Number of samples.
        seed: Seed of the training.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[Order]] | None = None

    def of(self, epoch: int) -> Order:
        """Return the order of an epoch of the network's, drawn ahead or now.

        Raises:
            MemoryError: There was none to draw it, then or now; so with any other error of the thread.
        """
        ahead, self._ahead = self._ahead, None
        return ahead[1].result() if ahead is not None and ahead[0] == epoch else self._drawn(epoch)

    def draw_ahead(self, epoch: int) -> None:
        """Let a thread draw the order of an epoch."""
        self._thread = self._thread or ThreadPoolExecutor(1, "gpunn order")
        self._ahead = epoch, self._thread.submit(self._drawn, epoch)

    def close(self) -> None:
        """Wait until nothing is drawn any more, and end the thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._ahead = None

    def _drawn(self, epoch: int) -> Order:
        return epoch_order(self._size, seed=self._seed, epoch=epoch)
