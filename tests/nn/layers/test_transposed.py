"""ConvTranspose2D: what it computes, its sizes, its gradients, Conv2D backwards, and shapes that cannot be."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.harness import one_line
from support.image_strategies import Transposed, convolve_transposed, transposed
from support.layer_helpers import Alone, assert_gradients, blocks_of

from gpunn import Conv2D, ConvTranspose2D, Dense, Flatten, ReLU, Sequential, check_gradients
from gpunn.backend.base import Backend
from gpunn.errors import OptionError, ShapeError

BLOCKS = st.sampled_from([1, 50, 500, None])


def layer_of(made: Transposed) -> ConvTranspose2D:
    return ConvTranspose2D(made.filters, made.size, made.stride, made.padding, made.output_padding, bias=0.5)


@settings(deadline=None, max_examples=150)
@given(made=transposed(), block=BLOCKS)
def test_a_transposed_convolution_computes_its_equation(backend: Backend, made: Transposed, block: int | None) -> None:
    rng = np.random.default_rng(made.seed)
    x = made.inputs(rng)
    with blocks_of(backend, block):
        alone = Alone(layer_of(made), made.shape, backend).draw(rng)
    y = alone.forward(x)
    assert y.shape == (made.n, *alone.shape)
    expected = convolve_transposed(x, alone.value("w"), alone.value("b"), made)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=80)
@given(made=transposed(longest=4), block=BLOCKS)
def test_back_propagation_through_a_transposed_convolution(
    backend: Backend, made: Transposed, block: int | None
) -> None:
    rng = np.random.default_rng(made.seed)
    with blocks_of(backend, block):
        alone = Alone(layer_of(made), made.shape, backend).draw(rng)
    assert_gradients(alone, made.inputs(rng), rng, directions=3)


@pytest.mark.parametrize("padding", [0, 1, "same"])
@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
def test_it_is_a_convolution_backwards(backend: Backend, stride: Any, padding: Any) -> None:
    """With one w, forward is the input gradient of Conv2D and backward its forward."""
    rng = np.random.default_rng(0)
    there = Alone(Conv2D(4, 3, stride, padding, bias=False), (6, 8, 2), backend).draw(rng)
    back = Alone(ConvTranspose2D(2, 3, stride, padding, bias=False), there.shape, backend)
    back.set(w=there.value("w"))
    x, v = rng.normal(size=(3, 6, 8, 2)), rng.normal(size=(3, *there.shape))
    y, dx = there.forward(x), there.backward(v)
    z = back.forward(v)
    assert dx is not None
    rows, columns = (min(sizes) for sizes in zip(z.shape[1:3], dx.shape[1:3], strict=True))
    np.testing.assert_allclose(z[:, :rows, :columns], dx[:, :rows, :columns], rtol=1e-12, atol=1e-12)
    if z.shape == dx.shape:
        np.testing.assert_allclose(back.backward(x), y, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(back.grad("w"), there.grad("w"), rtol=1e-12, atol=1e-12)


def test_each_pixel_lays_its_filter_down(backend: Backend) -> None:
    alone = Alone(ConvTranspose2D(1, (1, 2), (1, 3), bias=False), (1, 2, 1), backend).set(w=[[[[1.0, 10.0]]]])
    y = alone.forward(np.array([2.0, 3.0]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(y.ravel(), [2, 20, 0, 3, 30])


@pytest.mark.parametrize("block", [None, 1])
def test_the_first_layer_learns_without_a_gradient_of_its_input(backend: Backend, block: int | None) -> None:
    rng = np.random.default_rng(3)
    x, v = rng.normal(size=(2, 5, 5, 3)), rng.normal(size=(2, 11, 11, 2))
    with blocks_of(backend, block):
        layers = ConvTranspose2D(2, 3, 2), ConvTranspose2D(2, 3, 2)
        first, later = (
            Alone(layer, (5, 5, 3), backend, first=first) for layer, first in zip(layers, (True, False), strict=True)
        )
    for some in (slice(2), slice(1), slice(2)):
        for alone in (first, later):
            alone.forward(x[some])
        assert first.backward(v[some]) is None
        assert later.backward(v[some]) is not None
        np.testing.assert_array_equal(first.grad("w"), later.grad("w"))


def test_a_shorter_batch_sees_nothing_of_a_longer_one_before_it(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    used, fresh = (Alone(ConvTranspose2D(3, (3, 2), 2), (6, 5, 2), backend) for _ in range(2))
    v = rng.normal(size=(8, *used.shape))
    used.forward(rng.normal(size=(8, 6, 5, 2)))
    used.backward(v)
    for n in (3, 1):
        x = rng.normal(size=(n, 6, 5, 2))
        once, again = (
            (alone.forward(x), alone.backward(v[:n]), alone.grad("w"), alone.grad("b")) for alone in (used, fresh)
        )
        for one, other in zip(once, again, strict=True):
            np.testing.assert_array_equal(one, other)


# Sizes


def test_padding_same_multiplies_the_size_by_the_stride() -> None:
    for length in range(1, 6):
        for size in range(1, 7):
            for stride in range(1, 6):
                layer = ConvTranspose2D(1, (size, 1), (stride, 1), "same")
                assert layer.output_shape((length, 4, 1)) == (length * stride, 4, 1)


def test_rows_between_filters_have_no_gradient_and_take_no_memory() -> None:
    layer = ConvTranspose2D(2, 2, stride=(5, 3))
    check_gradients(layer, (3, 4, 2))
    check_gradients(Sequential([Conv2D(2, 1), Conv2D(2, 2, stride=(5, 3))]), (12, 9, 2))
    few, many = (
        Sequential([ConvTranspose2D(1, 2, stride=(stride, 1))]).build((1, 4, 2), 4, "cpu") for stride in (2, 2000)
    )
    assert few.buffer_bytes == many.buffer_bytes  # of one row of filters either way


def test_output_padding_makes_every_size_again_that_a_convolution_came_from() -> None:
    for length in range(3, 12):
        rows, _, _ = Conv2D(1, 3, stride=3, padding=1).output_shape((length, 3, 1))
        again = [
            ConvTranspose2D(1, 3, 3, 1, output_padding=(more, 0)).output_shape((rows, 1, 1))[0] for more in range(3)
        ]
        assert length in again
        assert again == list(range(again[0], again[0] + 3))


def test_a_network_that_makes_an_image_again(backend: Backend) -> None:
    layers = [Conv2D(4, 3, 2, padding="same"), ReLU(), ConvTranspose2D(3, 3, 2, padding="same"), Flatten(), Dense(2)]
    model = Sequential(layers).build((9, 6, 2), 4, backend)
    assert model.shapes[2] == (10, 6, 3)
    shapes = {p.name: p.shape for p in model.parameters}
    assert shapes["convtranspose1.w"] == (4, 3, 3, 3)
    assert shapes["convtranspose1.b"] == (3,)
    decayed = [p.name for p in model.parameters if p.weight_decay]
    assert decayed == ["conv1.w", "convtranspose1.w", "dense1.w"]
    assert model.forward(np.zeros((2, 9, 6, 2))).shape == (2, 2)


def test_weights_begin_with_the_variance_for_what_a_pixel_sums_over(backend: Backend) -> None:
    """Of a filter of 4×4 every second place, down and across, lies over a pixel: the variance stays."""
    model = Sequential([ConvTranspose2D(100, 4, 2, 1, weights="he")]).build((8, 8, 50), 8, backend, "float64")
    w = backend.to_host(model.parameters["convtranspose1.w"].value)
    assert abs(w.std() / np.sqrt(2 / (50 * 4)) - 1) < 0.015
    y = backend.to_host(model.forward(np.random.default_rng(0).normal(size=(8, 8, 8, 50))))
    assert abs(y[:, 2:-2, 2:-2].var() / 2 - 1) < 0.1
    gaps = Sequential([ConvTranspose2D(200, 1, 3, weights="lecun")]).build((2, 2, 300), 1, backend, "float64")
    assert abs(backend.to_host(gaps.parameters[0].value).std() * np.sqrt(300) - 1) < 0.015


# Shapes and options that cannot be


def test_padding_that_leaves_nothing_is_refused(backend: Backend) -> None:
    with pytest.raises(ShapeError) as caught:
        Sequential([ConvTranspose2D(2, 3, 1, padding=(0, 2))]).build((4, 2, 1), 4, backend)
    assert one_line(caught.value).startswith("convtranspose1: padding (0, 2) leaves nothing of (4, 2, 1)")


def test_a_transposed_convolution_of_features_is_refused(backend: Backend) -> None:
    with pytest.raises(ShapeError, match=r"^convtranspose1: ConvTranspose2D expects \(height, width") as caught:
        Sequential([Flatten(), ConvTranspose2D(2, 3)]).build((4, 4, 1), 4, backend)
    assert "before Flatten()" in one_line(caught.value)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"filters": 0}, "filters of ConvTranspose2D"),
        ({"size": (3, 0)}, "size of ConvTranspose2D"),
        ({"stride": 0}, "stride of ConvTranspose2D"),
        ({"padding": "full"}, "padding of ConvTranspose2D must be 'valid', 'same' or a number, got 'full'"),
        ({"output_padding": -1}, "output_padding of ConvTranspose2D"),
        ({"output_padding": 1}, "output_padding of ConvTranspose2D must be below stride"),
        ({"stride": (1, 2), "output_padding": 1}, "output_padding of ConvTranspose2D must be below stride"),
        ({"stride": 2, "padding": "same", "output_padding": 1}, "output_padding of ConvTranspose2D must be 0 with"),
    ],
    ids=repr,
)
def test_an_option_that_cannot_be_is_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(OptionError) as caught:
        ConvTranspose2D(**{"filters": 2, **arguments})
    assert one_line(caught.value).startswith(what)
