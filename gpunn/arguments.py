"""What `fit` was given: checked, and chosen where it was left out."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from gpunn.backend import Backend, select
from gpunn.data import Data, Samples
from gpunn.errors import DataError, OptionError
from gpunn.layers import BatchNorm, Dense, Layer
from gpunn.layers.base import positive_whole
from gpunn.losses import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy


def as_data(data: Data | Samples | tuple[ArrayLike, ArrayLike], seed: int) -> Data:
    """What `fit` was given, as a data set.

    Raises:
        DataError: nothing that can be trained on.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, Samples):
        return Data.from_samples(data, seed=seed)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Data.from_arrays(data[0], data[1], seed=seed)
    raise DataError(f"fit takes a data set, samples or (x, y), got {type(data).__name__}: see gpunn.load_data")


def checked_batch_size(batch_size: int, samples: int, layers: Sequence[Layer]) -> int:
    """The batch size, if so many samples make such batches, for these layers.

    Raises:
        OptionError: they do not.
    """
    size = positive_whole(batch_size, "batch size")
    if size > samples:
        raise OptionError(
            f"a batch of {size} is larger than the {samples} training samples: take a batch size of at most {samples}"
        )
    if samples % size == 1 and any(isinstance(layer, BatchNorm) for layer in layers):
        fitting = next(larger for larger in range(size + 1, samples + 1) if samples % larger != 1)
        raise OptionError(
            f"{samples} samples in batches of {size} leave a batch of one, which BatchNorm cannot normalise: take a "
            f"batch size of {fitting}, say"
        )
    return size


def checked_patience(patience: float | None, data: Data) -> float | None:
    """Epochs to wait for a better validation cost, if there is one to watch.

    Raises:
        OptionError: there is not, or they are no epochs.
    """
    if patience is not None and not patience > 0:
        raise OptionError(f"patience must be above 0 epochs, got {patience!r}")
    if patience is not None and data.validation is None:
        raise OptionError("patience needs a validation set to watch: load the data with validation=0.1, say")
    return patience


def loss_for(samples: Samples, loss: Loss | None, layers: Sequence[Layer]) -> Loss:
    """The cost; where it was left out, SoftmaxCrossEntropy for labels and MeanSquaredError for float targets.

    For labels of two classes and a network of one output it is BinaryCrossEntropy.

    Raises:
        DataError: a cost of labels for float targets.
    """
    are_labels = bool(samples.classes)
    last = next((layer for layer in reversed(layers) if isinstance(layer, Dense)), None)
    of_labels = BinaryCrossEntropy if samples.classes == 2 and last and last.units == 1 else SoftmaxCrossEntropy
    chosen = loss or (of_labels() if are_labels else MeanSquaredError())
    if chosen.takes_labels and not are_labels:
        raise DataError(f"{type(chosen).__name__} needs labels, the data have float targets: take MeanSquaredError")
    return chosen


def backend_for(device: str | Backend, precision: str, dtype: str) -> Backend:
    """The backend of a device that computes in a precision.

    Raises:
        OptionError, DeviceError: there is no such device, or none of this precision.
    """
    backend = device if isinstance(device, Backend) else select(device, precision)
    if backend.precision != "float32" and dtype != "float32":
        raise OptionError(f"precision {backend.precision!r} rounds products of float32, and the dtype is {dtype}")
    return backend
