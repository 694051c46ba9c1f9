"""Neural networks trained straight from their equations, on CUDA through CuPy and on CPUs through NumPy."""

import gpunn.experiments.starting  # noqa: F401  # first: what follows takes its time

# isort: split
from gpunn.backend.limits import set_memory_limit
from gpunn.config import register
from gpunn.data import Data, Samples, load_data
from gpunn.data.augmentation import Augmentation
from gpunn.errors import GpunnError
from gpunn.nn import losses as _losses
from gpunn.nn.initializers import Glorot, He, Initializer, LeCun, Normal
from gpunn.nn.layers import AveragePool2D, BatchNorm, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D
from gpunn.nn.layers import activation as _activations
from gpunn.nn.layers.activation import *  # noqa: F403  # a new one is named in its own file alone; losses likewise
from gpunn.nn.losses import *  # noqa: F403
from gpunn.sequential import Sequential, load_model
from gpunn.train import optimizers as _optimizers
from gpunn.train.evaluator import Evaluation
from gpunn.train.history import History
from gpunn.train.optimizers import *  # noqa: F403
from gpunn.train.record import Record
from gpunn.train.regularizers import L1, L2, Regularizer
from gpunn.train.schedules import Constant, Cosine, OneCycle, Schedule, StepDecay
from gpunn.version import __version__ as __version__

__all__ = [
    "L1",
    "L2",
    "Augmentation",
    "AveragePool2D",
    "BatchNorm",
    "Constant",
    "Conv2D",
    "Cosine",
    "Data",
    "Dense",
    "Dropout",
    "Evaluation",
    "Flatten",
    "Glorot",
    "GpunnError",
    "He",
    "History",
    "Initializer",
    "Layer",
    "LeCun",
    "MaxPool2D",
    "Normal",
    "OneCycle",
    "Record",
    "Regularizer",
    "Samples",
    "Schedule",
    "Sequential",
    "StepDecay",
    "load_data",
    "load_model",
    "register",
    "set_memory_limit",
]
__all__ += _activations.__all__
__all__ += _losses.__all__
__all__ += _optimizers.__all__
