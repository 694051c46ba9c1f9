"""ONNX operators as layers, each by a function of its own."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpunn.nn.layers import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from gpunn.saving.onnx.reading import Operator
from gpunn.saving.onnx.state import MOST_SIZE, State, numbers

Constants = list[NDArray[Any] | None]
Reader = Callable[[State, Operator, Constants], None]  # puts layers behind those of a state
Function = TypeVar("Function", bound=Reader)

READERS: dict[str, Reader] = {}


def reads(*kinds: str) -> Callable[[Function], Function]:
    """Let a function read operators."""

    def keep(reader: Function) -> Function:
        READERS.update(dict.fromkeys(kinds, reader))
        return reader

    return keep


PLAIN = {"Relu": ReLU, "Sigmoid": Sigmoid, "Tanh": Tanh, "Softplus": Softplus}


@reads(*PLAIN)
def _plain(state: State, node: Operator, _: Constants) -> None:
    state.add(node, PLAIN[node.kind]())


@reads("LeakyRelu")
def _leaky_relu(state: State, node: Operator, _: Constants) -> None:
    alpha = node.take("alpha", 0.01)
    if not alpha <= 1:
        raise node.refusal(f"alpha = {alpha:g}", "a slope for negative numbers is at most 1 here")
    state.add(node, LeakyReLU(alpha))


READERS["Identity"] = lambda *_: None


@reads("Dropout")
def _dropout(state: State, node: Operator, given: Constants) -> None:
    refuse_training(node)
    ratio = node.take("ratio", 0.5) if not given or given[0] is None else float(given[0].reshape(-1)[:1].sum())
    node.take("seed", 0)
    if 0 < ratio < 1:  # the identity now, and in a training that goes on what its author meant
        state.add(node, Dropout(ratio))
    if len(given) > 1 and given[1] is not None and given[1].any():
        raise node.refusal("training_mode = true", "export it for inference")


def refuse_training(node: Operator) -> None:
    """Refuse what opset 6 says of a node in a training."""
    if node.opset < 7 and not node.take("is_test", 0):
        raise node.refusal("is_test = 0", "export it for inference")


@reads("Softmax")
def _softmax(state: State, node: Operator, _: Constants) -> None:
    axis = node.take("axis", -1 if node.opset >= 13 else 1)
    if len(state.shape) != 1:
        raise node.refusal(f"an input {state.axes} of each sample", "Softmax is over the outputs of a sample here")
    if axis not in (1, -1):
        raise node.refusal(f"axis = {axis}", "expected 1, the outputs of a sample")
    state.add(node, Softmax())


@reads("Flatten")
def _flatten(state: State, node: Operator, _: Constants) -> None:
    axis = node.take("axis", 1)
    if axis not in (1, -len(state.axes)):
        raise node.refusal(f"axis = {axis}", "expected 1, a row for each sample")
    state.flatten(node, Flatten())


@reads("Reshape")
def _reshape(state: State, node: Operator, given: Constants) -> None:
    node.take("allowzero", 0)
    shape = [] if given[0] is None else given[0].reshape(-1).tolist()
    features = prod(state.shape)
    if len(shape) != 2 or shape[1] not in (-1, features) or (shape[0] > 0 and shape[1] == -1 and shape[0] != 1):
        raise node.refusal(f"shape = {shape}", f"expected [-1, {features}], a row for each sample")
    state.flatten(node, Flatten())


@reads("Gemm")
def _gemm(state: State, node: Operator, given: Constants) -> None:
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
def _matmul(state: State, node: Operator, given: Constants) -> None:
    _dense(state, node, numbers(node, given[0] if given else None, "its weights").T, 1.0)


def _dense(state: State, node: Operator, w: NDArray[Any], alpha: float) -> None:
    if len(state.shape) != 1:
        raise node.refusal(f"an input {state.axes} of each sample", "expected (features,): flatten it before")
    if w.ndim != 2 or not w.size or w.shape[1] != state.shape[0]:
        raise node.refusal(f"weights of {w.shape}", f"expected (units, {state.shape[0]})")
    w = state.ordered(w if alpha == 1 else w * np.asarray(alpha, w.dtype))
    state.add(node, Dense(len(w), bias=False), w=w)
    state.flat = None


def _add_bias(state: State, node: Operator, values: NDArray[Any]) -> None:
    units = state.shape[-1]
    if values.size not in (1, units) or values.shape[:-1] not in ((), (1,)):
        raise node.refusal(f"C of {values.shape}", f"expected one number for each of {units}")
    give_bias(state, np.broadcast_to(values.reshape(-1), (units,)))


def give_bias(state: State, values: NDArray[Any]) -> bool:
    """Give the last layer a bias, and tell whether that could be."""
    last = state.layers[-1] if state.layers else None
    if not isinstance(last, Dense | Conv2D) or last.bias is not False:
        return False
    last.bias = 0.0
    last.begins_with = {**last.begins_with, "b": np.ascontiguousarray(values, state.dtype)}
    return True


@reads("Conv")
def _convolution(state: State, node: Operator, given: Constants) -> None:
    state.need_channels_first(node)
    w = numbers(node, given[0] if given else None, "its weights")
    if w.ndim != 4 or not w.size:
        raise node.refusal(f"weights of {w.shape}", "expected (filters, channels, height, width)")
    size = tuple(w.shape[2:])
    if tuple(node.take("kernel_shape", list(size))) != size:
        raise node.refusal("kernel_shape", f"expected that of its weights, {list(size)}")
    refuse_dilations(node)
    groups, channels = node.take("group", 1), state.shape[2]
    if groups < 1 or w.shape[1] * groups != channels or len(w) % groups:
        raise node.refusal(f"group = {groups}, weights of {w.shape}", f"they do not fit {channels} channels")
    stride = pair_of(node, "strides", [1, 1])
    padding = padding_of(node, state, size, stride)
    layer = Conv2D(len(w), size, stride, padding, False, groups=groups)
    state.add(node, layer, w=w)
    if len(given) > 1 and given[1] is not None:
        b = numbers(node, given[1], "B")
        if b.shape != (len(w),):
            raise node.refusal(f"B of {b.shape}", f"expected ({len(w)},)")
        give_bias(state, b)


def refuse_dilations(node: Operator) -> None:
    """Refuse windows with gaps."""
    dilations = node.take("dilations", [1, 1])
    if any(each != 1 for each in dilations):
        raise node.refusal(f"dilations = {dilations}", "windows here have no gaps")


def pair_of(node: Operator, attribute: str, default: list[int]) -> tuple[int, int]:
    """Return two sizes of a window."""
    given = node.take(attribute, default)
    if len(given) != 2 or not all(isinstance(each, int) and 0 < each <= MOST_SIZE for each in given):
        raise node.refusal(f"{attribute} = {given!s:.40}", "expected two whole numbers above 0")
    return given[0], given[1]


def ends_of(node: Operator, state: State, size: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """Return the zeros before and after, down and across."""
    automatic, pads = node.take("auto_pad", "NOTSET"), node.take("pads", [0, 0, 0, 0])
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        ends = []
        for axis in (0, 1):
            total = max(0, (-(-state.shape[axis] // stride[axis]) - 1) * stride[axis] + size[axis] - state.shape[axis])
            less, more = total // 2, total - total // 2
            ends.append((less, more) if automatic == "SAME_UPPER" else (more, less))
        return ends
    if automatic not in ("NOTSET", "VALID", ""):
        raise node.refusal(f"auto_pad = {automatic:.40}", "expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    if automatic == "VALID":
        return [(0, 0), (0, 0)]
    if len(pads) != 4 or not all(isinstance(each, int) and 0 <= each <= MOST_SIZE for each in pads):
        raise node.refusal(f"pads = {pads!s:.40}", "expected four whole numbers")
    return [(pads[0], pads[2]), (pads[1], pads[3])]


def padding_of(node: Operator, state: State, size: Sequence[int], stride: Sequence[int]) -> str | tuple[int, int]:
    """Return the padding of a convolution that has these zeros."""
    ends = ends_of(node, state, size, stride)
    if ends == [(0, 0), (0, 0)]:
        return "valid"
    if all(before == after for before, after in ends):
        return ends[0][0], ends[1][0]
    same = []
    for axis in (0, 1):
        total = max(0, (-(-state.shape[axis] // stride[axis]) - 1) * stride[axis] + size[axis] - state.shape[axis])
        same.append((total // 2, total - total // 2))
    if ends == same:
        return "same"
    written = [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]
    raise node.refusal(f"pads = {written}", "zeros are alike on both sides here, or as in SAME_UPPER")


@reads("MaxPool", "AveragePool")
def _pool(state: State, node: Operator, _: Constants) -> None:
    state.need_channels_first(node)
    size, stride = pair_of(node, "kernel_shape", []), pair_of(node, "strides", [1, 1])
    refuse_dilations(node)
    node.take("count_include_pad", 0)
    if node.take("storage_order", 0) or len([name for name in node.outputs if name]) > 1:
        raise node.refusal("Indices", "gpunn gives no places of the largest")
    ends = ends_of(node, state, size, stride)
    rest = [(state.shape[axis] + sum(ends[axis]) - size[axis]) % stride[axis] for axis in (0, 1)]
    if any(map(any, ends)):
        raise node.refusal(f"pads = {ends}", "pooling is without padding here")
    if node.take("ceil_mode", 0) and any(rest):
        raise node.refusal("ceil_mode = 1", "windows here lie wholly inside")
    if node.kind == "MaxPool" and prod(size) > 256:
        raise node.refusal(f"kernel_shape = {list(size)}", "a window has at most 256 places here")
    state.add(node, (MaxPool2D if node.kind == "MaxPool" else AveragePool2D)(size, stride))


@reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(state: State, node: Operator, _: Constants) -> None:
    state.need_channels_first(node)
    size = state.shape[0], state.shape[1]
    if node.kind == "GlobalAveragePool":
        state.add(node, pool := AveragePool2D(size))
        state.whole = pool
        return
    if prod(size) > 256:
        raise node.refusal(f"images of {size}", "a window of MaxPool2D has at most 256 places")
    state.add(node, MaxPool2D(size))


@reads("BatchNormalization")
def _batch_norm(state: State, node: Operator, given: Constants) -> None:
    refuse_training(node)
    if node.take("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise node.refusal("training_mode = 1", "export it for inference")
    momentum, epsilon = node.take("momentum", 0.9), node.take("epsilon", 1e-5)
    if not node.take("spatial", 1):
        raise node.refusal("spatial = 0", "statistics are those of a channel here")
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
    state.add(node, BatchNorm(epsilon, share if 0 < share <= 1 else 0.1), **arrays)


@reads("LayerNormalization")
def _layer_norm(state: State, node: Operator, given: Constants) -> None:
    axis, epsilon = node.take("axis", -1), node.take("epsilon", 1e-5)
    node.take("stash_type", 1)
    if len([name for name in node.outputs if name]) > 1:
        raise node.refusal("its second output", "gpunn gives no means")
    last = len(state.axes)
    if axis not in (-1, last) or (len(state.shape) == 3 and not state.channels_last) or not epsilon > 0:
        raise node.refusal(f"axis = {axis}, epsilon = {epsilon:g}", "expected -1, features or channels that come last")
    gamma = state.ordered(numbers(node, given[0] if given else None, "Scale"))
    beta = given[1] if len(given) > 1 and given[1] is not None else np.zeros_like(gamma)
    if gamma.shape != (state.shape[-1],) or beta.shape != gamma.shape:
        raise node.refusal(f"Scale of {gamma.shape}", f"expected ({state.shape[-1]},)")
    state.add(node, LayerNorm(epsilon), gamma=gamma, beta=state.ordered(numbers(node, beta, "B")))


@reads("Transpose")
def _transpose(state: State, node: Operator, _: Constants) -> None:
    perm = tuple(node.take("perm", list(range(len(state.axes), -1, -1))))
    if len(state.shape) == 1:
        if perm == (0, 1):
            return
    elif perm == (0, 1, 2, 3):
        return
    elif perm == ((0, 3, 1, 2) if state.channels_last else (0, 2, 3, 1)):
        state.channels_last = not state.channels_last
        return
    raise node.refusal(f"perm = {list(perm)}", "expected one that turns images to channels first or last")


@reads("Squeeze")
def _squeeze(state: State, node: Operator, given: Constants) -> None:
    axes = node.take("axes", []) if not given or given[0] is None else given[0].reshape(-1).tolist()
    rank = len(state.axes) + 1
    if (
        len(state.shape) != 3
        or state.shape[:2] != (1, 1)
        or sorted(axis % rank for axis in axes) != ([1, 2] if state.channels_last else [2, 3])
    ):
        raise node.refusal(f"axes = {axes!s:.40}", "expected height and width, of images of one pixel")
    state.flatten(node, Flatten())


@reads("ReduceMean")
def _reduce_mean(state: State, node: Operator, given: Constants) -> None:
    axes = node.take("axes", []) if not given or given[0] is None else given[0].reshape(-1).tolist()
    keeps = node.take("keepdims", 1)
    node.take("noop_with_empty_axes", 0)
    if len(state.shape) != 3 or sorted(axis % 4 for axis in axes) != ([1, 2] if state.channels_last else [2, 3]):
        raise node.refusal(f"axes = {axes!s:.40}", "expected height and width")
    if keeps:
        state.add(node, pool := AveragePool2D((state.shape[0], state.shape[1])))
        state.whole = pool
    else:
        state.add(node, GlobalAveragePool2D())
        state.channels_last = False
