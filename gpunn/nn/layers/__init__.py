"""The layers."""

from gpunn.nn.layers.activation import Activation, LeakyReLU, ReLU, Sigmoid, Softmax, Softplus, Tanh
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.nn.layers.batchnorm import BatchNorm
from gpunn.nn.layers.bias import Bias, BiasActivation
from gpunn.nn.layers.convolution import Conv2D
from gpunn.nn.layers.dense import Dense
from gpunn.nn.layers.dropout import Dropout
from gpunn.nn.layers.pooling import AveragePool2D, MaxPool2D
from gpunn.nn.layers.reshape import Flatten

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
