"""Pictures of a training run: curves, confusion matrix, mistakes, filters and their answers."""

from gpunn.reports.confusion import confusion_matrix, plot_confusion
from gpunn.reports.curves import plot_curves
from gpunn.reports.filters import Answers, answers_to, first_filters, plot_activations, plot_filters
from gpunn.reports.mistakes import plot_mistakes

__all__ = [
    "Answers",
    "answers_to",
    "confusion_matrix",
    "first_filters",
    "plot_activations",
    "plot_confusion",
    "plot_curves",
    "plot_filters",
    "plot_mistakes",
]
