"""Neural networks trained straight from their equations, on CUDA through CuPy and on CPUs through NumPy."""

import gpunn.starting  # noqa: F401  # first: what follows takes its time

# isort: split
from gpunn.augmentation import Augmentation
from gpunn.config import register
from gpunn.data import Data, Samples, load_data
from gpunn.errors import GpunnError
from gpunn.evaluation import Evaluation
from gpunn.history import History, Record
from gpunn.initializers import Glorot, He, Initializer, LeCun, Normal
from gpunn.layers import (
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
from gpunn.limits import set_memory_limit
from gpunn.losses import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from gpunn.model import Sequential
from gpunn.model_file import load_model
from gpunn.optimizers import SGD, Adam, Optimizer
from gpunn.regularizers import L1, L2, Regularizer
from gpunn.schedules import Constant, Cosine, OneCycle, Schedule, StepDecay

__version__ = "0.1.0"

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
