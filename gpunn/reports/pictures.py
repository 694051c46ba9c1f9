"""The pictures of a run's network, drawn from its data."""

from pathlib import Path

import numpy as np

from gpunn import reports
from gpunn.data import Data, Samples
from gpunn.data.memmap import in_blocks
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task, by_class

CURVES, CONFUSION, MISTAKES = "curves.png", "confusion.png", "mistakes.png"
FILTERS, ACTIVATIONS = "filters.png", "activations.png"


def draw_network(folder: Path, model: Network, data: Data, title: str) -> list[str]:
    """Write filters.png and activations.png, each where there is something to draw, and return their names.

    The image comes from the validation set, else from the training set: never from a test set that was not watched.
    """
    written = []
    if first := reports.first_filters(model, data.train.shape):
        name, weights = first
        count = 64 if max(weights.shape[2:]) <= 12 else 36  # fewer units that see the whole image: they need the room
        reports.plot_filters(weights, folder / FILTERS, name=name, count=count, title=title)
        written.append(FILTERS)
    samples = data.validation or data.train
    at = int(np.argmax(samples.targets)) if samples.classes else 0  # of digits a 9, which has a curve and a line
    image = samples.inputs[at] * np.float32(samples.scale)
    if answers := reports.answers_to(model, image):
        name = "input"
        if samples.classes and data.class_names:
            predicted = model.predict_names(samples.inputs[at][None])[0]
            name = f"true {data.class_names[samples.targets[at]]}\npredicted {predicted}"
        reports.plot_activations(image, answers, folder / ACTIVATIONS, name=name, title=title)
        written.append(ACTIVATIONS)
    return written


def draw_answers(folder: Path, model: Network, samples: Samples, class_names: tuple[str, ...], title: str) -> None:
    """Write confusion.png and mistakes.png of a network on some samples."""
    outputs = np.concatenate([model.predict_proba(rows) for _, rows in in_blocks(samples.inputs)])
    probabilities = by_class(outputs)[:, : len(class_names)]
    predicted = Task.CLASSES.answers(outputs if outputs.shape[1] == 1 else probabilities)
    matrix = reports.confusion_matrix(samples.targets, predicted, len(class_names))
    reports.plot_confusion(matrix, class_names, folder / CONFUSION, title)
    reports.plot_mistakes(
        samples.inputs, samples.targets, probabilities, class_names, folder / MISTAKES, title=title, scale=samples.scale
    )
