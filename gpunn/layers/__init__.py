"""The layers."""

from gpunn.layers.activation import Activation, LeakyReLU, ReLU, Sigmoid, Softmax, Softplus, Tanh
from gpunn.layers.base import BuildContext, Layer
from gpunn.layers.batchnorm import BatchNorm
from gpunn.layers.bias import Bias, BiasActivation
from gpunn.layers.convolution import Conv2D
from gpunn.layers.dense import Dense
from gpunn.layers.dropout import Dropout
from gpunn.layers.pooling import AveragePool2D, MaxPool2D
from gpunn.layers.reshape import Flatten

__all__ = [
    "Activation",
    "AveragePool2D",
    "BatchNorm",
    "Bias",
    "BiasActivation",
    "BuildContext",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "LeakyReLU",
    "MaxPool2D",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]
