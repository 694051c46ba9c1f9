"""Check the arguments of `fit` and `evaluate`, and convert them for a network and its loss."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from gpunn.backend.base import Backend
from gpunn.config import as_part
from gpunn.config.scalars import Range, checked_seed, flag, positive_whole, real
from gpunn.data import Data, Samples
from gpunn.data.augmentation import Augmentation
from gpunn.data.checks import as_array, as_inputs, is_binary, is_whole
from gpunn.data.class_weights import ClassWeight, checked_class_weight, class_weights, with_class_weight
from gpunn.data.device_inputs import DeviceInputs
from gpunn.data.formats.frame import is_frame
from gpunn.data.labels import encode_labels
from gpunn.data.loader import checked_place
from gpunn.data.table_samples import frame_samples
from gpunn.errors import DataError, OptionError, ShapeError
from gpunn.nn.arguments import checked_dtype
from gpunn.nn.layers import Layer
from gpunn.nn.layers.base import every_layer, unchained
from gpunn.nn.layout import fed_shape
from gpunn.nn.losses import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task
from gpunn.train.callbacks import Callback, checked_callbacks
from gpunn.train.custom_metrics import MetricList, checked_columns
from gpunn.train.optimizers import SGD, Optimizer, Regularizer

log = logging.getLogger(__name__)

BATCH = 128  # default batch size


@dataclass(frozen=True)
class PlainOptions:
    """Options of `fit` that experiment files hold; unchecked, so that a file with bad values can still be read."""

    epochs: int = 10
    freeze: int = 0
    batch_size: int | None = None
    seed: int = 0
    device: str | Backend = "auto"
    dtype: str = "float32"
    precision: str = "float32"
    recompute_statistics: bool = False
    validate_every: int | None = None
    patience: float | None = None
    skip_bad_batches: bool = False
    average: float | None = None
    data_on: str = "auto"
    class_weight: ClassWeight = None


_DECAY: Range = "lie between 0 and 1, such as 0.999 (None for none)", lambda number: 0 < number < 1


@dataclass(frozen=True)
class TrainOptions(PlainOptions):
    """Options of `Sequential.fit`, checked, with parts made from their classes, names or tables."""

    loss: Loss | None = None
    optimizer: Optimizer = None  # type: ignore[assignment]  # SGD(0.1, momentum=0.9)
    regularizer: Regularizer | None = None
    augmentation: Augmentation | None = None
    capture: bool = True
    progress: bool = True
    callbacks: Sequence[Callback] = ()
    metrics: MetricList = ()

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "epochs": positive_whole(self.epochs, "epochs"),
            "freeze": positive_whole(self.freeze, "freeze", least=0),
            "seed": checked_seed(self.seed),
            "dtype": checked_dtype(self.dtype),
            "data_on": checked_place(self.data_on),
            "class_weight": checked_class_weight(self.class_weight),
            "callbacks": checked_callbacks(self.callbacks),
            "metrics": checked_columns(self.metrics),
        }
        if not isinstance(self.optimizer, Optimizer):  # a name or none means the same optimizer in every call of `fit`
            default = SGD(0.1, momentum=0.9)
            checked["optimizer"] = as_part("optimizer", default if self.optimizer is None else self.optimizer)
            checked["optimizer"].identity = repr(self.optimizer)
        for name in ("recompute_statistics", "skip_bad_batches", "capture", "progress"):
            checked[name] = flag(getattr(self, name), name)
        for name in ("loss", "regularizer", "augmentation"):
            if (part := getattr(self, name)) is not None:
                checked[name] = as_part(name, part)
        for name, word in (("batch_size", "batch size"), ("validate_every", "validate_every")):
            if (number := getattr(self, name)) is not None:
                checked[name] = positive_whole(number, word)
        if self.patience is not None and not real(self.patience, "patience") > 0:
            raise OptionError(f"patience must be above 0 epochs, got {self.patience!r}")
        if self.average is not None:
            checked["average"] = real(self.average, "average", _DECAY)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def among(cls, arguments: dict[str, Any]) -> Self:
        """Make the options from a table of arguments, without those that are no options."""
        return cls(**{each.name: arguments[each.name] for each in fields(cls) if each.name in arguments})


def as_data(
    data: Any,
    y: ArrayLike | None,
    validation: Any,
    seed: int,
    loss: Loss | None,
    layers: Sequence[Layer],
    sample_weight: ArrayLike | None = None,
) -> Data:
    """Return the arguments of `fit` as a data set; with `validation`, no training samples are held back."""
    held_back: dict[str, Any] = {} if validation is None else {"validation": 0}
    if pair := _pair(data, y, "fit"):
        if pair[0] is None:
            raise DataError("fit takes a data set, samples, or x and y, got y without x")
        targets = _as_targets(pair[1], loss, layers)
        own: dict[str, Any] = {"seed": seed, "sample_weight": sample_weight, "tokens": layers[0].tokens or None}
        data = Data.from_arrays(pair[0], targets, **own, **held_back)
    elif isinstance(data, Samples):
        data = Data.from_samples(_weighted(data, sample_weight), seed=seed, **held_back)
    elif not isinstance(data, Data):
        mend = f"write fit(gpunn.load_data({data!r}))" if isinstance(data, str) else "see gpunn.load_data"
        raise DataError(f"fit takes a data set, samples, or x and y, got {_named(data)}: {mend}")
    elif sample_weight is not None:
        mend = "give the weights to its samples, Data.from_arrays(x, y, sample_weight=...)"
        raise DataError(f"sample_weight goes with x and y or with samples, got it with a data set: {mend}")
    if tokens := layers[0].tokens:
        data = data.mapped(lambda samples: samples.as_tokens(tokens), data.class_names)
    if validation is not None:
        if data.validation is not None:
            held = f"the data have {len(data.validation):,} samples for validation already"
            raise OptionError(f"{held}: leave validation_data out, or load them with validation=0")
        if isinstance(validation, tuple | list) and len(validation) in (2, 3):
            validation = validation[0], _as_targets(validation[1], loss, layers), *validation[2:]
        data = data.with_validation(validation)
    made: Data = data.as_floats() if loss and loss.of_targets is Task.BINARY and data.train.one_hot else data
    return made


def data_for(
    model: Network, options: TrainOptions, data: Any, y: Any, validation: Any, sample_weight: ArrayLike | None
) -> tuple[Data, TrainOptions]:
    """Return the arguments of `fit` as a data set with the network's class numbers and inputs, and the options."""
    own = as_data(data, y, validation, options.seed, options.loss, model.layers, sample_weight)
    given = as_known(own, model.class_names)
    if given is not own and options.class_weight not in (None, "balanced"):  # class numbers may have changed
        weights = class_weights(options.class_weight, own.train, own.class_names)
        options = replace(options, class_weight=dict(zip(own.class_names, weights, strict=True)))
    return given if model.trained_on is None else given.mapped(model.arranged, given.class_names), options


def _weighted(samples: Samples, sample_weight: ArrayLike | None) -> Samples:
    """Return samples with the given weights."""
    if sample_weight is None:
        return samples
    if samples.weights is not None:
        raise DataError("these samples have weights already: leave sample_weight out")
    return replace(samples, weights=cast(Any, sample_weight))


def as_samples(
    data: Any,
    y: ArrayLike | None,
    model: Network,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight = None,
) -> Samples:
    """Return the arguments of `evaluate` as samples in the form of the training data; raise an error if they differ."""
    columns = None if model.trained_on is None else model.trained_on.columns
    pair = _pair(data, y, "evaluate")
    if columns is not None and is_frame(pair[0] if pair else data):
        data = frame_samples(*(pair or (data, None)), columns=columns, names=model.class_names)
    elif pair:
        targets, _ = encode_labels(_as_targets(pair[1], model.loss, model.layers), model.class_names)
        inputs = as_inputs(pair[0])
        count = len(model.class_names) or -1
        factor = model.factor_of(inputs.extremes() if isinstance(inputs, DeviceInputs) else inputs)
        data = Samples(inputs, as_array(targets, "targets"), factor, count, tokens=model.tokens)
        if columns is not None and not data.classes and not columns.classes:
            data = replace(data, targets=columns.standard_targets(data.targets), columns=columns)
    elif isinstance(data, Data):
        if data.test is None:
            raise DataError(f"{data.name} has no test set: evaluate its .validation, or (x, y)")
        data = renumbered(data.test, data.class_names, model.class_names)
    elif not isinstance(data, Samples):
        raise DataError(f"expected samples such as data.test, a data set, or x and y, got {_named(data)}")
    samples: Samples = data.as_floats() if model.task not in (None, Task.CLASSES) and data.one_hot else data
    samples = with_class_weight(_weighted(samples, sample_weight), class_weight, model.class_names)
    samples = model.arranged(samples)
    check_samples(model, samples)
    return samples


def _pair(data: Any, y: ArrayLike | None, caller: str) -> tuple[Any, Any] | None:
    """Return x and y, given as two arguments or as a pair; None for anything else."""
    if y is None:
        return (data[0], data[1]) if isinstance(data, tuple | list) and len(data) == 2 else None
    if isinstance(data, Data | Samples):
        kind = type(data).__name__
        raise DataError(f"{caller} takes {kind} alone, or x and y, got {kind} and y")
    return data, y


def _named(data: Any) -> str:
    """Describe a wrong argument for an error message."""
    is_array = hasattr(data, "__array__") or isinstance(data, list | tuple)
    return "nothing" if data is None else f"{type(data).__name__} without targets" if is_array else repr(data)


def _as_targets(y: Any, loss: Loss | None, layers: Sequence[Layer]) -> Any:
    """Return targets (n,) as labels, or as floats (n, 1) for one output and a regression loss; others unchanged."""
    try:
        array = as_array(y, "targets")
    except DataError:
        return y  # names are numbered later, and bad targets refused there
    if array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)) or not array.size:
        return array
    outputs, is_float = _outputs(layers), array.dtype.kind == "f"
    takes_labels = loss is not None and loss.takes_labels
    if outputs == 1 and not takes_labels:
        return array if not is_float and is_binary(array) else array.reshape(-1, 1).astype(np.float64)
    if is_float and (takes_labels or outputs > 1) and is_whole(array.ravel()):
        return array.ravel().astype(np.int64)
    return array


def _outputs(layers: Sequence[Layer]) -> int:
    """Count the outputs of a network; 0 if no layer states them."""
    return next((layer.outputs for layer in reversed(layers) if layer.outputs), 0)


def renumbered(samples: Samples, names: Sequence[str], known: Sequence[str]) -> Samples:
    """Renumber labels from the order of class `names` to the order of a network's class names, `known`."""
    are_named = samples.from_files or _are_texts(names)  # names of folders are meant, even numbers
    are_known = _are_texts(known) or set(names) <= set(known)
    if not (are_named and are_known) or not samples.classes or tuple(names) == (*known[: len(names)],):
        return samples
    targets, _ = encode_labels([names[k] for k in samples.targets], known)
    return replace(samples, targets=as_array(targets, "targets"), classes=len(known))


def as_known(data: Data, known: Sequence[str]) -> Data:
    """Renumber the classes of data for a network: known names keep their numbers, new ones follow.

    Data without any known class are a new task, and stay unchanged.
    """
    names = data.class_names
    if not (_are_texts(names) and _are_texts(known)) or not set(names) & set(known):
        return data
    together = (*known, *(name for name in names if name not in set(known)))
    return data if together == names else data.mapped(lambda samples: renumbered(samples, names, together), together)


def _are_texts(names: Sequence[str]) -> bool:
    """Return whether classes have names other than their numbers."""
    return any(name != str(k) for k, name in enumerate(names))


def check_samples(model: Network, samples: Samples, loss: Loss | None = None) -> None:
    """Raise an error unless the network fits the samples, for a training with `loss` or, by default, an evaluation."""
    if not isinstance(samples, Samples):
        raise DataError(f"expected samples such as data.test, got {type(samples).__name__}: see gpunn.Samples")
    model._built()
    is_trained, loss = loss is None and model.task is not None, loss or model.loss
    outputs, classes, labels = prod(model.output_shape), samples.classes, model.task is Task.CLASSES
    if loss is not None:
        # One output can predict 0 or 1 for labels and for floats alike.
        answers_either = outputs == 1 and loss.of_targets is Task.BINARY
        if is_trained and labels != bool(classes) and not answers_either:
            trained = "labels, whole numbers (n,)" if labels else f"float targets (n, {outputs})"
            got = "labels" if classes else "float targets"
            raise DataError(f"the network was trained on {trained}, these samples have {got}: give the same kind")
        loss.check_targets(samples.targets)
        if samples.weights is not None:
            loss.weighing_kernel()
    if fed_shape(model.layers, samples.shape) != model.input_shape:
        raise ShapeError(f"the network was built for inputs {model.input_shape}, these samples are {samples.shape}")
    if model.trained_on is not None:
        model.trained_on.check_samples(samples)
    if len(model.output_shape) != 1:
        raise ShapeError(f"the network gives {model.output_shape}, not (outputs,): end it with Flatten() and Dense()")
    needed = classes or samples.targets.shape[1]
    if needed > (outputs if loss is None else loss.classes_of(outputs)) if classes else needed != outputs:
        mend = f"end it with Dense({needed})"
        if classes == outputs + 1 and samples.targets.min() == 1:
            mend = f"labels begin at 1, so y - 1 makes {outputs} classes of them"
        elif classes and outputs == 1:
            mend += ", or " + ("take BinaryCrossEntropy" if classes == 2 else "give floats (n, 1) to learn numbers")
        kind = "classes" if classes else "targets"
        raise ShapeError(f"the data have {needed} {kind}, the network {outputs} outputs: {mend}")


def note_missing_classes(data: Data) -> None:
    """Warn of classes without a training sample: the network never predicts them, and no metric shows it."""
    train, names = data.train, data.class_names
    missing = np.flatnonzero(train.class_counts() == 0)
    if train.classes == 1:
        log.warning("all training samples are of class %s: there is nothing to tell apart", *names)
    elif len(missing):
        shown = ", ".join(names[k] if k < len(names) else str(k) for k in missing[:5])
        shown += f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        mend = "shuffle data that are sorted by class before a limit takes the first, or number the classes anew"
        if missing.tolist() == [0]:
            mend = "labels that begin at 1 are counted from 0 by y - 1"
        they = "it is" if len(missing) == 1 else "they are"
        said = "none of the %s training samples is of class %s, so %s not learned: %s"
        log.warning(said, f"{len(train):,}", shown, they, mend)


def fitting_batch_size(batch_size: int | None, samples: int, layers: Sequence[Layer]) -> int:
    """Return the batch size; by default `BATCH`, or the next one that leaves BatchNorm no batch of one sample."""
    size = min(samples, batch_size or BATCH)
    fitting = next_batch_size(size, samples, layers)
    if batch_size is None or fitting == size:
        return fitting
    left = f"{samples} samples in batches of {size} leave a batch of one, which BatchNorm cannot normalise"
    raise OptionError(f"{left}: take a batch size of {fitting}, say")


def next_batch_size(size: int, samples: int, layers: Sequence[Layer]) -> int:
    """Return the batch size, or the next one that leaves BatchNorm no batch of one sample."""
    if samples % size != 1 or not any(
        layer.normalizes_batch and not is_frozen for layer, is_frozen in every_layer(layers)
    ):
        return size
    return next(larger for larger in range(size + 1, samples + 1) if samples % larger != 1)


def loss_for(samples: Samples, loss: Loss | None, layers: Sequence[Layer]) -> Loss:
    """Return the loss, by default chosen from the targets; see `Sequential.fit`."""
    if samples.classes:
        is_binary_task = samples.classes == 2 and _outputs(layers) == 1
        return loss or (BinaryCrossEntropy() if is_binary_task else SoftmaxCrossEntropy())
    several = samples.targets.shape[1] > 1 and is_binary(samples.targets)
    *_, last = unchained(layers)
    answers_by_itself = last.gives_probability or bool(last.outputs)
    loss = loss or (BinaryCrossEntropy() if several and answers_by_itself else MeanSquaredError())
    if loss.takes_labels:
        mend = "BinaryCrossEntropy for several classes at once" if several else "MeanSquaredError"
        needed = f"{type(loss).__name__} needs labels or rows of one 1, the data have float targets"
        raise DataError(f"{needed}: take {mend}, or y.argmax(axis=1) for the likeliest class")
    return loss
