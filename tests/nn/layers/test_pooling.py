"""MaxPool2D and AveragePool2D: what they compute, N_out, where gradients go, and windows that cannot be."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.harness import call, one_line
from support.image_strategies import Pooling, as_image, places, poolings, windows
from support.layer_helpers import Alone, assert_gradients

from gpunn import AveragePool2D, Conv2D, Dense, Flatten, GlobalAveragePool2D, MaxPool2D, Sequential
from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels import cores as threads
from gpunn.kernels import pooling as kernels

BOTH = [MaxPool2D, AveragePool2D]
REDUCTION = {MaxPool2D: np.nanmax, AveragePool2D: np.nanmean}


def pooled(x: np.ndarray, size: tuple[int, int], stride: tuple[int, int], kind: type[Any]) -> np.ndarray:
    """Every window by itself, from the definition; padding is NaN in x."""
    return as_image({(i, j): REDUCTION[kind](seen, axis=(1, 2)) for i, j, seen in windows(x, size, stride)})


def surrounded(x: np.ndarray, pads: Any, value: float = np.nan) -> np.ndarray:
    return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


# What they compute


@settings(deadline=None, max_examples=100)
@given(made=poolings(padded=True), below=st.sampled_from([0, 1000]))
@pytest.mark.parametrize("kind", BOTH)
def test_pooling_computes_its_definition(backend: Backend, kind: type[Any], made: Pooling, below: float) -> None:
    """Also of numbers that are all below the zeros that padding could be."""
    x = made.inputs(np.random.default_rng(made.seed)) - below
    alone = Alone(kind(made.size, made.stride, made.padding), made.shape, backend)
    y = alone.forward(x)
    assert y.shape == (made.n, *alone.shape)
    np.testing.assert_allclose(y, pooled(surrounded(x, made.pads), made.size, made.stride, kind), rtol=1e-14)


@settings(deadline=None, max_examples=60)
@given(made=poolings(longest=6, padded=True))
@pytest.mark.parametrize("kind", BOTH)
def test_back_propagation_through_pooling(backend: Backend, kind: type[Any], made: Pooling) -> None:
    rng = np.random.default_rng(made.seed)
    alone = Alone(kind(made.size, made.stride, made.padding), made.shape, backend)
    assert_gradients(alone, made.inputs(rng), rng, directions=3)


@settings(deadline=None, max_examples=60)
@given(made=poolings(longest=6, padded=True))
def test_an_average_of_padding_too_counts_it_as_zeros(backend: Backend, made: Pooling) -> None:
    rng = np.random.default_rng(made.seed)
    x = made.inputs(rng)
    layer = AveragePool2D(made.size, made.stride, made.padding, count_include_pad=True)
    alone = Alone(layer, made.shape, backend)
    expected = pooled(surrounded(x, made.pads, 0.0), made.size, made.stride, AveragePool2D)
    np.testing.assert_allclose(alone.forward(x), expected, rtol=1e-13, atol=1e-14)
    assert_gradients(alone, x, rng, directions=3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_is_below_even_minus_infinity(backend: Backend, dtype: str) -> None:
    """The gradient goes to a pixel, never to a place outside."""
    alone = Alone(MaxPool2D(3, 2, padding=2), (3, 4, 1), backend, dtype=dtype)
    y = alone.forward(np.full((1, 3, 4, 1), -np.inf))
    assert (y == -np.inf).all()
    v = np.arange(1.0, 1 + y.size).reshape(y.shape)
    dx = alone.backward(v)
    assert dx is not None
    assert dx.sum() == v.sum()
    assert dx[0, 0, 0, 0] == sum(v[0, i, j, 0] for i in (0, 1) for j in (0, 1))


def test_padding_is_seen_by_its_shape_alone(backend: Backend) -> None:
    image = -np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    largest, mean = (Alone(kind(2, padding=1), (3, 3, 1), backend).forward(image)[0, :, :, 0] for kind in BOTH)
    np.testing.assert_array_equal(largest, [[-1, -2], [-4, -5]])
    np.testing.assert_array_equal(mean, [[-1, -2.5], [-5.5, -7]])
    faded = Alone(AveragePool2D(2, padding=1, count_include_pad=True), (3, 3, 1), backend).forward(image)
    np.testing.assert_array_equal(faded[0, :, :, 0], [[-0.25, -1.25], [-2.75, -7]])


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("size", "stride", "shape"),
    [
        ((2, 2), (2, 2), (6, 6, 2)),
        ((2, 2), (2, 2), (7, 5, 2)),  # a row and a column are left over
        ((3, 3), (2, 2), (8, 7, 2)),  # overlapping
        ((3, 3), (2, 2), (6, 6, 1)),  # overlapping, with as many places as the image has pixels
        ((3, 2), (1, 1), (5, 6, 1)),
        ((2, 2), (3, 4), (8, 9, 2)),  # gaps between
        ((3, 1), (2, 3), (7, 7, 1)),  # overlapping down, gaps across
        ((5, 4), (1, 1), (5, 4, 2)),  # the whole image
        ((1, 1), (1, 1), (3, 3, 2)),
        ((1, 1), (2, 2), (2, 4, 1)),
    ],
)
def test_pooling_of_every_kind_and_back(backend: Backend, kind: type[Any], size: Any, stride: Any, shape: Any) -> None:
    rng = np.random.default_rng(0)
    x = Pooling(size, stride, shape, 3, 0).inputs(rng)
    alone = Alone(kind(size, stride), shape, backend)
    np.testing.assert_allclose(alone.forward(x), pooled(x, size, stride, kind), rtol=1e-14)
    assert_gradients(alone, x, rng)


@pytest.mark.parametrize("kind", BOTH)
def test_windows_lie_side_by_side_where_no_stride_is_given(backend: Backend, kind: type[Any]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 1))
    left_out, given = (Alone(layer, (6, 8, 1), backend) for layer in (kind((3, 2)), kind((3, 2), (3, 2))))
    np.testing.assert_array_equal(left_out.forward(x), given.forward(x))
    assert (kind().size, kind().stride) == ((2, 2), (2, 2))


@pytest.mark.parametrize("kind", BOTH)
def test_a_shorter_batch_sees_nothing_of_a_longer_one_before_it(backend: Backend, kind: type[Any]) -> None:
    rng = np.random.default_rng(0)
    used, fresh = (Alone(kind(2, 3), (9, 8, 2), backend) for _ in range(2))
    v = rng.normal(size=(8, *used.shape))
    used.forward(rng.normal(size=(8, 9, 8, 2)))
    used.backward(v)
    x = rng.normal(size=(3, 9, 8, 2))
    for alone in (used, fresh):
        alone.forward(x)
    np.testing.assert_array_equal(used.backward(v[:3]), fresh.backward(v[:3]))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_channels_in_pieces_for_several_threads_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, kind: type[Any], dtype: str
) -> None:
    rng = np.random.default_rng(1)
    x, v = rng.integers(-3, 4, (40, 24, 25, 7)), rng.normal(size=(40, 11, 12, 7))
    results = []
    for cores, piece in ((1, 2**40), (1, 1), (1, 2**18), (2, 1), (3, 1)):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(threads, "PIECE", piece)
        monkeypatch.setattr(threads, "WORTHWHILE", 1)
        alone = Alone(kind(3, 2), (24, 25, 7), select("cpu"), dtype=dtype, capacity=40)
        results.append((alone.forward(x), alone.backward(v)))
    for y, dx in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        np.testing.assert_array_equal(dx, results[0][1])


# Where the gradient of a maximum goes


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 3), (3, 1), ((2, 3), (1, 2)), (2, 3)])
def test_a_tied_maximum_hands_its_gradient_to_the_first_place(backend: Backend, size: Any, stride: Any) -> None:
    """First along rows, then down, the same on every device; never to two places, never to none."""
    rng = np.random.default_rng(2)
    layer = MaxPool2D(size, stride)
    x = rng.integers(0, 3, (4, 7, 8, 2)).astype(np.float64)
    alone = Alone(layer, (7, 8, 2), backend)
    v = rng.integers(1, 100, alone.forward(x).shape).astype(np.float64)
    expected = np.zeros_like(x)
    for i, j, seen in windows(x, layer.size, layer.stride):
        flat = seen.reshape(4, -1, 2)
        first = flat.argmax(axis=1)  # the first of equals
        for n in range(4):
            for c in range(2):
                u, w = divmod(int(first[n, c]), layer.size[1])
                expected[n, i * layer.stride[0] + u, j * layer.stride[1] + w, c] += v[n, i, j, c]
    dx = alone.backward(v)
    np.testing.assert_array_equal(dx, expected)
    assert dx is not None
    assert dx.sum() == v.sum()


def test_an_image_of_one_grey_hands_every_gradient_to_the_corner_of_its_window(backend: Backend) -> None:
    alone = Alone(MaxPool2D(2), (4, 4, 1), backend)
    alone.forward(np.full((1, 4, 4, 1), -5.0))
    dx = alone.backward(np.arange(1.0, 5.0).reshape(1, 2, 2, 1))
    assert dx is not None
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("kind", BOTH)
def test_what_no_window_sees_gets_a_gradient_of_zero(backend: Backend, kind: type[Any]) -> None:
    rng = np.random.default_rng(3)
    alone = Alone(kind((2, 2), (3, 2)), (6, 5, 1), backend)
    for _ in range(2):  # the second time its memory is no longer fresh
        alone.forward(rng.normal(size=(2, 6, 5, 1)))
        dx = alone.backward(rng.uniform(1, 2, (2, 2, 2, 1)))
        assert dx is not None
        assert not dx[:, 2].any()
        assert not dx[:, 5].any()
        assert not dx[:, :, 4].any()
        assert dx[:, :2, :2].any()


def test_an_averaging_window_shares_its_gradient_out_evenly(backend: Backend) -> None:
    alone = Alone(AveragePool2D((2, 4)), (4, 4, 1), backend)
    alone.forward(np.zeros((1, 4, 4, 1)))
    dx = alone.backward(np.array([8.0, 16.0]).reshape(1, 2, 1, 1))
    assert dx is not None
    np.testing.assert_array_equal(dx[0, :, :, 0], np.repeat([[1.0], [1.0], [2.0], [2.0]], 4, axis=1))


@pytest.mark.parametrize("size", [(16, 16), (1, 256), (256, 1)])
def test_the_last_place_of_the_largest_window_is_found(backend: Backend, size: tuple[int, int]) -> None:
    alone = Alone(MaxPool2D(size), (*size, 1), backend)
    x = np.arange(512.0).reshape(2, *size, 1)
    np.testing.assert_array_equal(alone.forward(x).ravel(), [255, 511])
    dx = alone.backward(np.array([3.0, 4.0]).reshape(2, 1, 1, 1))
    assert dx is not None
    np.testing.assert_array_equal(dx.reshape(2, -1)[:, -1], [3, 4])
    assert dx.sum() == 7


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_nan_is_not_hidden_wherever_in_the_window_it_lies(backend: Backend, dtype: str) -> None:
    for place in range(9):
        x = np.arange(18.0).reshape(1, 3, 3, 2).astype(dtype)  # the sample beside it has none
        x[0, place // 3, place % 3, 0] = np.nan
        y, choice = np.zeros((1, 1, 1, 2), dtype), np.zeros((1, 1, 1, 2), np.uint8)
        _, _, y, _ = call(backend, kernels.max_pool, x, (3, 3, 1, 1, 0, 0), y, choice)
        assert np.isnan(y[0, 0, 0, 0])
        assert y[0, 0, 0, 1] == 17
        mean = call(backend, kernels.average_pool, x, (3, 3, 1, 1, 0, 0), True, np.zeros_like(y))[3]
        np.testing.assert_array_equal(np.isnan(mean).ravel(), [True, False])


def test_infinities_are_numbers_like_others(backend: Backend) -> None:
    x = np.array([[-np.inf, -np.inf], [-np.inf, -np.inf]]).reshape(1, 2, 2, 1)
    assert Alone(MaxPool2D(2), (2, 2, 1), backend).forward(x).item() == -np.inf
    x[0, 1, 0, 0] = np.inf
    assert Alone(MaxPool2D(2), (2, 2, 1), backend).forward(x).item() == np.inf


# Shapes


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_n_out_is_the_number_of_windows_wholly_inside(kind: type[Any], size: int, stride: int) -> None:
    for length in range(1, 14):
        count = len(places(length, size, stride))
        if count:
            assert (length - size) // stride + 1 == count
            assert kind((size, 1), (stride, 1)).output_shape((length, 5, 3)) == (count, 5, 3)
            assert kind((1, size), (1, stride)).output_shape((5, length, 3)) == (5, count, 3)
        else:
            with pytest.raises(ShapeError):
                kind((size, 1), (stride, 1)).output_shape((length, 5, 3))


@pytest.mark.parametrize("kind", BOTH)
def test_padding_makes_as_many_windows_as_a_convolution_has_places(kind: type[Any]) -> None:
    for padding in ("valid", "same", 1, (2, 0)):
        for size, stride in ((3, 1), (3, 2), ((4, 2), 3)):
            layer = kind(size, stride, padding)
            convolution = Conv2D(2, size, stride, padding)
            assert layer.output_shape((7, 8, 2)) == convolution.output_shape((7, 8, 2))


def test_a_mean_over_a_whole_large_image(backend: Backend) -> None:
    x = np.random.default_rng(4).normal(size=(2, 28, 28, 3))
    y = Alone(AveragePool2D(28), (28, 28, 3), backend).forward(x)
    np.testing.assert_allclose(y[:, 0, 0], x.mean(axis=(1, 2)), rtol=1e-12, atol=1e-15)


# Of all pixels


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 4, 2), (7, 5, 1), (16, 16, 3)])
def test_the_mean_of_all_pixels_and_back(backend: Backend, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (5, *shape))
    alone = Alone(GlobalAveragePool2D(), shape, backend)
    assert alone.shape == shape[2:]
    np.testing.assert_allclose(alone.forward(x), x.mean(axis=(1, 2)), rtol=1e-12)
    assert_gradients(alone, x[:2], rng, directions=3)
    v = rng.normal(size=(5, shape[2]))
    alone.forward(x)
    dx = alone.backward(v)
    np.testing.assert_allclose(dx, np.broadcast_to(v[:, None, None] / (shape[0] * shape[1]), x.shape), rtol=1e-14)


def test_the_mean_of_all_pixels_in_pieces_for_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, results = rng.normal(size=(40, 24, 25, 7)), []
    for cores, piece in ((1, 2**40), (1, 1), (3, 1)):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(threads, "PIECE", piece)
        monkeypatch.setattr(threads, "WORTHWHILE", 1)
        results.append(Alone(GlobalAveragePool2D(), (24, 25, 7), select("cpu"), capacity=40).forward(x))
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


def test_a_mean_of_all_pixels_needs_images(backend: Backend) -> None:
    with pytest.raises(ShapeError, match=r"globalaveragepool1: GlobalAveragePool2D expects \(height") as caught:
        Sequential([Dense(3), GlobalAveragePool2D()]).build((4,), 4, backend)
    one_line(caught.value)


# Windows that cannot be


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("size", [5, (1, 5), (5, 1)])
def test_a_window_larger_than_the_image_is_refused(backend: Backend, kind: type[Any], size: Any) -> None:
    layer = kind(size)
    with pytest.raises(ShapeError) as caught:
        Sequential([Conv2D(2, 3), layer]).build((6, 6, 1), 4, backend)
    text = one_line(caught.value)
    assert text.startswith(f"{layer.name_prefix}1: a window of {layer.size[0]}×{layer.size[1]} ")
    assert "(4, 4, 2)" in text


@pytest.mark.parametrize("kind", BOTH)
def test_pooling_of_features_is_refused(backend: Backend, kind: type[Any]) -> None:
    with pytest.raises(
        ShapeError, match=r"expects \(height, width, channels\), got \(16,\): .*before Flatten"
    ) as caught:
        Sequential([Flatten(), Dense(16), kind(2)]).build((4, 4, 1), 4, backend)
    assert kind.__name__ in one_line(caught.value)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0}, {"size": (2, 0)}, {"size": 2.5}, {"stride": 0}, {"stride": (1, -1)}, {"padding": -1},
        {"padding": "full"}, {"padding": 2}, {"padding": (1, 2)},
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_refused(kind: type[Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(arguments))} of {kind.__name__}"):
        kind(**arguments)


def test_a_maximum_of_more_places_than_a_byte_can_name_is_refused() -> None:
    with pytest.raises(OptionError, match="at most 256 places, got 16×17"):
        MaxPool2D((16, 17))
