"""Pictures of a training run: its curves, its confusion matrix, its worst mistakes."""

from gpunn.reports.confusion import confusion_matrix, plot_confusion
from gpunn.reports.curves import plot_curves
from gpunn.reports.mistakes import plot_mistakes

__all__ = ["confusion_matrix", "plot_confusion", "plot_curves", "plot_mistakes"]
