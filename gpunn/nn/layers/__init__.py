"""Collect the public layers."""

from gpunn.nn.layers import activation
from gpunn.nn.layers.activation import *  # noqa: F403  # so that only its own file names a new activation
from gpunn.nn.layers.base import Layer
from gpunn.nn.layers.batchnorm import BatchNorm
from gpunn.nn.layers.branches import Concatenate, Residual
from gpunn.nn.layers.chain import Chain
from gpunn.nn.layers.convolution import Conv2D
from gpunn.nn.layers.dense import Dense, Flatten
from gpunn.nn.layers.dropout import Dropout
from gpunn.nn.layers.embedding import Embedding
from gpunn.nn.layers.layernorm import LayerNorm
from gpunn.nn.layers.pooling import AveragePool2D, GlobalAveragePool2D, MaxPool2D
from gpunn.nn.layers.transposed import ConvTranspose2D

__all__ = ["AveragePool2D", "BatchNorm", "Conv2D", "Dense", "Dropout", "Flatten", "GlobalAveragePool2D", "Layer"]
__all__ += ["Chain", "Concatenate", "ConvTranspose2D", "Embedding", "LayerNorm", "MaxPool2D", "Residual"]
__all__ += activation.__all__
