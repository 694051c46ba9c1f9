"""Draw a training run: curves, confusion matrix, mistakes, filters, feature maps, and learning rates."""

from gpunn.reports.filters import FeatureMaps as FeatureMaps
from gpunn.reports.filters import feature_maps as feature_maps
from gpunn.reports.filters import first_filters as first_filters
from gpunn.reports.filters import plot_activations as plot_activations
from gpunn.reports.filters import plot_filters as plot_filters
from gpunn.reports.learning_rates import LearningRateCurve as LearningRateCurve
from gpunn.reports.learning_rates import plot_learning_rates as plot_learning_rates
from gpunn.reports.predictions import confusion_matrix as confusion_matrix
from gpunn.reports.predictions import plot_confusion as plot_confusion
from gpunn.reports.predictions import plot_mistakes as plot_mistakes
from gpunn.train.curves import plot_curves as plot_curves
