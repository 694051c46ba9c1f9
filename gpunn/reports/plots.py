"""Draw networks, samples, reports and histories as Matplotlib figures: the functions `gn.plot_…`."""

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
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task
from gpunn.reports import filters, learning_rates, predictions
from gpunn.reports.multilabel import draw_multilabel, draw_multilabel_mistakes
from gpunn.reports.reconstructions import MOST_SHOWN, draw_reconstructions
from gpunn.reports.regression import draw_largest_errors, draw_predictions
from gpunn.train.arguments import as_samples
from gpunn.train.custom_metrics import task_of
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
    """Draw the learning curves of a training, as `history.plot` does."""
    if not isinstance(history, History):
        raise OptionError(f"plot_history takes the History that fit returns, got {type(history).__name__}")
    return history.plot(path, title=title, reference=reference)


def plot_learning_rates(
    curve: learning_rates.LearningRateCurve, path: StrPath | None = None, *, title: str = ""
) -> "Figure":
    """Draw the result of `model.find_learning_rate`: losses at rising learning rates, and the suggested rate."""
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
    """Draw the confusion matrix of a classifier, or true and false positives and negatives of a multilabel network.

    Args:
        model: Trained network, or a report of `model.report`, which needs no samples.
        samples: Samples, (x, y), or x; of a data set, its test set.
        y: Targets for x.
        path: Path of a PNG to write too, or None.
        title: Title of the picture.

    Returns:
        Matplotlib figure, independent of pyplot, which a notebook shows.

    Raises:
        OptionError: The network was trained on numbers, or there are more than 1,000 classes.
        DataError, ShapeError: No samples, no targets, or samples of another kind or shape.
        GpunnError: The network is not built.
    """
    if isinstance(model, ClassificationReport | MultilabelReport | RegressionReport):
        if samples is not None or y is not None:
            raise OptionError("a report has its answers already: give plot_confusion the report alone, or the network")
        report = model
    else:
        report = _report(_built_network(model, "plot_confusion"), samples, y)
    if isinstance(report, RegressionReport):
        raise OptionError("numbers have no confusion matrix: gn.plot_predictions(model, samples) draws them")
    if isinstance(report, MultilabelReport):
        return draw_multilabel(report, path, title)
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
    """Draw the worst mistakes of a network: those of highest loss, or for regression the largest errors.

    Args:
        model: Trained network.
        samples: Samples, (x, y), or x; of a data set, its test set.
        y: Targets for x.
        count: Largest number of samples.
        path: Path of a PNG to write too, or None.
        title: Title of the picture.

    Returns:
        Matplotlib figure, independent of pyplot, which a notebook shows.

    Raises:
        OptionError: A count below 1.
        DataError, ShapeError: No samples, no targets, or samples of another kind or shape.
        GpunnError: The network is not built.
    """
    taken, task, names = _taken(_built_network(model, "plot_mistakes"), samples, y)
    if task is Task.CLASSES:
        found = answers_to(model, taken)
        each = found.labels, found.predicted, found.of_true, found.of_predicted
        return predictions.draw_mistakes(taken.inputs, each, model.names_of_outputs, path, count, title, taken.scale)
    targets, outputs = _targets(taken), all_outputs(model, taken)
    draw = draw_multilabel_mistakes if task is Task.BINARY else draw_largest_errors
    return draw(taken, targets, outputs, names, path, count, title)


def plot_predictions(
    model: Network,
    samples: Given | None = None,
    y: ArrayLike | None = None,
    *,
    path: StrPath | None = None,
    title: str = "",
) -> "Figure":
    """Draw predicted numbers over true ones, a panel per output, with its RMSE and R².

    Args:
        model: Network that was trained on numbers.
        samples: Samples, (x, y), or x; of a data set, its test set.
        y: Targets for x.
        path: Path of a PNG to write too, or None.
        title: Title of the picture.

    Returns:
        Matplotlib figure, independent of pyplot, which a notebook shows.

    Raises:
        OptionError: The network was not trained on numbers.
        DataError, ShapeError: No samples, no targets, or samples of another kind or shape.
        GpunnError: The network is not built.
    """
    taken, task, names = _taken(_built_network(model, "plot_predictions"), samples, y)
    if task is not Task.REGRESSION:
        raise OptionError("plot_predictions draws numbers, this network answers classes: gn.plot_confusion draws them")
    return draw_predictions(_targets(taken), all_outputs(model, taken), names, path, title)


def plot_filters(model: Network, *, count: int | None = None, path: StrPath | None = None, title: str = "") -> "Figure":
    """Draw the first weights of a network as images: filters of a convolution, or units of a Dense layer on an image.

    Args:
        model: Built network of images.
        count: Largest number of filters. Default: 64, or 36 if they are larger than 12 × 12.
        path: Path of a PNG to write too, or None.
        title: Title of the picture.

    Returns:
        Matplotlib figure, independent of pyplot, which a notebook shows.

    Raises:
        OptionError: The first weights are not images, or a count below 1.
        GpunnError: The network is not built.
    """
    _built_network(model, "plot_filters")
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
    """Draw an image beside its feature maps, after the activation and pooling of each convolution.

    Args:
        model: Built network with convolutions.
        image: One image, (height, width, channels), scaled as for `predict`; (height, width) if it is grey.
        count: Largest number of feature maps of a layer.
        path: Path of a PNG to write too, or None.
        title: Title of the picture.

    Returns:
        Matplotlib figure, independent of pyplot, which a notebook shows.

    Raises:
        OptionError: The network has no convolution, or a count below 1.
        DataError, ShapeError: Anything but one image of the network's shape.
        GpunnError: The network is not built.
    """
    _built_network(model, "plot_activations")
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
        found = filters.feature_maps(model, batch[0], scale)
        if not found:
            raise OptionError("the network has no convolution of an image, so no maps to draw: see gn.Conv2D")
        name = f"predicted {shortened(model.predict_names(batch)[0])}" if model.class_names else "input"
    return filters.plot_activations(batch[0] * np.float32(scale), found, path, name=name, count=count, title=title)


def plot_reconstructions(
    model: Network,
    samples: Samples | Data | ArrayLike,
    *,
    count: int = MOST_SHOWN,
    path: StrPath | None = None,
    title: str = "",
) -> "Figure":
    """Draw samples above their reconstructions by an autoencoder, with the mean squared errors.

    Args:
        model: Network that was trained to reproduce its inputs: `load_data(…, task="reconstruction")`.
        samples: Samples, inputs alone, or a data set, for its test set.
        count: Largest number of samples.
        path: Path of a PNG to write too, or None.
        title: Title of the picture.

    Returns:
        Matplotlib figure, independent of pyplot, which a notebook shows.

    Raises:
        OptionError: A count below 1.
        DataError, ShapeError: No samples, samples of another shape, or fewer or more outputs than inputs.
        GpunnError: The network is not built.
    """
    _built_network(model, "plot_reconstructions")
    if isinstance(samples, Data):
        samples = samples.test or samples.validation or samples.train
    if not isinstance(samples, Samples):
        inputs = as_array(samples, "inputs")
        batch = as_batch(inputs, model.input_shape, model.trained_on)
        samples = Samples(inputs, np.zeros(len(inputs), np.int32), scale=model.factor_of(batch))
    return draw_reconstructions(model, samples, path, count=count, title=title)


def _built_network(model: Any, caller: str) -> Network:
    if not isinstance(model, Network):
        raise OptionError(f"{caller} takes a network, such as a gn.Sequential, got {type(model).__name__}")
    model._built()
    return model


@explains_shortage
def _report(model: Network, samples: Any, y: ArrayLike | None) -> Any:
    return report_on(model, samples, y)


@explains_shortage
def _taken(model: Network, samples: Any, y: ArrayLike | None) -> tuple[Samples, Task, tuple[str, ...]]:
    """Return samples as the network takes them, its task, and the names of its targets if they are not classes."""
    taken = as_samples(samples, y, model)
    columns = taken.columns
    names = () if columns is None or taken.classes else columns.targets
    return taken, task_of(model, taken), names if names and len(names) == taken.targets.shape[1] else ()


def _targets(samples: Samples) -> Any:
    """Return float targets in the units of their table."""
    return samples.targets if samples.columns is None else samples.columns.answers(samples.targets)
