"""Pictures of a training run: curves, confusion matrix, mistakes, filters and what they answer."""

from gpunn.reports.activations import Answers, answers_to, plot_activations
from gpunn.reports.confusion import confusion_matrix, plot_confusion
from gpunn.reports.curves import plot_curves
from gpunn.reports.filters import first_filters, plot_filters
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
