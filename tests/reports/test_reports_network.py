"""The table and the pictures of a network: its layers, its first filters, and what its filters answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import gpunn as gn
from gpunn.display import style
from gpunn.errors import OptionError, ShapeError
from gpunn.nn.layers import Layer
from gpunn.reports import FeatureMaps, feature_maps, first_filters, plot_activations, plot_filters
from gpunn.reports.filters import ACTIVATIONS, FILTERS, colours, draw_network, extent, grid

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed holds at any resolution, and is checked sooner at a low one."""
    monkeypatch.setitem(style._STYLE, "figure.dpi", 50)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def saved(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        drawn.append(figure)

    monkeypatch.setattr(Figure, "savefig", saved)
    return drawn


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def panel(figure: Figure, words: str) -> Axes:
    return next(axes for axes in figure.axes if words in axes.get_title())


def tiles(axes: Axes) -> list[NDArray[Any]]:
    """The numbers of the images in a panel."""
    return [np.asarray(image.get_array()) for image in axes.images]


def built(layers: list[Layer], shape: tuple[int, ...] = (8, 8, 1), dtype: str = "float64") -> gn.Sequential:
    return gn.Sequential(layers).build(shape, batch_size=4, device="cpu", dtype=dtype)


# Which filters


def test_the_first_filters_are_the_weights_of_the_first_convolution() -> None:
    model = built([gn.Conv2D(3, (2, 5)), gn.ReLU(), gn.Conv2D(4), gn.Flatten(), gn.Dense(2)], (8, 8, 2))
    assert model.layers[0].name_prefix == "conv"
    found = first_filters(model, (8, 8, 2))
    assert found is not None
    assert found[0] == "conv1"
    np.testing.assert_array_equal(found[1], model.parameters.to_host()["conv1.w"])
    assert found[1].shape == (3, 2, 2, 5)


@pytest.mark.parametrize(("groups", "filters"), [(3, 3), ("depthwise", 6), (3, 9)])
def test_filters_of_groups_are_shown_over_all_channels(groups: int | str, filters: int) -> None:
    """So a depthwise filter of a photograph is red, green or blue."""
    model = built([gn.Conv2D(filters, (2, 5), groups=groups)], (8, 8, 3))
    found, w = first_filters(model, (8, 8, 3)), model.parameters.to_host()["conv1.w"]
    assert found is not None
    assert found[1].shape == (filters, 3, 2, 5)
    for number, images in enumerate(found[1]):
        for channel, image in enumerate(images):
            is_own = channel == number // (filters // 3)
            np.testing.assert_array_equal(image, w[number, 0] if is_own else np.zeros((2, 5)))


def test_filters_of_a_transposed_convolution_are_shown_by_what_they_make() -> None:
    model = built([gn.ConvTranspose2D(4, (2, 5), stride=2)], (8, 8, 3))
    found, w = first_filters(model, (8, 8, 3)), model.parameters.to_host()["convtranspose1.w"]
    assert found is not None
    assert found[1].shape == (4, 3, 2, 5)
    np.testing.assert_array_equal(found[1][3, 1], w[1, 3])


@pytest.mark.parametrize(
    "layers", [[gn.Dense(3)], [gn.Flatten(), gn.Dense(3)], [gn.BatchNorm(), gn.Flatten(), gn.Dense(3)]]
)
def test_units_fed_with_images_have_weights_that_are_images(layers: list[Layer]) -> None:
    """Where the weights of a unit are an image, the unit answers most to that image."""
    shape = (4, 5, 2)
    first = (40,) if len(layers) == 1 else shape
    model = built(layers, first)
    found = first_filters(model, shape)
    assert found is not None
    weights = found[1]
    assert weights.shape == (3, 2, 4, 5)
    image = weights[1].transpose(1, 2, 0)
    scale = 1 / np.sqrt(1 + 1e-5) if len(layers) == 3 else 1.0
    answer = model.forward(image[None])[0]
    assert answer[1] == pytest.approx(scale * (weights[1] ** 2).sum())


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([gn.Dense(3)], (64,)),
        ([gn.MaxPool2D(), gn.Flatten(), gn.Dense(3)], (8, 8, 1)),
        ([gn.Flatten()], (8, 8, 1)),
    ],
    ids=["features", "what pooling has left", "no weights"],
)
def test_weights_that_are_no_images_are_no_filters(layers: list[Layer], shape: tuple[int, ...]) -> None:
    assert first_filters(built(layers, shape), shape) is None


# Filters


def test_every_filter_is_drawn_on_one_scale_around_zero(tmp_path: Path, figures: list[Figure]) -> None:
    w = RNG.normal(size=(5, 1, 3, 2))
    plot_filters(w, tmp_path / "filters.png", name="conv1", title="lenet on mnist")
    axes = panel(figures[0], "conv1: all 5 filters, 3 × 2")
    for drawn, filter_ in zip(tiles(axes), w, strict=True):
        np.testing.assert_array_equal(drawn, filter_[0])
    limits = {image.get_clim() for image in axes.images}
    assert limits == {(-np.abs(w).max(), np.abs(w).max())}
    assert figures[0].get_suptitle() == "lenet on mnist"


def test_of_many_filters_the_first_are_drawn_and_their_number_is_said(tmp_path: Path, figures: list[Figure]) -> None:
    plot_filters(RNG.normal(size=(96, 1, 5, 5)), tmp_path / "filters.png")
    axes = panel(figures[0], "first 64 of 96")
    assert [text.get_text() for text in axes.texts] == [str(number) for number in range(64)]


def test_filters_of_three_channels_are_colours_and_grey_is_zero(tmp_path: Path, figures: list[Figure]) -> None:
    w = np.zeros((2, 3, 1, 2))
    w[0, 0, 0, 0], w[1, 2, 0, 1] = 0.5, -0.5  # more red here, less blue there
    plot_filters(w, tmp_path / "filters.png")
    first, second = tiles(figures[0].axes[0])
    np.testing.assert_allclose(first, [[[1, 0.5, 0.5], [0.5, 0.5, 0.5]]])
    np.testing.assert_allclose(second, [[[0.5, 0.5, 0.5], [0.5, 0.5, 0.0]]])
    assert "grey is 0" in figures[0].get_supxlabel()


def test_filters_of_many_channels_are_drawn_as_norms(tmp_path: Path, figures: list[Figure]) -> None:
    w = np.array([3.0, 4.0]).reshape(1, 2, 1, 1)
    plot_filters(w, tmp_path / "filters.png")
    assert tiles(figures[0].axes[0])[0].item() == pytest.approx(5.0)
    assert "norm of the weights over 2 channels" in figures[0].get_supxlabel()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 1, 11), (7, 1, 11, 1), (64, 1, 28, 28), (2, 3, 1, 1)])
@pytest.mark.parametrize("fill", [0.0, float("nan"), 1e-30])
def test_filters_of_any_shape_and_value_are_drawn(tmp_path: Path, shape: tuple[int, ...], fill: float) -> None:
    plot_filters(np.full(shape, fill), tmp_path / "filters.png")
    with Image.open(tmp_path / "filters.png") as image:
        assert max(image.size) < 600
        assert len(np.unique(np.asarray(image))) > 1


@pytest.mark.parametrize("shape", [(5, 3, 3), (0, 1, 3, 3), (4, 4)])
def test_what_are_no_filters_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected weights \(units, channels, height, width\)"):
        plot_filters(np.ones(shape), tmp_path / "filters.png")
    with pytest.raises(OptionError, match="at least 1, got 0"):
        plot_filters(np.ones((1, 1, 1, 1)), tmp_path / "filters.png", count=0)


# What filters answer


def test_answers_are_those_of_the_layers_as_written(backend: Any) -> None:
    """Pooling runs before bias and activation; what is shown is the same."""
    layers = [gn.Conv2D(3, 3, padding=1, bias=0.3), gn.ReLU(), gn.MaxPool2D(), gn.BatchNorm(), gn.Dropout(0.5)]
    layers += [gn.Conv2D(2, 2), gn.BatchNorm(), gn.Tanh(), gn.Flatten(), gn.Dense(2)]
    model = gn.Sequential(layers).build((8, 6, 2), batch_size=4, device=backend, dtype="float64")
    image = RNG.normal(size=(8, 6, 2))
    first, second = feature_maps(model, image)
    assert first.name == "conv1, relu1, maxpool1"
    assert second.name == "conv2, batchnorm2, tanh1"
    values = model.arrays()
    z = convolved(np.pad(image, ((1, 1), (1, 1), (0, 0))), values["conv1.w"]) + values["conv1.b"][:, None, None]
    a = np.maximum(z, 0).reshape(3, 4, 2, 3, 2).max(axis=(2, 4))
    np.testing.assert_allclose(first.maps, a, atol=1e-12)
    normalised = a / np.sqrt(1 + 1e-5)
    z = convolved(normalised.transpose(1, 2, 0), values["conv2.w"]) + values["conv2.b"][:, None, None]
    np.testing.assert_allclose(second.maps, np.tanh(z / np.sqrt(1 + 1e-5)), atol=1e-12)


def convolved(image: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
    """(height, width, channels) and (filters, channels, size, size) → (filters, rows, columns), stride 1."""
    windows = np.lib.stride_tricks.sliding_window_view(image, w.shape[2:], axis=(0, 1))
    return np.einsum("ijcuv,fcuv->fij", windows, w)


def test_pooling_before_the_first_convolution_is_no_answer() -> None:
    (only,) = feature_maps(built([gn.AveragePool2D(), gn.Conv2D(2), gn.Flatten(), gn.Dense(2)]), np.ones((8, 8, 1)))
    assert (only.name, only.maps.shape) == ("conv1", (2, 2, 2))


def test_the_mean_of_all_pixels_is_no_map() -> None:
    layers = [gn.Conv2D(2), gn.ReLU(), gn.GlobalAveragePool2D(), gn.ReLU(), gn.Dense(2)]
    (only,) = feature_maps(built(layers), np.ones((8, 8, 1)))
    assert (only.name, only.maps.shape) == ("conv1, relu1", (2, 6, 6))


def test_a_network_without_convolutions_has_no_answers() -> None:
    assert feature_maps(built([gn.Dense(3)], (64,)), np.ones((8, 8, 1))) == []


def test_an_image_of_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(batch, 8, 8, 1\), got \(1, 9, 9, 1\)"):
        feature_maps(built([gn.Conv2D(2)]), np.ones((9, 9, 1)))


def test_asking_for_answers_changes_nothing() -> None:
    model = built([gn.Conv2D(2), gn.BatchNorm(), gn.ReLU(), gn.Dropout(), gn.Flatten(), gn.Dense(2)])
    before, image = model.arrays(), np.ones((8, 8, 1))
    said = model.predict_proba(image[None])
    answers = feature_maps(model, image)
    kept = answers[0].maps.copy()
    np.testing.assert_array_equal(model.predict_proba(image[None]), said)
    model.predict_proba(np.zeros((3, 8, 8, 1)))
    np.testing.assert_array_equal(answers[0].maps, kept)  # no view of a buffer
    assert all(np.array_equal(before[name], value) for name, value in model.arrays().items())


def test_the_picture_has_the_image_and_a_panel_a_convolution(tmp_path: Path, figures: list[Figure]) -> None:
    image, maps = RNG.uniform(size=(6, 6, 1)), RNG.uniform(size=(20, 4, 4))
    answers = [FeatureMaps("conv1, relu1", maps), FeatureMaps("conv2, tanh1", maps[:3] - 0.5)]
    plot_activations(image, answers, tmp_path / "activations.png", name="true 9\npredicted 4")
    np.testing.assert_array_equal(tiles(panel(figures[0], "true 9\npredicted 4\n6 × 6"))[0], image[..., 0])
    first, second = panel(figures[0], "first 16 of 20 maps, 4 × 4"), panel(figures[0], "conv2, tanh1\nall 3 maps")
    np.testing.assert_array_equal(tiles(first), maps[:16])
    assert {image.get_clim() for image in first.images} == {(0.0, maps[:16].max())}
    low, high = second.images[0].get_clim()
    assert -low == high == np.abs(maps[:3] - 0.5).max()


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_many_convolutions_go_into_several_rows(tmp_path: Path, figures: list[Figure], count: int) -> None:
    answers = [FeatureMaps(f"conv{number}", RNG.normal(size=(2, 3, 3))) for number in range(count)]
    plot_activations(np.ones((3, 3, 3)), answers, tmp_path / "activations.png")
    assert [title.split("\n")[0] for title in titles(figures[0])] == ["input", *(a.name for a in answers)]
    assert figures[0].get_figwidth() < 13


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_channels_are_drawn(tmp_path: Path, figures: list[Figure], channels: int) -> None:
    plot_activations(np.ones((4, 4, channels)), [FeatureMaps("conv1", np.zeros((1, 1, 1)))], tmp_path / "a.png")
    assert tiles(panel(figures[0], "input"))[0].shape == ((4, 4, 3) if channels == 3 else (4, 4))
    assert ("mean of 2 channels" in titles(figures[0])[0]) == (channels == 2)


@pytest.mark.parametrize(
    ("image", "answers", "count", "error"),
    [
        (np.ones((4, 4)), [FeatureMaps("conv1", np.zeros((1, 1, 1)))], 16, ShapeError),
        (np.ones((4, 4, 1)), [], 16, ShapeError),
        (np.ones((4, 4, 1)), [FeatureMaps("conv1", np.zeros((1, 1, 1)))], 0, OptionError),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, image: NDArray[Any], answers: list[FeatureMaps], count: int, error: type[Exception]
) -> None:
    with pytest.raises(
        error, match="expected an image" if error is ShapeError else "count of maps must be .* at least 1"
    ):
        plot_activations(image, answers, tmp_path / "a.png", count=count)
    assert not list(tmp_path.iterdir())


# Tiles


@pytest.mark.parametrize("count", [1, 2, 5, 16, 20, 64])
@pytest.mark.parametrize(("height", "width"), [(5, 5), (1, 9), (9, 1), (28, 20)])
def test_a_grid_has_a_place_for_each_tile_and_no_empty_row(count: int, height: int, width: int) -> None:
    rows, columns = grid(count, height, width)
    assert (rows - 1) * columns < count <= rows * columns
    if count >= 16 and height == width:
        across, down = extent(rows, columns, height, width)
        assert 0.6 < across / down < 1.7


def test_a_scale_is_around_zero_only_where_it_is_needed() -> None:
    assert colours(np.array([0.0, 2.0, np.nan]))[1].vmin == 0
    assert colours(np.array([-3.0, 2.0, np.inf]))[1].vmin == -3
    assert (colours(np.zeros(3))[1].vmin, colours(np.zeros(3))[1].vmax) == (0, 1)


# A run's pictures of its network


def digits(**options: Any) -> gn.Data:
    return gn.load_data("digits", **options)


def trained(data: gn.Data) -> gn.Sequential:
    model = gn.Sequential([gn.Conv2D(2), gn.ReLU(), gn.Flatten(), gn.Dense(10)])
    model.fit(data, epochs=1, device="cpu", progress=False)
    return model


@pytest.mark.parametrize("validation", [0.1, 0])
def test_the_image_is_of_the_data_that_are_open(tmp_path: Path, figures: list[Figure], validation: float) -> None:
    data = digits(validation=validation)
    model = trained(data)
    assert draw_network(tmp_path, model, data, "mine") == [FILTERS, ACTIVATIONS]
    assert not data.test_is_open
    samples = data.train if data.validation is None else data.validation
    first = samples.inputs[list(samples.targets).index(9)]
    predicted = model.predict(first[None])[0]
    shown = tiles(panel(figures[-1], f"true 9\npredicted {predicted}"))[0]
    np.testing.assert_allclose(shown, first[..., 0] * samples.scale, rtol=1e-6)


def test_float_targets_have_no_class_to_name(tmp_path: Path, figures: list[Figure]) -> None:
    x = RNG.uniform(size=(40, 6, 6, 1)).astype(np.float32)
    data = gn.Data.from_arrays(x, x.mean(axis=(1, 2)), validation=0)
    model = gn.Sequential([gn.Conv2D(2), gn.Flatten(), gn.Dense(1)])
    model.fit(data, epochs=1, batch_size=8, device="cpu", progress=False)
    draw_network(tmp_path, model, data, "mine")
    assert any(title.startswith("input") for title in titles(figures[-1]))


# The table


def test_the_table_shows_windows_as_one_writes_them() -> None:
    layers = [gn.Conv2D(4, 3, padding="same"), gn.MaxPool2D(), gn.AveragePool2D(2, 1), gn.Conv2D(2, (1, 2), bias=False)]
    text = built([*layers, gn.MaxPool2D((1, 2))]).summary()
    for words in (
        "Conv2D(filters=4, size=3, padding='same')",
        "MaxPool2D(size=2)",
        "AveragePool2D(size=2, stride=1)",
        "Conv2D(filters=2, size=(1, 2), bias=False)",
        "MaxPool2D(size=(1, 2))",
    ):
        assert any(line.startswith(f"{words} ") for line in text.splitlines()), words


@pytest.mark.parametrize("recipe", ["lenet", "lenet-bn", "fast99", "lenet-digits"])
def test_the_table_of_a_recipe_fits_a_terminal(recipe: str) -> None:
    from gpunn.experiments.experiment import read_experiment

    text = read_experiment(recipe).model(digits()).build((28, 28, 1), device="cpu").summary()
    *table, last = text.splitlines()
    assert max(map(len, table)) <= 80
    assert len(last) <= 120
