"""Conv2D: what it computes, N_out, both ways to make its products, its gradients, and shapes that cannot be."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.harness import one_line, relative_error
from support.image_strategies import Convolution, convolutions, convolve, places
from support.layer_helpers import Alone, assert_gradients, blocks_of

from gpunn import Conv2D, Dense, Flatten, ReLU, Sequential
from gpunn.backend import grouped_convolution as ways
from gpunn.backend.base import Backend
from gpunn.backend.convolution import PatchProducts, RowProducts
from gpunn.backend.convolution_shape import ConvolutionShape
from gpunn.backend.devices import select
from gpunn.backend.pointwise_convolution import PointProducts
from gpunn.errors import OptionError, ShapeError

BLOCKS = st.sampled_from([1, 50, 500, None])
"""Elements of a block: one row of the output at a time, some, and all of it."""
SMALL = st.sampled_from([None, 0, 9])
"""Channels times filters of a group that goes without products of matrices: as chosen, none, and all."""


def layer_of(made: Convolution, bias: float | bool = 0.5) -> Conv2D:
    return Conv2D(made.filters, made.size, made.stride, made.padding, bias=bias, groups=made.groups)


@contextmanager
def groups_up_to(small: int | None) -> Iterator[None]:
    """Groups of so many channels times filters go directly, larger ones by products; None leaves the choice."""
    with mock.patch.object(ways, "_small", return_value=small) if small is not None else nullcontext():
        yield


# What it computes


@settings(deadline=None, max_examples=150)
@given(made=convolutions(grouped=True), block=BLOCKS, small=SMALL)
def test_a_convolution_computes_its_equation(
    backend: Backend, made: Convolution, block: int | None, small: int | None
) -> None:
    rng = np.random.default_rng(made.seed)
    x = made.inputs(rng)
    with blocks_of(backend, block), groups_up_to(small):
        alone = Alone(layer_of(made), made.shape, backend).draw(rng)
    expected = convolve(x, alone.value("w"), alone.value("b"), made)
    y = alone.forward(x)
    assert y.shape == (made.n, *alone.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=80)
@given(made=convolutions(longest=5, grouped=True), block=BLOCKS, small=SMALL)
def test_back_propagation_through_a_convolution(
    backend: Backend, made: Convolution, block: int | None, small: int | None
) -> None:
    rng = np.random.default_rng(made.seed)
    with blocks_of(backend, block), groups_up_to(small):
        alone = Alone(layer_of(made), made.shape, backend).draw(rng)
    assert_gradients(alone, made.inputs(rng), rng, directions=3)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "shape"),
    [
        ((3, 3), (1, 1), "valid", (6, 6, 2)),
        ((3, 3), (1, 1), "same", (6, 5, 2)),
        ((2, 4), (1, 1), "same", (5, 5, 2)),  # of an odd number of zeros, more come after
        ((4, 2), (3, 2), "same", (7, 6, 1)),
        ((1, 1), (1, 1), "valid", (3, 4, 3)),
        ((1, 1), (2, 3), 0, (5, 7, 2)),
        ((1, 3), (1, 2), (0, 1), (4, 7, 2)),
        ((1, 2), (1, 4), (0, 1), (4, 7, 2)),  # padded on the left only: on the right the stride ends before the zeros
        ((3, 1), (2, 1), (1, 0), (7, 4, 2)),
        ((2, 2), (3, 4), "valid", (8, 9, 2)),  # stride above the size: some inputs are never seen
        ((5, 4), (1, 1), "valid", (5, 4, 2)),  # as large as the image
        ((5, 5), (1, 1), 2, (1, 1, 3)),  # larger than the image, not than the padded one
        ((2, 2), (1, 1), (4, 3), (3, 3, 1)),  # some places see nothing but zeros
    ],
)
def test_back_propagation_through_convolutions_of_every_kind(
    backend: Backend, size: Any, stride: Any, padding: Any, shape: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(0)
    made = Convolution(2, size, stride, padding, shape, 2, 0)
    for block in (None, 1):
        with blocks_of(backend, block):
            alone = Alone(layer_of(made), shape, backend).draw(rng)
        x = made.inputs(rng)
        np.testing.assert_allclose(
            alone.forward(x), convolve(x, alone.value("w"), alone.value("b"), made), rtol=1e-12, atol=1e-12
        )
        assert_gradients(alone, x, rng, directions=3 if block else None)


@pytest.mark.parametrize("n", [3, 1])  # a single image goes by patches where it is not padded
@pytest.mark.parametrize("padding", [1, 0])
def test_a_shorter_batch_sees_nothing_of_a_longer_one_before_it(backend: Backend, padding: int, n: int) -> None:
    rng = np.random.default_rng(0)
    long, short = rng.normal(size=(8, 6, 5, 2)), rng.normal(size=(n, 6, 5, 2))
    for size in ((3, 2), (1, 2)):
        used, fresh = (Alone(Conv2D(3, size, padding=padding), (6, 5, 2), backend) for _ in range(2))
        v = rng.normal(size=(8, *used.shape))
        used.forward(long)
        used.backward(v)
        results = []
        for alone in (used, fresh):
            results.append((alone.forward(short), alone.backward(v[:n]), alone.grad("w"), alone.grad("b")))
        for once, again in zip(*results, strict=True):
            np.testing.assert_array_equal(once, again)


def test_a_single_image_gets_what_it_gets_among_others(backend: Backend) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, 9, 8, 3))
    alone = Alone(Conv2D(4, (3, 5), stride=(2, 1)), (9, 8, 3), backend).draw(rng)
    v = rng.normal(size=(2, *alone.shape))
    both = alone.forward(x), alone.backward(v), alone.grad("w").copy(), alone.grad("b").copy()
    first, second = (
        (alone.forward(x[i : i + 1]), alone.backward(v[i : i + 1]), alone.grad("w").copy(), alone.grad("b").copy())
        for i in range(2)
    )
    for at in (0, 1):
        np.testing.assert_allclose(np.concatenate([first[at], second[at]]), both[at], rtol=1e-12, atol=1e-12)
    for at in (2, 3):
        np.testing.assert_allclose(first[at] + second[at], both[at], rtol=1e-12, atol=1e-12)


def test_a_filter_of_one_pixel_is_a_dense_layer_at_each_pixel(backend: Backend) -> None:
    rng = np.random.default_rng(1)
    x, v = rng.normal(size=(3, 4, 5, 6)), rng.normal(size=(3, 4, 5, 2))
    convolution = Alone(Conv2D(2, 1), (4, 5, 6), backend).draw(rng)
    dense = Alone(Dense(2), (6,), backend, capacity=60)
    dense.set(w=convolution.value("w").reshape(2, 6), b=convolution.value("b"))
    y = dense.forward(x.reshape(-1, 6))
    np.testing.assert_allclose(convolution.forward(x), y.reshape(3, 4, 5, 2), rtol=1e-13, atol=1e-13)
    dx = dense.backward(v.reshape(-1, 2))
    assert dx is not None
    np.testing.assert_allclose(convolution.backward(v), dx.reshape(x.shape), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(convolution.grad("w").reshape(2, 6), dense.grad("w"), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(convolution.grad("b"), dense.grad("b"), rtol=1e-12, atol=1e-12)


def test_a_filter_as_large_as_the_image_is_a_dense_layer_after_flatten(backend: Backend) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 4, 5, 2))
    convolution = Alone(Conv2D(7, (4, 5)), (4, 5, 2), backend).draw(rng)
    model = Sequential([Flatten(), Dense(7)]).build((4, 5, 2), 8, backend, "float64")
    model.parameters.load({"dense1.w": convolution.value("w").reshape(7, 40), "dense1.b": convolution.value("b")})
    expected = backend.to_host(model.forward(x))
    np.testing.assert_allclose(convolution.forward(x)[:, 0, 0], expected, rtol=1e-12, atol=1e-12)


def test_height_and_width_are_not_mixed_up(backend: Backend) -> None:
    """A filter of one row sees along rows."""
    image = np.zeros((1, 3, 4, 1))
    image[0, 1] = np.array([[1.0], [2.0], [3.0], [4.0]])
    alone = Alone(Conv2D(1, (1, 2), bias=False), (3, 4, 1), backend).set(w=[[[[1.0, 10.0]]]])
    np.testing.assert_array_equal(alone.forward(image)[0, :, :, 0], [[0, 0, 0], [21, 32, 43], [0, 0, 0]])


def test_the_first_layer_computes_no_gradient_of_its_input(backend: Backend) -> None:
    rng = np.random.default_rng(3)
    x, v = rng.normal(size=(2, 5, 5, 1)), rng.normal(size=(2, 3, 3, 2))
    first, later = (Alone(Conv2D(2, 3), (5, 5, 1), backend, first=first) for first in (True, False))
    for alone in (first, later):
        alone.forward(x)
    assert first.backward(v) is None
    assert later.backward(v) is not None
    np.testing.assert_array_equal(first.grad("w"), later.grad("w"))
    assert sum(first.context.buffer_bytes.values()) < sum(later.context.buffer_bytes.values())


# Groups


def test_groups_are_convolutions_of_their_own_side_by_side(backend: Backend) -> None:
    rng = np.random.default_rng(5)
    x, v = rng.normal(size=(3, 7, 6, 6)), rng.normal(size=(3, 4, 3, 4))
    for small in (0, 9):
        with groups_up_to(small):
            whole = Alone(Conv2D(4, 3, stride=2, padding=1, groups=2), (7, 6, 6), backend).draw(rng)
        y, dx = whole.forward(x), whole.backward(v)
        assert dx is not None
        for group in (0, 1):
            channels, filters = slice(3 * group, 3 * group + 3), slice(2 * group, 2 * group + 2)
            alone = Alone(Conv2D(2, 3, stride=2, padding=1), (7, 6, 3), backend)
            alone.set(w=whole.value("w")[filters], b=whole.value("b")[filters])
            np.testing.assert_allclose(y[..., filters], alone.forward(x[..., channels]), rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(dx[..., channels], alone.backward(v[..., filters]), rtol=1e-12, atol=1e-12)
            for word in "wb":
                np.testing.assert_allclose(whole.grad(word)[filters], alone.grad(word), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("small", [0, 9])
def test_a_shorter_batch_in_groups_sees_nothing_of_a_longer_one_before_it(backend: Backend, small: int) -> None:
    rng = np.random.default_rng(0)
    x, made = rng.normal(size=(8, 6, 5, 4)), []
    with groups_up_to(small):
        made += [Alone(Conv2D(4, 3, groups=groups), (6, 5, 4), backend) for groups in (2, 2, 4, 4)]
    for used, fresh in (made[:2], made[2:]):
        v = rng.normal(size=(8, *used.shape))
        used.forward(x)
        used.backward(v)
        for n in (3, 1):
            some = rng.normal(size=(n, 6, 5, 4))
            once, again = (
                (alone.forward(some), alone.backward(v[:n]), alone.grad("w"), alone.grad("b"))
                for alone in (used, fresh)
            )
            for one, other in zip(once, again, strict=True):
                np.testing.assert_array_equal(one, other)


def test_depthwise_is_a_group_for_each_channel(backend: Backend) -> None:
    model = Sequential([Conv2D(6, 3, groups="depthwise"), ReLU(), Conv2D(6, 2, groups="depthwise", bias=False)])
    model.build((5, 5, 3), 4, backend)
    assert {p.name: p.shape for p in model.parameters} == {
        "conv1.w": (6, 1, 3, 3), "conv1.b": (6,), "conv2.w": (6, 1, 2, 2),
    }  # fmt: skip


def test_weights_in_groups_begin_with_the_variance_for_the_inputs_of_their_group(backend: Backend) -> None:
    layers = [Conv2D(600, 5, groups=3), ReLU(), Conv2D(600, 5, groups=3)]
    model = Sequential(layers).build((9, 9, 12), 1, backend, "float64")
    w, bounded = (backend.to_host(p.value) for p in model.parameters if p.weight_decay)
    assert abs(w.std() / np.sqrt(2 / (4 * 25)) - 1) < 0.015  # He's
    limit = np.sqrt(6 / (200 * 25 + 200 * 25))
    assert 0.99 * limit < np.abs(bounded).max() <= limit  # Glorot's: an input feeds the filters of its group


def test_groups_go_the_direct_way_only_where_they_are_small() -> None:
    cpu, extent = select("cpu"), ConvolutionShape(64, (3, 3), (1, 1), (1, 1), 64, 8, 8, 8, 8, 4, 4)
    for groups, kind in ((64, ways.DirectProducts), (8, ways.GroupedProducts), (1, RowProducts)):
        products, _ = ways.products_of(cpu, extent, lambda shape: cpu.empty(shape, "float32"), True, groups)
        assert isinstance(products, kind)
    many, _ = ways.products_of(cpu, extent._replace(filters=3000, channels=3000), cpu.zeros, True, 1000)
    assert isinstance(many, ways.DirectProducts)


@pytest.mark.parametrize(
    ("layer", "channels", "words"),
    [
        (Conv2D(6, 3, groups=3), 4, "3 groups do not divide 4 channels"),
        (Conv2D(6, 3, groups="depthwise"), 4, "4 groups do not divide 6 filters"),
        (Conv2D(8, 3, groups=8), 4, "8 groups do not divide 4 channels"),
    ],
    ids=repr,
)
def test_groups_that_do_not_divide_are_refused(backend: Backend, layer: Conv2D, channels: int, words: str) -> None:
    with pytest.raises(ShapeError) as caught:
        Sequential([ReLU(), layer]).build((5, 5, channels), 4, backend)
    assert one_line(caught.value).startswith(f"conv1: {words}: take a divisor of {channels} and {layer.filters}")


# Two ways to make the products


def extent_of(made: Convolution, spare: int = 0) -> ConvolutionShape:
    (top, bottom), (left, right) = made.pads
    height, width, channels = made.shape
    rows = len(places(height + top + bottom, made.size[0], made.stride[0]))
    columns = len(places(width + left + right, made.size[1], made.stride[1]))
    sizes = made.filters, made.size, made.stride, (top, left), channels, height, width, rows, columns
    return ConvolutionShape(*sizes, made.n + spare, max(1, made.n + spare - 1))


def results_of(
    kind: Any, backend: Backend, extent: ConvolutionShape, arrays: tuple[NDArray[Any], ...]
) -> list[NDArray[Any]]:
    products = kind(backend, extent, lambda shape: backend.empty(shape, "float64"))
    w, x, delta = (backend.asarray(array) for array in arrays)
    w = w.reshape(extent.filters, -1)
    z = backend.asarray(np.full((extent.filters, extent.rows, extent.columns, x.shape[3]), np.nan))
    dw, dx = (backend.asarray(np.full(array.shape, np.nan)) for array in (w, x))
    products.forward(w, x, z)
    products.weight_gradient(x, delta, dw)
    products.input_gradient(w, delta, dx)
    return [backend.to_host(array) for array in (z, dw, dx)]


@settings(deadline=None, max_examples=150)
@given(made=convolutions(), blocks=st.tuples(BLOCKS, BLOCKS), spare=st.integers(0, 3))
def test_products_by_patches_and_by_rows_are_the_same(
    backend: Backend, made: Convolution, blocks: tuple[int | None, int | None], spare: int
) -> None:
    extent, rng = extent_of(made, spare), np.random.default_rng(made.seed)
    arrays = (
        rng.normal(size=(made.filters, extent.channels, *made.size)),
        rng.normal(size=(extent.channels, extent.height, extent.width, made.n)),
        rng.normal(size=(made.filters, extent.rows, extent.columns, made.n)),
    )
    cpu = select("cpu")
    with blocks_of(backend, blocks[0]):
        by_patches = results_of(PatchProducts, backend, extent, arrays)
    with blocks_of(cpu, blocks[1]):
        by_rows = results_of(RowProducts, cpu, extent, arrays)
    for patches, rows in zip(by_patches, by_rows, strict=True):
        np.testing.assert_allclose(rows, patches, rtol=1e-12, atol=1e-12)
    if made.size == (1, 1) and not any(extent.padding):
        for patches, points in zip(by_patches, results_of(PointProducts, cpu, extent, arrays), strict=True):
            np.testing.assert_allclose(points, patches, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [RowProducts, PointProducts])
def test_strided_products_do_without_the_forward_pass_of_the_images_before(kind: Any) -> None:
    """A transposed convolution asks for the gradient of images that no `forward` was of."""
    size = 1 if kind is PointProducts else 3
    extent = ConvolutionShape(2, (size, size), (2, 2), (0, 0), 3, 9, 9, 5 - size // 2, 5 - size // 2, 4, 4)
    cpu, rng = select("cpu"), np.random.default_rng(0)
    x, other = rng.normal(size=(2, 3, 9, 9, 4))
    delta, w = rng.normal(size=(2, extent.rows, extent.columns, 4)), rng.normal(size=(2, 3 * size * size))
    gradients = []
    for before in (x, other):
        products = kind(cpu, extent, lambda shape: cpu.zeros(shape, "float64"))
        products.forward(w, before, np.empty(delta.shape))
        products.weight_gradient(x, delta, gradient := np.empty(w.shape), is_turned=before is x)
        gradients.append(gradient)
    np.testing.assert_array_equal(*gradients)


def test_filters_of_one_pixel_go_by_points_where_nothing_is_padded() -> None:
    cpu, extent = select("cpu"), ConvolutionShape(4, (1, 1), (2, 2), (0, 0), 3, 8, 8, 4, 4, 2, 2)
    for padding, kind in (((0, 0), PointProducts), ((1, 0), PatchProducts)):
        products, _ = ways.products_of(cpu, extent._replace(padding=padding), lambda shape: cpu.empty(shape, "float32"))
        assert isinstance(products, kind)


def scratch_of(kind: Any, extent: ConvolutionShape, elements: int) -> int:
    cpu, taken = select("cpu"), []

    def scratch(shape: tuple[int, ...]) -> NDArray[Any]:
        taken.append(prod(shape))
        return np.empty(shape)

    with blocks_of(cpu, elements):
        kind(cpu, extent, scratch, *([False] if kind is RowProducts else []))
    return sum(taken)


def test_patches_go_by_blocks_that_are_no_larger_than_asked_for() -> None:
    extent = ConvolutionShape(4, (3, 3), (1, 1), (0, 0), 2, 20, 20, 18, 18, 4, 4)
    row = 2 * 9 * 18 * 4
    assert scratch_of(PatchProducts, extent, 1) == row  # a row of the output at least
    assert row < scratch_of(PatchProducts, extent, 5000) <= 5000
    assert scratch_of(PatchProducts, extent, 10**9) == 18 * row


@pytest.mark.parametrize(("channels", "pixels"), [(2, 3 * 18), (20, 20)])  # the filter's columns laid out, and not
def test_rows_go_by_blocks_that_are_little_larger_than_asked_for(channels: int, pixels: int) -> None:
    extent = ConvolutionShape(4, (3, 3), (1, 1), (0, 0), channels, 20, 20, 18, 18, 4, 4)
    row, weights = channels * pixels * 4, 4 * channels * 9
    seen_twice = 2 * row  # by the next block too
    assert scratch_of(RowProducts, extent, 1) == 4 * row + seen_twice + 2 * weights  # four rows at least
    assert scratch_of(RowProducts, extent, 8 * row) == 8 * row + seen_twice + (1 + 8) * weights
    assert scratch_of(RowProducts, extent, 10**9) == 18 * row + seen_twice + (1 + 8) * weights


# Shapes


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_n_out_is_the_number_of_places_for_the_filter(size: int, stride: int) -> None:
    """N_out = ⌊(N_in − F + 2P)/S⌋ + 1, as many as there are places wholly inside the padded image."""
    for length in range(1, 11):
        for pad in range(4):
            layer = Conv2D(2, (size, 1), (stride, 1), (pad, 0))
            count = len(places(length + 2 * pad, size, stride))
            if count:
                assert (length - size + 2 * pad) // stride + 1 == count
                assert layer.output_shape((length, 3, 1)) == (count, 3, 2)
                across = Conv2D(2, (1, size), (1, stride), (0, pad))
                assert across.output_shape((3, length, 1)) == (3, count, 2)
            else:
                with pytest.raises(ShapeError):
                    layer.output_shape((length, 3, 1))
        assert Conv2D(2, size, stride).output_shape((9, 9, 1)) == Conv2D(2, size, stride, 0).output_shape((9, 9, 1))


def test_padding_same_gives_the_size_over_the_stride_rounded_up() -> None:
    for length in range(1, 13):
        for size in range(1, 7):
            for stride in range(1, 6):
                shape = Conv2D(1, (size, 1), (stride, 1), "same").output_shape((length, 4, 1))
                assert shape == (-(-length // stride), 4, 1)


def test_with_padding_same_an_odd_zero_comes_after_the_image(backend: Backend) -> None:
    alone = Alone(Conv2D(1, 2, padding="same", bias=False), (2, 3, 1), backend).set(
        w=[[[[1.0, 10.0], [100.0, 1000.0]]]]
    )
    image = np.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(alone.forward(image)[0, :, :, 0], [[5421, 6532, 603], [54, 65, 6]])


def test_a_model_is_built_with_the_shapes_that_come_out(backend: Backend) -> None:
    model = Sequential([Conv2D(4, (3, 2), (2, 1)), ReLU(), Conv2D(3, 3, padding="same")])
    model.build((9, 7, 2), 4, backend)
    assert model.shapes == [(4, 6, 4), (4, 6, 4), (4, 6, 3)]
    assert {p.name: p.shape for p in model.parameters} == {
        "conv1.w": (4, 2, 3, 2), "conv1.b": (4,), "conv2.w": (3, 4, 3, 3), "conv2.b": (3,),
    }  # fmt: skip
    assert [p.name for p in model.parameters if p.weight_decay] == ["conv1.w", "conv2.w"]
    assert model.forward(np.zeros((2, 9, 7, 2))).shape == (2, 4, 6, 3)


def test_a_bias_is_one_constant_or_none(backend: Backend) -> None:
    np.testing.assert_array_equal(Alone(Conv2D(3, 2, bias=0.25), (4, 4, 1), backend).value("b"), np.full(3, 0.25))
    assert [p.name for p in Alone(Conv2D(3, 2, bias=False), (4, 4, 1), backend).parameters] == ["conv1.w"]


def test_weights_begin_with_the_variance_for_all_inputs_of_a_filter(backend: Backend) -> None:
    model = Sequential([Conv2D(200, 5), ReLU()]).build((5, 5, 12), 1, backend, "float64")
    w = backend.to_host(model.parameters["conv1.w"].value)
    assert abs(w.std() / np.sqrt(2 / (12 * 25)) - 1) < 0.015  # He's, five standard errors of 60,000 draws
    bounded = Sequential([Conv2D(200, 5)]).build((5, 5, 12), 1, backend, "float64").parameters["conv1.w"].value
    limit = np.sqrt(6 / (12 * 25 + 200 * 25))
    assert 0.99 * limit < np.abs(backend.to_host(bounded)).max() <= limit  # Glorot's, with both fans


def test_single_and_double_precision_agree(backend: Backend) -> None:
    rng = np.random.default_rng(4)
    x, v = rng.normal(size=(4, 9, 9, 3)), rng.normal(size=(4, 7, 7, 5))
    results = []
    for dtype in ("float32", "float64"):
        alone = Alone(Conv2D(5, 3), (9, 9, 3), backend, dtype=dtype)
        results.append([alone.forward(x), alone.backward(v), alone.grad("w"), alone.grad("b")])
    for single, double in zip(*results, strict=True):
        assert single.dtype == np.float32
        assert relative_error(single, double) < 1e-6


# Shapes and options that cannot be


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2D(2, 4), (3, 9, 1)),
        (Conv2D(2, (1, 4)), (9, 3, 1)),
        (Conv2D(2, 8, padding=2), (3, 9, 1)),
        (Conv2D(2, (3, 9), padding=(0, 2)), (3, 4, 1)),
    ],
    ids=repr,
)
def test_a_filter_larger_than_the_padded_image_is_refused(backend: Backend, layer: Conv2D, shape: Any) -> None:
    with pytest.raises(ShapeError) as caught:
        Sequential([ReLU(), layer]).build(shape, 4, backend)
    text = one_line(caught.value)
    assert text.startswith("conv1: ")
    for shown in (f"{layer.size[0]}×{layer.size[1]}", str(shape), "padding='same'"):
        assert shown in text


@pytest.mark.parametrize("before", [[Flatten()], [Flatten(), Dense(16)]], ids=len)
def test_a_convolution_of_features_is_refused(backend: Backend, before: list[Any]) -> None:
    with pytest.raises(ShapeError, match=r"^conv1: Conv2D expects \(height, width, channels\), got \(16,\)") as caught:
        Sequential([*before, Conv2D(2, 3)]).build((4, 4, 1), 4, backend)
    assert "before Flatten()" in one_line(caught.value)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"filters": 0}, "filters of Conv2D"),
        ({"filters": 2.5}, "filters of Conv2D"),
        ({"filters": 2, "size": 0}, "size of Conv2D"),
        ({"filters": 2, "size": (3, 0)}, "size of Conv2D"),
        ({"filters": 2, "size": (3, 3, 3)}, "size of Conv2D"),
        ({"filters": 2, "stride": 0}, "stride of Conv2D"),
        ({"filters": 2, "stride": (1, 0)}, "stride of Conv2D"),
        ({"filters": 2, "stride": -1}, "stride of Conv2D"),
        ({"filters": 2, "padding": -1}, "padding of Conv2D"),
        ({"filters": 2, "padding": (0, -1)}, "padding of Conv2D"),
        ({"filters": 2, "padding": 0.5}, "padding of Conv2D"),
        ({"filters": 2, "padding": "full"}, "padding of Conv2D must be 'valid', 'same' or a number, got 'full'"),
        ({"filters": 2, "groups": 0}, "groups of Conv2D"),
        ({"filters": 2, "groups": (1, 2)}, "groups of Conv2D"),
        ({"filters": 2, "groups": "channels"}, "groups of Conv2D must be a number or 'depthwise', got 'channels'"),
        ({"filters": 3, "groups": 2}, "filters of Conv2D must be a multiple of its 2 groups, got 3"),
    ],
    ids=repr,
)
def test_an_option_that_cannot_be_is_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(OptionError, match=what) as caught:
        Conv2D(**arguments)
    one_line(caught.value)
