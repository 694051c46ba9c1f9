"""Check what `fit` was given, and choose what was left out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.data import Data, Samples
from gpunn.data.checks import as_array, is_binary, is_whole, numbered
from gpunn.errors import DataError, OptionError
from gpunn.nn.layers import Layer
from gpunn.nn.losses import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from gpunn.nn.tasks import Task
from gpunn.scalars import positive_whole, real

log = logging.getLogger(__name__)

BATCH = 128
"""Samples of a minibatch where nothing else is asked for."""


def as_data(
    data: Any, y: ArrayLike | None, validation: Any, seed: int, loss: Loss | None, layers: Sequence[Layer]
) -> Data:
    """What `fit` was given, as a data set.

    Args:
        data: a data set, samples, (x, y), or x.
        y: targets for x.
        validation: what to watch in place of samples held back, (x, y) or Samples; None for those held back.
        seed: of the split.
        loss: the cost, if it was given.
        layers: of the network.

    Raises:
        DataError: nothing that can be trained on.
        OptionError: two validation sets.
    """
    held_back: dict[str, Any] = {} if validation is None else {"validation": 0}
    if isinstance(data, Data | Samples) and y is not None:
        raise DataError(f"fit takes {type(data).__name__} alone, or x and y, got {type(data).__name__} and y")
    if isinstance(data, Samples):
        data = Data.from_samples(data, seed=seed, **held_back)
    elif y is not None or is_pair(data):
        x, y = data if y is None else (data, y)
        if x is None:
            raise DataError("fit takes a data set, samples, or x and y, got y without x")
        data = Data.from_arrays(x, as_targets(y, loss, layers), seed=seed, **held_back)
    elif not isinstance(data, Data):
        mend = f"write fit(gpunn.load_data({data!r}))" if isinstance(data, str) else "see gpunn.load_data"
        raise DataError(f"fit takes a data set, samples, or x and y, got {named(data)}: {mend}")
    if validation is not None:
        if data.validation is not None:
            raise OptionError(
                f"the data have {len(data.validation):,} samples for validation already: leave validation_data out, or "
                "load them with validation=0"
            )
        if is_pair(validation):
            validation = validation[0], as_targets(validation[1], loss, layers)
        data = data.with_validation(validation)
    made: Data = data.as_floats() if loss and loss.of_targets is Task.BINARY and data.train.one_hot else data
    return made


def as_targets(y: Any, loss: Loss | None, layers: Sequence[Layer]) -> Any:
    """Targets (n,) as what the network can learn of them: numbers if it has one output, classes if it has several.

    Args:
        y: targets as they were given.
        loss: the cost, if it was given.
        layers: of the network.

    Returns:
        Labels, or floats (n, 1); what is clear without the network, and what is no numbers, as it was.
    """
    try:
        array = as_array(y, "targets")
    except DataError:
        return y  # names are numbered later, and what is nothing at all is refused there
    if array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)) or not array.size:
        return array
    outputs = _outputs(layers)
    is_float, takes_labels = array.dtype.kind == "f", loss is not None and loss.takes_labels
    if outputs == 1 and not takes_labels:
        may_be_classes = not is_float and is_binary(array)
        return array if may_be_classes else array.reshape(-1, 1).astype(np.float64)
    if is_float and (takes_labels or outputs > 1) and is_whole(array.ravel()):
        return array.ravel().astype(np.int64)
    return array


def _outputs(layers: Sequence[Layer]) -> int:
    """Outputs of a network, 0 where no layer says how many it has."""
    return next((layer.outputs for layer in reversed(layers) if layer.outputs), 0)


def renumbered(samples: Samples, names: Sequence[str], known: Sequence[str]) -> Samples:
    """Samples with their labels numbered as a network does, where both have names for the classes.

    Args:
        samples: to evaluate on.
        names: of their classes.
        known: of the network's classes.

    Raises:
        DataError: a class that the network does not know.
    """
    are_named = all(any(name != str(k) for k, name in enumerate(given)) for given in (names, known))
    if not are_named or not samples.classes or tuple(names) == tuple(known[: len(names)]):
        return samples
    targets, _ = numbered([names[k] for k in samples.targets], known)
    return Samples(samples.inputs, as_array(targets, "targets"), samples.scale, len(known), samples.one_hot)


def is_pair(data: Any) -> bool:
    """Whether this is (x, y)."""
    return isinstance(data, tuple | list) and len(data) == 2


def named(data: Any) -> str:
    """What errors call something that is no data set."""
    return "nothing" if data is None else f"{type(data).__name__} without targets" if _is_array(data) else repr(data)


def _is_array(data: Any) -> bool:
    return hasattr(data, "__array__") or isinstance(data, list | tuple)


def note_missing_classes(data: Data) -> None:
    """Say which classes have no sample to learn from; a network never names them, and no figure shows it."""
    train, names = data.train, data.class_names
    missing = np.flatnonzero(train.class_counts() == 0)
    if not len(missing):
        if train.classes == 1:
            log.warning("all training samples are of class %s: there is nothing to tell apart", *names)
        return
    shown = ", ".join(names[k] if k < len(names) else str(k) for k in missing[:5])
    counted = f"none of the {len(train):,} training samples is of class {shown}"
    counted += f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    if missing.tolist() == [0]:
        mend = "labels that begin at 1 are counted from 0 by y - 1"
    else:
        mend = "shuffle data that are sorted by class before a limit takes the first, or number the classes anew"
    log.warning("%s, so %s not learned: %s", counted, "it is" if len(missing) == 1 else "they are", mend)


def mend_outputs(samples: Samples, outputs: int) -> str:
    """How a network whose outputs do not fit the targets is brought to fit them."""
    if samples.classes == outputs + 1 and samples.targets.min() == 1:
        return f"labels begin at 1, so y - 1 makes {outputs} classes of them"
    mend = f"end it with Dense({samples.classes or samples.targets.shape[1]})"
    if samples.classes and outputs == 1:
        mend += ", or " + ("take BinaryCrossEntropy" if samples.classes == 2 else "give floats (n, 1) to learn numbers")
    return mend


def checked_batch_size(batch_size: int | None, samples: int, layers: Sequence[Layer]) -> int:
    """The batch size for so many samples and these layers, no larger than the samples are.

    Args:
        batch_size: None for `BATCH`, or the next that leaves no batch of one to BatchNorm.
        samples: of the training set.
        layers: of the network.

    Raises:
        OptionError: no batch size, or it leaves a batch of one to BatchNorm.
    """
    size = min(samples, BATCH if batch_size is None else positive_whole(batch_size, "batch size"))
    if samples % size == 1 and any(layer.normalizes_batch and layer.trainable for layer in layers):
        fitting = next(larger for larger in range(size + 1, samples + 1) if samples % larger != 1)
        if batch_size is None:
            return fitting
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
    if patience is not None and not real(patience, "patience") > 0:
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
    of_labels = BinaryCrossEntropy if samples.classes == 2 and _outputs(layers) == 1 else SoftmaxCrossEntropy
    chosen = loss or (of_labels() if are_labels else MeanSquaredError())
    if chosen.takes_labels and not are_labels:
        several = samples.targets.shape[1] > 1 and is_binary(samples.targets)
        mend = "BinaryCrossEntropy for several classes at once" if several else "MeanSquaredError"
        raise DataError(
            f"{type(chosen).__name__} needs labels or rows of one 1, the data have float targets: take {mend}, or "
            "y.argmax(axis=1) for the likeliest class"
        )
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
