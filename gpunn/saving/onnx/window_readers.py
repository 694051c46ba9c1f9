"""Read ONNX operators with windows as layers: convolution and pooling."""

from collections.abc import Sequence
from math import prod
from typing import Any

from numpy.typing import NDArray

from gpunn.nn.layers import AveragePool2D, Conv2D, ConvTranspose2D, Layer, MaxPool2D, windows
from gpunn.saving.onnx.operator_readers import Constants, give_bias, reads
from gpunn.saving.onnx.parsing import Operator
from gpunn.saving.onnx.reader_state import MOST_SIZE, ReaderState, make_layer, numbers


@reads("Conv")
def _convolution(state: ReaderState, node: Operator, given: Constants) -> None:
    state.need_channels_first(node)
    w = numbers(node, given[0] if given else None, "its weights")
    if w.ndim != 4 or not w.size:
        raise node.refusal(f"weights of {w.shape}", "expected (filters, channels, height, width)")
    size = _size_of(node, w)
    groups, channels = node.take("group", 1), state.shape[2]
    if groups < 1 or w.shape[1] * groups != channels or len(w) % groups:
        raise node.refusal(f"group = {groups}, weights of {w.shape}", f"they do not fit {channels} channels")
    stride = pair_of(node, "strides", [1, 1])
    padding, _ = padding_of(node, state, size, stride)
    state.add(node, Conv2D(len(w), size, stride, padding, False, groups=groups), w=w)
    _give_bias(state, node, given)


def _size_of(node: Operator, w: NDArray[Any]) -> tuple[int, int]:
    """Return height and width of a filter, as its weights have them; refuse others and dilated ones."""
    size = (w.shape[2], w.shape[3])
    if tuple(node.take("kernel_shape", list(size))) != size:
        raise node.refusal("kernel_shape", f"expected that of its weights, {list(size)}")
    refuse_dilations(node)
    return size


def _give_bias(state: ReaderState, node: Operator, given: Constants) -> None:
    if len(given) > 1 and given[1] is not None:
        b, filters = numbers(node, given[1], "B"), state.shape[2]
        if b.shape != (filters,):
            raise node.refusal(f"B of {b.shape}", f"expected ({filters},)")
        give_bias(state, b)


@reads("ConvTranspose")
def _transposed_convolution(state: ReaderState, node: Operator, given: Constants) -> None:
    state.need_channels_first(node)
    w = numbers(node, given[0] if given else None, "its weights")
    if w.ndim != 4 or not w.size or len(w) != state.shape[2]:
        raise node.refusal(f"weights of {w.shape}", f"expected ({state.shape[2]}, filters, height, width)")
    size, filters = _size_of(node, w), w.shape[1]
    if (groups := node.take("group", 1)) != 1:
        raise node.refusal(f"group = {groups}", "gpunn has no groups in transposed convolutions")
    for attribute in ("auto_pad", "output_shape"):
        if node.attributes.get(attribute, "NOTSET") not in ("NOTSET", "VALID"):
            raise node.refusal(attribute, "expected pads and output_padding")
    stride, added = pair_of(node, "strides", [1, 1]), node.take("output_padding", [0, 0])
    if len(added) != 2 or not all(isinstance(each, int) and 0 <= each <= MOST_SIZE for each in added):
        raise node.refusal(f"output_padding = {added!s:.40}", "expected two whole numbers")
    cut = pads_of(node, state, size, stride)
    same = ConvTranspose2D(filters, size, stride, "same", bias=False)
    made = [(state.shape[i] - 1) * stride[i] - sum(cut[i]) + size[i] + added[i] for i in (0, 1)]
    is_same = cut == list(same.pads(state.shape)) and made == [state.shape[i] * stride[i] for i in (0, 1)]
    layer: Layer = same
    if not is_same:
        if any(before != after for before, after in cut):
            raise node.refusal(f"pads = {cut}", "expected the same on both sides, or as in SAME_UPPER")
        even, more = (cut[0][0], cut[1][0]), (added[0], added[1])
        layer = make_layer(node, "its window", ConvTranspose2D, filters, size, stride, even, more, bias=False)
    state.add(node, layer, w=w)
    _give_bias(state, node, given)


def refuse_dilations(node: Operator) -> None:
    """Refuse dilated windows."""
    dilations = node.take("dilations", [1, 1])
    if any(each != 1 for each in dilations):
        raise node.refusal(f"dilations = {dilations}", "gpunn has no dilated windows")


def pair_of(node: Operator, attribute: str, default: list[int]) -> tuple[int, int]:
    """Return an attribute of height and width."""
    given = node.take(attribute, default)
    if len(given) != 2 or not all(isinstance(each, int) and 0 < each <= MOST_SIZE for each in given):
        raise node.refusal(f"{attribute} = {given!s:.40}", "expected two whole numbers above 0")
    return given[0], given[1]


def pads_of(node: Operator, state: ReaderState, size: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """Return the padding before and after, of rows and of columns."""
    automatic, pads = node.take("auto_pad", "NOTSET"), node.take("pads", [0, 0, 0, 0])
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        ends = [windows.axis_padding("same", axis, state.shape[axis], size[axis], stride[axis]) for axis in (0, 1)]
        return ends if automatic == "SAME_UPPER" else [(after, before) for before, after in ends]
    if automatic not in ("NOTSET", "VALID", ""):
        raise node.refusal(f"auto_pad = {automatic:.40}", "expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    if automatic == "VALID":
        return [(0, 0), (0, 0)]
    if len(pads) != 4 or not all(isinstance(each, int) and 0 <= each <= MOST_SIZE for each in pads):
        raise node.refusal(f"pads = {pads!s:.40}", "expected four whole numbers")
    return [(pads[0], pads[2]), (pads[1], pads[3])]


def padding_of(
    node: Operator, state: ReaderState, size: Sequence[int], stride: Sequence[int]
) -> tuple[str | tuple[int, int], list[tuple[int, int]]]:
    """Return the `padding` of a layer, and what it adds before and after."""
    ends = pads_of(node, state, size, stride)
    if ends == [(0, 0), (0, 0)]:
        return "valid", ends
    if all(before == after for before, after in ends):
        return (ends[0][0], ends[1][0]), ends
    if ends == [windows.axis_padding("same", axis, state.shape[axis], size[axis], stride[axis]) for axis in (0, 1)]:
        return "same", ends
    written = [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]
    raise node.refusal(f"pads = {written}", "expected the same on both sides, or as in SAME_UPPER")


@reads("MaxPool", "AveragePool")
def _pool(state: ReaderState, node: Operator, _: Constants) -> None:
    state.need_channels_first(node)
    size, stride = pair_of(node, "kernel_shape", []), pair_of(node, "strides", [1, 1])
    refuse_dilations(node)
    counts = bool(node.take("count_include_pad", 0))
    if node.take("storage_order", 0) or any(node.outputs[1:]):
        raise node.refusal("Indices", "gpunn has no indices of the maxima")
    padding, ends = padding_of(node, state, size, stride)
    rest = [(state.shape[axis] + sum(ends[axis]) - size[axis]) % stride[axis] for axis in (0, 1)]
    if node.take("ceil_mode", 0) and any(rest):
        raise node.refusal("ceil_mode = 1", "windows lie within the padded image here")
    if node.kind == "MaxPool":
        state.add(node, make_layer(node, "its window", MaxPool2D, size, stride, padding))
    else:
        state.add(node, make_layer(node, "its window", AveragePool2D, size, stride, padding, counts))


@reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(state: ReaderState, node: Operator, _: Constants) -> None:
    state.need_channels_first(node)
    size = state.shape[0], state.shape[1]
    if node.kind == "GlobalAveragePool":
        state.add(node, pool := AveragePool2D(size))
        state.whole = pool
        return
    if prod(size) > 256:
        raise node.refusal(f"images of {size}", "a window of MaxPool2D has at most 256 places")
    state.add(node, MaxPool2D(size))
