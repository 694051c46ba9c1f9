"""The layers."""

from gpunn.layers.activation import Activation, LeakyReLU, ReLU, Sigmoid, Softmax, Softplus, Tanh
from gpunn.layers.base import BuildContext, Layer
from gpunn.layers.dense import Dense
from gpunn.layers.reshape import Flatten

__all__ = [
    "Activation",
    "BuildContext",
    "Dense",
    "Flatten",
    "Layer",
    "LeakyReLU",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]
