"""Autoencoders: inputs as targets, the recipe, and the pictures of what comes out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import gpunn, own_folder
from support.harness import one_line
from support.paths import ROOT

import gpunn as gn
from gpunn.errors import DataError, GpunnError, OptionError
from gpunn.experiments.experiment import read_experiment, recipe_for
from gpunn.reports.reconstructions import RECONSTRUCTIONS

folder = pytest.fixture(own_folder)


def test_targets_are_the_inputs_that_the_network_sees_in_the_order_of_flatten() -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    samples = gn.Samples(x, np.arange(6) % 2, scale=1 / 255).as_reconstruction()
    assert samples.targets.dtype == np.float32
    assert samples.classes == 0
    flat = gn.Sequential([gn.Flatten()]).build((4, 5, 3), 6, "cpu").forward(x.astype(np.float32) / 255)
    np.testing.assert_allclose(samples.targets, flat, rtol=1e-6)
    rows = gn.Samples(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1])).as_reconstruction()
    np.testing.assert_array_equal(rows.targets, [[1, 2], [3, 4]])


def test_data_are_loaded_with_their_inputs_as_targets() -> None:
    data, labels = gn.load_data("digits", task="reconstruction"), gn.load_data("digits")
    assert data.class_names == ()
    for mine, other in ((data.train, labels.train), (data.validation, labels.validation), (data.test, labels.test)):
        assert mine is not None
        assert other is not None
        np.testing.assert_array_equal(mine.inputs, other.inputs)
        np.testing.assert_allclose(mine.targets, other.inputs.reshape(len(other), -1) * other.scale, rtol=1e-6)


def test_what_cannot_be_reconstructed_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b,target\n" + "".join(f"{i},{i * i},{i % 2}\n" for i in range(40)))
    with pytest.raises(DataError, match="columns of a table") as error:
        gn.load_data(tmp_path / "table.csv", task="reconstruction")
    one_line(error.value)
    with pytest.raises(OptionError, match='"classes", "regression" or "reconstruction"') as wrong:
        gn.load_data("digits", task="reconstruct")
    one_line(wrong.value)


@pytest.mark.usefixtures("folder")
def test_the_recipe_learns_its_inputs_and_draws_what_comes_out() -> None:
    assert recipe_for("mnist", None, "reconstruction") == "autoencoder"
    text = read_experiment("autoencoder").with_options(epochs=15).to_toml()
    Path("short.toml").write_text(text, "utf-8")
    assert gpunn("train", "--recipe", "short.toml", "--out", "run", "--device", "cpu").code == 0
    metrics = json.loads(Path("run/metrics.json").read_text("utf-8"))
    data = gn.load_data("digits", task="reconstruction")
    assert data.test is not None
    mean = float(np.square(data.test.targets - data.train.targets.mean(axis=0)).mean()) ** 0.5
    assert metrics["test_rmse"] < 0.75 * mean  # it sees more than the mean digit
    assert metrics["task"] == "regression"
    assert Path(f"run/{RECONSTRUCTIONS}").read_bytes().startswith(b"\x89PNG")
    assert RECONSTRUCTIONS in Path("run/report.md").read_text("utf-8")
    again = gpunn("evaluate", "run", "digits")
    assert again.code == 0
    assert f"{metrics['test_rmse']:.4f}" in again.out
    assert gpunn("train", "--recipe", "run/experiment.toml", "--out", "again").code == 0
    assert Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()


def test_principal_components_do_what_the_page_says_of_them() -> None:
    data = gn.load_data("digits", task="reconstruction")
    assert data.test is not None
    mean = data.train.targets.mean(axis=0)
    axes = np.linalg.svd(data.train.targets - mean, full_matrices=False)[2][:16]
    errors = (data.test.targets - mean) - (data.test.targets - mean) @ axes.T @ axes
    page = " ".join((ROOT / "docs" / "recipes.md").read_text("utf-8").split())
    assert f"principal components of the training set have {float(np.square(errors).mean()) ** 0.5:.3f}" in page


def convolutional() -> list[gn.Layer]:
    encoder: list[Any] = [gn.Conv2D(4, 3, stride=2, padding="same"), gn.ReLU()]
    return [*encoder, gn.ConvTranspose2D(3, 4, stride=2, padding=1), gn.Sigmoid(), gn.Flatten()]


def test_reconstructions_are_drawn_also_of_colours_and_rows() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
    samples = gn.Samples(x, np.zeros(20, np.int32), scale=1 / 255).as_reconstruction()
    model = gn.Sequential(convolutional())
    model.fit(samples, epochs=1, batch_size=4, progress=False)
    for given in (samples, x[:3], x[0][None]):
        figure = gn.plot_reconstructions(model, given)
        assert len(figure.axes) == 2 * min(10, len(given))
    assert len(gn.plot_reconstructions(model, samples, count=2).axes) == 4
    rows = gn.Samples(rng.normal(size=(20, 12)), np.zeros(20, np.int32)).as_reconstruction()
    flat = gn.Sequential([gn.Dense(4), gn.Dense(12)])
    flat.fit(rows, epochs=1, batch_size=4, optimizer=gn.SGD(0.01), progress=False)
    assert len(gn.plot_reconstructions(flat, rows.inputs[:4]).axes) == 8


def test_the_picture_has_the_pixels_of_inputs_and_outputs() -> None:
    x = np.random.default_rng(2).uniform(size=(3, 4, 5, 3)).astype(np.float32)
    model = gn.Sequential([gn.Flatten()]).build((4, 5, 3), 3, "cpu")  # the identity
    above, below = (gn.plot_reconstructions(model, x).axes[at].images[0].get_array() for at in (0, 1))
    np.testing.assert_allclose(np.asarray(above), np.asarray(below), atol=1e-6)
    assert np.asarray(above).shape == (4, 5, 3)


def test_a_network_of_other_outputs_reconstructs_nothing() -> None:
    model = gn.Sequential([gn.Dense(3)]).build((4,), 4, "cpu")
    with pytest.raises(GpunnError, match="3 outputs for inputs") as error:
        gn.plot_reconstructions(model, np.zeros((2, 4)))
    one_line(error.value)
