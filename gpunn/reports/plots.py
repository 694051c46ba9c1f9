"""The pictures as functions of networks, samples, reports and histories; each returns a figure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.backend.devices import on_host
from gpunn.data import Data, Samples
from gpunn.data.checks import as_array
from gpunn.display.text import shortened
from gpunn.errors import OptionError, ShapeError
from gpunn.files import StrPath
from gpunn.nn.arguments import as_batch
from gpunn.nn.locking import explains_shortage
from gpunn.nn.losses import MeanSquaredError
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task
from gpunn.reports import filters, learning_rates, predictions
from gpunn.reports.outputs import draw_largest_errors, draw_outputs, draw_predictions, draw_wrong_outputs
from gpunn.reports.reconstructions import MOST_SHOWN, draw_reconstructions
from gpunn.train.arguments import as_samples, check_samples
from gpunn.train.history import History
from gpunn.train.outputs_report import MultilabelReport, RegressionReport
from gpunn.train.predictions import all_outputs, answers_to
from gpunn.train.report import ClassificationReport, report_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_activations", "plot_confusion", "plot_filters", "plot_history", "plot_learning_rates"]
__all__ += ["plot_mistakes", "plot_predictions", "plot_reconstructions"]

Given = Samples | Data | tuple[ArrayLike, ArrayLike] | ArrayLike


def plot_history(
    history: History,
    path: StrPath | None = None,
    *,
    title: str = "",
    reference: Mapping[str, Any] | None = None,
) -> "Figure":
    """Draw the figures of a training over its epochs; the same as `history.plot`."""
    if not isinstance(history, History):
        raise OptionError(f"plot_history takes the History that fit returns, got {type(history).__name__}")
    return history.plot(path, title=title, reference=reference)


def plot_learning_rates(
    curve: learning_rates.LearningRateCurve, path: StrPath | None = None, *, title: str = ""
) -> "Figure":
    """Draw the losses at rising learning rates that `model.find_learning_rate` returns, and the suggested rate."""
    if not isinstance(curve, learning_rates.LearningRateCurve):
        mend = "give what model.find_learning_rate(data) returns"
        raise OptionError(f"plot_learning_rates takes a LearningRateCurve, got {type(curve).__name__}: {mend}")
    return learning_rates.plot_learning_rates(curve, path, title=title)


def plot_confusion(
    model: Network | ClassificationReport | MultilabelReport,
    samples: Given | None = None,
    y: ArrayLike | None = None,
    *,
    path: StrPath | None = None,
    title: str = "",
) -> "Figure":
    """Draw how often each class was taken for which; of several answers of 0 and 1, each output's right and wrong ones.

    Args:
        model: Trained network, or a report that `model.report` has made, which then needs no samples.
        samples: Samples, (x, y), or x; of a data set, its test set.
        y: Targets for x.
        path: Path of a PNG to write as well, or None.
        title: Title of the picture.

    Returns:
        A Matplotlib figure, which a notebook shows by itself; pyplot does not know it.

    Raises:
        OptionError: The answers are numbers, or there are more than 1,000 classes.
        DataError, ShapeError: No samples, samples without targets, or of another kind or shape.
        GpunnError: The network is not built.
    """
    if isinstance(model, ClassificationReport | MultilabelReport | RegressionReport):
        if samples is not None or y is not None:
            raise OptionError("a report has its answers already: give plot_confusion the report alone, or the network")
        report = model
    else:
        report = _report(_network(model, "plot_confusion"), samples, y)
    if isinstance(report, RegressionReport):
        raise OptionError("numbers have no confusion matrix: gn.plot_predictions(model, samples) draws them")
    if isinstance(report, MultilabelReport):
        return draw_outputs(report, path, title)
    if len(report.class_names) > predictions.MOST_DRAWN:
        count, most = len(report.class_names), predictions.MOST_DRAWN
        raise OptionError(f"a matrix of {count:,} classes cannot be seen: at most {most:,}; see report.most_mistaken()")
    known = len(model.class_names) if isinstance(model, Network) else 0
    names = predictions.classes_of(report, known or len(report.class_names))
    matrix = report.confusion_matrix[: len(names), : len(names)]
    return predictions.plot_confusion(matrix, names, path, title)


def plot_mistakes(
    model: Network,
    samples: Given | None = None,
    y: ArrayLike | None = None,
    *,
    count: int = predictions.MOST_SHOWN,
    path: StrPath | None = None,
    title: str = "",
) -> "Figure":
    """Draw the samples that a network answered worst: the mistakes of highest loss, or the numbers furthest off.

    Args:
        model: Trained network.
        samples: Samples, (x, y), or x; of a data set, its test set.
        y: Targets for x.
        count: Largest number of samples.
        path: Path of a PNG to write as well, or None.
        title: Title of the picture.

    Returns:
        A Matplotlib figure, which a notebook shows by itself; pyplot does not know it.

    Raises:
        OptionError: A count below 1.
        DataError, ShapeError: No samples, samples without targets, or of another kind or shape.
        GpunnError: The network is not built.
    """
    taken, task, names = _taken(_network(model, "plot_mistakes"), samples, y)
    if task is Task.CLASSES:
        found = answers_to(model, taken)
        each = found.labels, found.predicted, found.of_true, found.of_predicted
        return predictions.draw_mistakes(taken.inputs, each, model.names_of_outputs, path, count, title, taken.scale)
    targets, outputs = _targets(taken), all_outputs(model, taken)
    draw = draw_wrong_outputs if task is Task.BINARY else draw_largest_errors
    return draw(taken, targets, outputs, names, path, count, title)


def plot_predictions(
    model: Network,
    samples: Given | None = None,
    y: ArrayLike | None = None,
    *,
    path: StrPath | None = None,
    title: str = "",
) -> "Figure":
    """Draw the numbers that a network predicts over the true ones, a panel an output, with its RMSE and R².

    Args:
        model: Network that was trained on numbers.
        samples: Samples, (x, y), or x; of a data set, its test set.
        y: Targets for x.
        path: Path of a PNG to write as well, or None.
        title: Title of the picture.

    Returns:
        A Matplotlib figure, which a notebook shows by itself; pyplot does not know it.

    Raises:
        OptionError: The answers are classes.
        DataError, ShapeError: No samples, samples without targets, or of another kind or shape.
        GpunnError: The network is not built.
    """
    taken, task, names = _taken(_network(model, "plot_predictions"), samples, y)
    if task is not Task.REGRESSION:
        raise OptionError("plot_predictions draws numbers, this network answers classes: gn.plot_confusion draws them")
    return draw_predictions(_targets(taken), all_outputs(model, taken), names, path, title)


def plot_filters(model: Network, *, count: int | None = None, path: StrPath | None = None, title: str = "") -> "Figure":
    """Draw the weights of the first layer with weights as images: of a convolution, or of units that see the image.

    Args:
        model: Built network of images.
        count: Largest number of filters; left out, 64, or 36 that see the whole image.
        path: Path of a PNG to write as well, or None.
        title: Title of the picture.

    Returns:
        A Matplotlib figure, which a notebook shows by itself; pyplot does not know it.

    Raises:
        OptionError: The first weights are no images, such as those of the columns of a table; a count below 1.
        GpunnError: The network is not built.
    """
    _network(model, "plot_filters")._built()
    found = filters.first_filters(model, filters.shape_of_images(model))
    if found is None:
        shape = " × ".join(map(str, model.input_shape))
        raise OptionError(f"the first weights of this network, of inputs {shape}, are no images: there are no filters")
    name, weights = found
    count = filters.most_filters(weights) if count is None else count
    return filters.plot_filters(weights, path, name=name, count=count, title=title)


def plot_activations(
    model: Network, image: ArrayLike, *, count: int = 16, path: StrPath | None = None, title: str = ""
) -> "Figure":
    """Draw an image, and beside it the maps that each convolution answers it with, after activation and pooling.

    Args:
        model: Built network with convolutions.
        image: One image, (height, width, channels), scaled as for `predict`; (height, width) where it is grey.
        count: Largest number of maps of a layer.
        path: Path of a PNG to write as well, or None.
        title: Title of the picture.

    Returns:
        A Matplotlib figure, which a notebook shows by itself; pyplot does not know it.

    Raises:
        OptionError: The network has no convolution; a count below 1.
        DataError, ShapeError: Anything but one image of the network's shape.
        GpunnError: The network is not built.
    """
    _network(model, "plot_activations")._built()
    wanted = " × ".join(map(str, model.input_shape))
    if isinstance(image, Samples | Data):
        mend = "samples.inputs[0], say"
        raise ShapeError(f"expected one image of {wanted}, got {type(image).__name__}: give one, {mend}")
    with model.lock:
        given = as_array(on_host(image), "image")
        one = given if given.ndim == 4 and len(given) == 1 else given[None]
        try:
            batch = as_batch(one, model.input_shape, model.trained_on)
        except ShapeError:
            raise ShapeError(f"expected one image of {wanted}, got {given.shape}: inputs[0] is one of many") from None
        scale = model.factor_of(batch)
        answers = filters.answers_to(model, batch[0], scale)
        if not answers:
            raise OptionError("the network has no convolution of an image, so no maps to draw: see gn.Conv2D")
        name = f"predicted {shortened(model.predict_names(batch)[0])}" if model.class_names else "input"
    return filters.plot_activations(batch[0] * np.float32(scale), answers, path, name=name, count=count, title=title)


def plot_reconstructions(
    model: Network,
    samples: Samples | Data | ArrayLike,
    *,
    count: int = MOST_SHOWN,
    path: StrPath | None = None,
    title: str = "",
) -> "Figure":
    """Draw samples and below each what an autoencoder makes of it, with its mean squared error.

    Args:
        model: Network that was trained on its inputs as targets: `load_data(…, task="reconstruction")`.
        samples: Samples, inputs alone, or a data set, of which its test set is taken.
        count: Largest number of samples.
        path: Path of a PNG to write as well, or None.
        title: Title of the picture.

    Returns:
        A Matplotlib figure, which a notebook shows by itself; pyplot does not know it.

    Raises:
        OptionError: A count below 1.
        ShapeError, DataError: Outputs that are not as many as the inputs, no samples, or of another shape.
        GpunnError: The network is not built.
    """
    _network(model, "plot_reconstructions")._built()
    if isinstance(samples, Data):
        samples = samples.test or samples.validation or samples.train
    if not isinstance(samples, Samples):
        inputs = as_array(samples, "inputs")
        batch = as_batch(inputs, model.input_shape, model.trained_on)
        samples = Samples(inputs, np.zeros(len(inputs), np.int32), scale=model.factor_of(batch))
    return draw_reconstructions(model, samples, path, count=count, title=title)


def _network(model: Any, caller: str) -> Network:
    if not isinstance(model, Network):
        raise OptionError(f"{caller} takes a network, such as a gn.Sequential, got {type(model).__name__}")
    return model


@explains_shortage
def _report(model: Network, samples: Any, y: ArrayLike | None) -> Any:
    model._built()
    return report_on(model, samples, y)


@explains_shortage
def _taken(model: Network, samples: Any, y: ArrayLike | None) -> tuple[Samples, Task, tuple[str, ...]]:
    """Return samples as the network takes them, its task, and the names of its outputs that are no classes."""
    model._built()
    taken = model.arranged(as_samples(samples, y, model))
    check_samples(model, taken)
    task = (model.loss or MeanSquaredError()).task(bool(taken.classes))
    columns = taken.columns
    names = () if columns is None or taken.classes else columns.targets
    return taken, task, names if names and len(names) == taken.targets.shape[1] else ()


def _targets(samples: Samples) -> Any:
    """Return float targets in the units of their table."""
    return samples.targets if samples.columns is None else samples.columns.answers(samples.targets)
