"""Read ONNX operators as layers, one function for each."""

from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpunn.nn import layers as nn
from gpunn.saving.onnx.parsing import Operator
from gpunn.saving.onnx.reader_state import ReaderState, numbers

Constants = list[NDArray[Any] | None]
Reader = Callable[[ReaderState, Operator, Constants], None]  # appends layers to a state
Function = TypeVar("Function", bound=Reader)

READERS: dict[str, Reader] = {}


def reads(*kinds: str) -> Callable[[Function], Function]:
    """Register a function as the reader of some operators."""

    def keep(reader: Function) -> Function:
        READERS.update(dict.fromkeys(kinds, reader))
        return reader

    return keep


PLAIN = {"Relu": nn.ReLU, "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh, "Softplus": nn.Softplus}


@reads(*PLAIN)
def _plain(state: ReaderState, node: Operator, _: Constants) -> None:
    state.add(node, PLAIN[node.kind]())


@reads("LeakyRelu")
def _leaky_relu(state: ReaderState, node: Operator, _: Constants) -> None:
    alpha = node.take("alpha", 0.01)
    if not alpha <= 1:
        raise node.refusal(f"alpha = {alpha:g}", "expected a slope of at most 1 for negative inputs")
    state.add(node, nn.LeakyReLU(alpha))


READERS["Identity"] = lambda *_: None


@reads("Dropout")
def _dropout(state: ReaderState, node: Operator, given: Constants) -> None:
    refuse_training(node)
    ratio = node.take("ratio", 0.5) if not given or given[0] is None else float(given[0].reshape(-1)[:1].sum())
    node.take("seed", 0)
    if 0 < ratio < 1:  # no effect on predictions, but on further training
        state.add(node, nn.Dropout(ratio))
    if len(given) > 1 and given[1] is not None and given[1].any():
        raise node.refusal("training_mode = true", "export it for inference")


def refuse_training(node: Operator) -> None:
    """Refuse a node of opset 6 in training mode."""
    if node.opset < 7 and not node.take("is_test", 0):
        raise node.refusal("is_test = 0", "export it for inference")


@reads("Softmax")
def _softmax(state: ReaderState, node: Operator, _: Constants) -> None:
    axis = node.take("axis", -1 if node.opset >= 13 else 1)
    if len(state.shape) != 1:
        raise node.refusal(f"an input {state.axes} of each sample", "expected the outputs of a sample, (features,)")
    if axis not in (1, -1):
        raise node.refusal(f"axis = {axis}", "expected 1, the outputs of a sample")
    state.add(node, nn.Softmax())


@reads("Flatten")
def _flatten(state: ReaderState, node: Operator, _: Constants) -> None:
    axis = node.take("axis", 1)
    if axis not in (1, -len(state.axes)):
        raise node.refusal(f"axis = {axis}", "expected 1, a row for each sample")
    state.flatten(node, nn.Flatten())


@reads("Reshape")
def _reshape(state: ReaderState, node: Operator, given: Constants) -> None:
    node.take("allowzero", 0)
    shape = [] if not given or given[0] is None else given[0].reshape(-1).tolist()
    features = prod(state.shape)
    if len(shape) != 2 or shape[1] not in (-1, features) or (shape[0] > 0 and shape[1] == -1 and shape[0] != 1):
        raise node.refusal(f"shape = {shape}", f"expected [-1, {features}], a row for each sample")
    state.flatten(node, nn.Flatten())


@reads("Gemm")
def _gemm(state: ReaderState, node: Operator, given: Constants) -> None:
    if node.opset < 7:
        node.take("broadcast", 0)
    if node.take("transA", 0):
        raise node.refusal("transA = 1", "samples come first")
    w, alpha = numbers(node, given[0] if given else None, "its weights"), node.take("alpha", 1.0)
    _dense(state, node, w if node.take("transB", 0) else w.T, alpha)
    if len(given) > 1 and given[1] is not None:
        _add_bias(state, node, numbers(node, given[1], "C") * node.take("beta", 1.0))
    node.take("beta", 1.0)


@reads("MatMul")
def _matmul(state: ReaderState, node: Operator, given: Constants) -> None:
    _dense(state, node, numbers(node, given[0] if given else None, "its weights").T, 1.0)


def _dense(state: ReaderState, node: Operator, w: NDArray[Any], alpha: float) -> None:
    if len(state.shape) != 1:
        raise node.refusal(f"an input {state.axes} of each sample", "expected (features,): flatten it before")
    if w.ndim != 2 or not w.size or w.shape[1] != state.shape[0]:
        raise node.refusal(f"weights of {w.shape}", f"expected (units, {state.shape[0]})")
    w = state.ordered(w if alpha == 1 else w * np.asarray(alpha, w.dtype))
    state.add(node, nn.Dense(len(w), bias=False), w=w)
    state.flat = None


def _add_bias(state: ReaderState, node: Operator, values: NDArray[Any]) -> None:
    units = state.shape[-1]
    if values.size not in (1, units) or values.shape[:-1] not in ((), (1,)):
        raise node.refusal(f"C of {values.shape}", f"expected one number for each of {units}")
    give_bias(state, np.broadcast_to(values.reshape(-1), (units,)))


def give_bias(state: ReaderState, values: NDArray[Any]) -> bool:
    """Set the bias of the last layer; return whether it could take one."""
    last = state.layers[-1] if state.layers else None
    if not isinstance(last, nn.Dense | nn.Conv2D | nn.ConvTranspose2D) or last.bias is not False:
        return False
    last.bias = 0.0
    last.begins_with = {**last.begins_with, "b": np.ascontiguousarray(values, state.dtype)}
    return True


@reads("BatchNormalization")
def _batch_norm(state: ReaderState, node: Operator, given: Constants) -> None:
    refuse_training(node)
    if node.take("training_mode", 0) or any(node.outputs[1:]):
        raise node.refusal("training_mode = 1", "export it for inference")
    momentum, epsilon = node.take("momentum", 0.9), node.take("epsilon", 1e-5)
    if not node.take("spatial", 1):
        raise node.refusal("spatial = 0", "expected statistics per channel")
    if state.channels_last and len(state.shape) == 3:
        state.need_channels_first(node)
    channels, words = state.shape[-1], ("gamma", "beta", "mean", "variance")
    if len(given) != 4 or not 0 < epsilon < 1e30:
        raise node.refusal(f"epsilon = {epsilon:g}, {len(given) + 1} inputs", "expected five, and epsilon above 0")
    arrays = {}
    for word, values in zip(words, given, strict=True):
        arrays[word] = state.ordered(numbers(node, values, word))
        if arrays[word].shape != (channels,):
            raise node.refusal(f"{word} of {arrays[word].shape}", f"expected ({channels},)")
    share = round(1 - momentum, 9)
    state.add(node, nn.BatchNorm(epsilon, share if 0 < share <= 1 else 0.1), **arrays)


@reads("LayerNormalization")
def _layer_norm(state: ReaderState, node: Operator, given: Constants) -> None:
    axis, epsilon = node.take("axis", -1), node.take("epsilon", 1e-5)
    node.take("stash_type", 1)
    if any(node.outputs[1:]):
        raise node.refusal("its second output", "gpunn has no mean as an output")
    last = len(state.axes)
    if axis not in (-1, last) or (len(state.shape) == 3 and not state.channels_last) or not epsilon > 0:
        raise node.refusal(f"axis = {axis}, epsilon = {epsilon:g}", "expected -1, the axis of features or channels")
    gamma = state.ordered(numbers(node, given[0] if given else None, "Scale"))
    beta = given[1] if len(given) > 1 and given[1] is not None else np.zeros_like(gamma)
    if gamma.shape != (state.shape[-1],) or beta.shape != gamma.shape:
        raise node.refusal(f"Scale of {gamma.shape}", f"expected ({state.shape[-1]},)")
    state.add(node, nn.LayerNorm(epsilon), gamma=gamma, beta=state.ordered(numbers(node, beta, "B")))


@reads("Transpose")
def _transpose(state: ReaderState, node: Operator, _: Constants) -> None:
    perm = tuple(node.take("perm", list(range(len(state.axes), -1, -1))))
    turned: tuple[int, ...] = (0, 3, 1, 2) if state.channels_last else (0, 2, 3, 1)
    turned = (0, 2, 1) if state.is_row else turned
    if perm == tuple(range(len(state.axes) + 1)):
        return
    if len(state.shape) == 3 and perm == turned:
        state.channels_last = not state.channels_last
        return
    raise node.refusal(f"perm = {list(perm)}", "expected one that turns images to channels first or last")


@reads("Squeeze")
def _squeeze(state: ReaderState, node: Operator, given: Constants) -> None:
    axes = node.take("axes", []) if not given or given[0] is None else given[0].reshape(-1).tolist()
    rank = len(state.axes) + 1
    if (
        len(state.shape) != 3
        or state.shape[:2] != (1, 1)
        or sorted(axis % rank for axis in axes) != ([1, 2] if state.channels_last else [2, 3])
    ):
        raise node.refusal(f"axes = {axes!s:.40}", "expected height and width, of images of one pixel")
    state.flatten(node, nn.Flatten())


@reads("ReduceMean")
def _reduce_mean(state: ReaderState, node: Operator, given: Constants) -> None:
    axes = axes_of(node, given)
    keeps, rank = node.take("keepdims", 1), len(state.axes) + 1
    node.take("noop_with_empty_axes", 0)
    places = list(range(1, rank - 1)) if state.channels_last else list(range(2, rank))
    if len(state.shape) != 3 or sorted(axis % rank for axis in axes) != places:
        raise node.refusal(f"axes = {axes!s:.40}", "expected height and width")
    if keeps:
        state.add(node, pool := nn.AveragePool2D((state.shape[0], state.shape[1])))
        state.whole = pool
    else:
        state.add(node, nn.GlobalAveragePool2D())
        state.channels_last = state.is_row = False


def axes_of(node: Operator, given: Constants) -> list[int]:
    """Return the axes of a node, an attribute or an input."""
    values = given[0] if given else None
    return [int(axis) for axis in (node.take("axes", []) if values is None else values.reshape(-1).tolist())]


@reads("Unsqueeze")
def _unsqueeze(state: ReaderState, node: Operator, given: Constants) -> None:
    axes = axes_of(node, given)
    if not state.is_row or [axis % 4 for axis in axes] != [1 if state.channels_last else 2]:
        raise node.refusal(f"axes = {axes!s:.40}", "expected the height of rows of embedded tokens")
    state.is_row = False


def read_embedding(state: ReaderState, node: Operator, w: NDArray[Any] | None) -> None:
    """Read a Gather of rows by tokens as an Embedding."""
    w = numbers(node, w, "its table")
    if node.take("axis", 0) != 0 or w.ndim != 2 or not w.size or state.layers or len(state.shape) != 1:
        raise node.refusal(f"a table of {w.shape}", "expected (tokens, features), axis 0, and tokens from the input")
    state.add(node, nn.Embedding(*w.shape), w=w)
    state.channels_last = state.is_row = True
