"""Train neural networks straight from their equations, on CUDA through CuPy and on CPUs through NumPy."""

import gpunn.cli.early_interrupt  # noqa: F401  # first: the other imports are slow

# isort: split
# The file of each family lists its parts, in `__all__`.
from gpunn.backend.limits import set_memory_limit
from gpunn.config import register
from gpunn.data import Data, Samples, load_data
from gpunn.data.augmentation import Augmentation
from gpunn.data.formats.registry import register_format
from gpunn.errors import GpunnError
from gpunn.nn import equations, initializers, layers, losses  # noqa: F401  # registers the parts that files name
from gpunn.nn.gradients import GradientCheck, GradientError, check_gradients
from gpunn.nn.initializers import *  # noqa: F403
from gpunn.nn.layers import *  # noqa: F403
from gpunn.nn.layers.activation import *  # noqa: F403  # again, for mypy
from gpunn.nn.losses import *  # noqa: F403
from gpunn.reports import plots
from gpunn.reports.plots import *  # noqa: F403
from gpunn.reports.tensorboard import TensorBoard
from gpunn.saving.checkpointer import Checkpointer
from gpunn.saving.state_dict import load_state_dict
from gpunn.sequential import Sequential, load_model, load_onnx
from gpunn.train import optimizers, schedules
from gpunn.train.callbacks import Callback, StopTraining, TrainingView
from gpunn.train.custom_metrics import Metric
from gpunn.train.evaluator import Evaluation
from gpunn.train.history import History
from gpunn.train.optimizers import *  # noqa: F403
from gpunn.train.outputs_report import MultilabelReport, RegressionReport
from gpunn.train.progress import ProgressBar
from gpunn.train.record import Record
from gpunn.train.report import ClassificationReport
from gpunn.train.schedules import *  # noqa: F403
from gpunn.train.stopping import EarlyStopping, OverfittingDetector
from gpunn.version import __version__ as __version__

__all__ = ["Augmentation", "Data", "Evaluation", "GpunnError", "History", "Record", "Samples", "Sequential"]
__all__ += ["ClassificationReport", "MultilabelReport", "RegressionReport"]
__all__ += ["load_data", "load_model", "load_onnx", "load_state_dict", "register", "register_format"]
__all__ += ["set_memory_limit"]
__all__ += ["Callback", "Checkpointer", "EarlyStopping", "OverfittingDetector", "ProgressBar", "StopTraining"]
__all__ += ["TensorBoard", "TrainingView"]
__all__ += ["GradientCheck", "GradientError", "Metric", "check_gradients"]
__all__ += initializers.__all__
__all__ += layers.__all__
__all__ += losses.__all__
__all__ += optimizers.__all__
__all__ += schedules.__all__
__all__ += plots.__all__


def __getattr__(name: str) -> object:
    """Import `gpunn.sklearn` at its first use: scikit-learn imports more slowly than all of gpunn."""
    if name != "sklearn":
        raise AttributeError(f"module 'gpunn' has no attribute {name!r}")
    from importlib import import_module

    return import_module("gpunn.sklearn")


def __dir__() -> list[str]:
    """List the public names, without modules."""
    return sorted({"__version__", *__all__})
