"""Neural networks trained straight from their equations, on CUDA through CuPy and on CPUs through NumPy."""

import gpunn.starting  # noqa: F401  # first: what follows takes its time

# isort: split
from gpunn.augmentation import Augmentation
from gpunn.data import Data, Samples, load_data
from gpunn.errors import GpunnError
from gpunn.evaluation import Evaluation
from gpunn.history import History, Record
from gpunn.initializers import Glorot, He, LeCun, Normal
from gpunn.layers import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from gpunn.limits import set_memory_limit
from gpunn.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from gpunn.model import Sequential
from gpunn.model_file import load_model
from gpunn.optimizers import SGD, Adam
from gpunn.regularizers import L1, L2
from gpunn.schedules import Constant, Cosine, OneCycle, StepDecay

__version__ = "0.1.0"

__all__ = [
    "L1",
    "L2",
    "SGD",
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
    "LeCun",
    "LeakyReLU",
    "MaxPool2D",
    "MeanSquaredError",
    "Normal",
    "OneCycle",
    "ReLU",
    "Record",
    "Samples",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "StepDecay",
    "Tanh",
    "load_data",
    "load_model",
    "set_memory_limit",
]
