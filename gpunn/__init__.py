"""Neural networks trained straight from their equations, on CUDA through CuPy and on CPUs through NumPy."""

import gpunn.experiments.starting  # noqa: F401  # first: what follows takes its time

# isort: split
from gpunn.backend.limits import set_memory_limit
from gpunn.config import register
from gpunn.data import Data, Samples, load_data
from gpunn.data.augmentation import Augmentation
from gpunn.errors import GpunnError
from gpunn.nn.initializers import Glorot, He, Initializer, LeCun, Normal
from gpunn.nn.layers import (
    Activation,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from gpunn.nn.losses import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from gpunn.sequential import Sequential, load_model
from gpunn.train.evaluator import Evaluation
from gpunn.train.history import History
from gpunn.train.optimizers import SGD, Adam, Optimizer
from gpunn.train.record import Record
from gpunn.train.regularizers import L1, L2, Regularizer
from gpunn.train.schedules import Constant, Cosine, OneCycle, Schedule, StepDecay
from gpunn.version import __version__ as __version__

__all__ = [
    "L1",
    "L2",
    "SGD",
    "Activation",
    "Adam",
    "Augmentation",
    "AveragePool2D",
    "BatchNorm",
    "BinaryCrossEntropy",
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
    "LeakyReLU",
    "Loss",
    "MaxPool2D",
    "MeanSquaredError",
    "Normal",
    "OneCycle",
    "Optimizer",
    "ReLU",
    "Record",
    "Regularizer",
    "Samples",
    "Schedule",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "StepDecay",
    "Tanh",
    "load_data",
    "load_model",
    "register",
    "set_memory_limit",
]
