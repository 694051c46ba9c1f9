"""Every kind of data and of answer on a page: tables, numbers, several answers, pictures, tokens, and models alone."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpunn as gn
from gpunn.errors import ModelFileError
from gpunn.experiments.experiment import read_experiment

from .conftest import Served, serving, trained

QUIET: dict = {"progress": False, "device": "cpu", "epochs": 3}


def array(given: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(given["data"]), "<f4").reshape(given["shape"])


def saved(model: gn.Sequential, folder: Path) -> Path:
    model.save(folder / "model.safetensors")
    return folder / "model.safetensors"


def table(path: Path, target: str, rows: int = 60) -> Path:
    """A table of a number, a text and a number to learn, or a class."""
    numbers, rng = [target == "price"], np.random.default_rng(0)
    lines = [f"area,town,{target}"]
    for row in range(rows):
        area, town = rng.integers(20, 180), ("Bratislava", "Košice", "Nitra")[row % 3]
        price = 3.5 * area + (100 if town == "Bratislava" else 0)
        lines.append(f"{area},{town},{price if numbers[0] else 'dear' if price > 400 else 'cheap'}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prices")
    source = table(folder / "flats.csv", "price")
    return trained(read_experiment("table"), folder / "run", data=str(source), epochs=30, device="cpu")


def test_a_table_of_numbers_to_learn(prices: Path) -> None:
    with serving(prices) as served:
        told = served.get("/api/model")
        assert (told["task"], told["targets"], told["classes"]) == ("regression", ["price"], [])
        area, town = told["input"]["columns"]
        assert (area["name"], area["kind"]) == ("area", "number")
        assert 20 <= area["min"] < area["mean"] < area["max"] <= 180
        assert (town["kind"], town["categories"]) == ("category", ["Bratislava", "Košice", "Nitra"])
        model = gn.load_model(prices / "model.safetensors", "cpu")
        columns = model.trained_on.columns
        answer = served.post("/api/predict", json={"values": {"area": 100, "town": "Košice"}})
        x = np.array([[(100 - columns.means[0]) / columns.deviations[0], 0, 1, 0]], np.float32)
        assert np.allclose(array(answer["prepared"]), x[0], atol=1e-6)
        (value,) = answer["values"]
        assert value["name"] == "price"
        assert value["value"] == pytest.approx(float(model.predict(x)[0, 0]), abs=1e-4)
        assert (answer["answers"], answer["best"], answer["changes"]) == ([], None, [])
        typed = served.post("/api/predict", json={"values": {"area": "100", "town": "Košice"}})
        assert typed["values"] == answer["values"]
        mean = served.post("/api/predict", json={"values": {"town": "Nitra"}})
        assert array(mean["prepared"])[0] == 0
        assert mean["changes"] == ["missing, so the mean was taken: area"]
        assert served.post("/api/predict", json={"values": {"area": None, "town": ""}})["changes"]
        for values, word in (
            ({"area": 100, "town": "Praha"}, "'Praha' is none of the categories"),
            ({"areas": 100}, "did you mean 'area'"),
            ({"area": "wide"}, "expected a number, got 'wide'"),
            ({"area": [1]}, "expected a finite number, got a list"),
            ({"area": True}, "expected a finite number, got true or false"),
            ({"town": 7}, "takes a text, got a number"),
            ([1, 2], "values are a table of columns"),
        ):
            assert word in served.post("/api/predict", 422, json={"values": values})["error"]
        assert (
            "no pictures, its input is a table"
            in served.post("/api/predict", 422, content=PICTURE, headers=PNG)["error"]
        )
        assert "only classification has mistakes" in served.get("/api/mistakes", 404)["error"]
        unit = served.get("/api/unit?layer=0&unit=3")
        assert unit["weights"]["shape"] == [4]
        assert unit["images"][0]["pixels"]["shape"] == [4]
        activations = [each["activation"] for each in unit["images"]]
        assert activations == sorted(activations, reverse=True)
        assert float(unit["images"][0]["label"]) > 50  # in its own unit


PNG = {"content-type": "image/png"}


def png(pixels: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


PICTURE = png(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))


def test_a_table_of_classes_has_a_matrix(tmp_path: Path) -> None:
    source = table(tmp_path / "flats.csv", "dear")
    folder = trained(read_experiment("table"), tmp_path / "run", data=str(source), epochs=20, device="cpu")
    with serving(folder) as served:
        told = served.get("/api/model")
        assert (told["task"], told["classes"]) == ("classification", ["cheap", "dear"])
        answer = served.post("/api/predict", json={"values": {"area": 170, "town": "Bratislava"}})
        assert [each["name"] for each in answer["answers"]] == ["cheap", "dear"]
        assert sum(each["probability"] for each in answer["answers"]) == pytest.approx(1)
        matrix = served.get("/api/confusion")
        data = read_experiment(str(folder / "experiment.toml")).load_data()
        report = gn.load_model(folder / "model.safetensors", "cpu").report(data.validation)
        assert matrix["counts"] == report.confusion_matrix.tolist()
        found = served.get("/api/mistakes?count=3")
        assert found["total"] == len(data.validation) - sum(matrix["counts"][k][k] for k in range(2))
        assert found["of"] == matrix["of"] == len(data.validation)


def test_mistakes_are_those_of_the_report_and_units_see_what_they_answer_to(site: Served, digits: Path) -> None:
    data = read_experiment(str(digits / "experiment.toml")).load_data()
    model = gn.load_model(digits / "model.safetensors", "cpu")
    for name, samples in (("validation", data.validation), ("test", data.test)):
        found = served_mistakes(site, name)
        outputs = model.predict_proba(samples.inputs)
        wrong = np.flatnonzero(outputs.argmax(axis=1) != samples.targets)
        assert sorted(each["index"] for each in found["mistakes"]) == wrong.tolist()
        assert found["total"] == len(wrong)
        of_true = [each["of_true"] for each in found["mistakes"]]
        assert of_true == sorted(of_true)
        for each in found["mistakes"]:
            at = each["index"]
            assert (int(each["true"]), int(each["predicted"])) == (samples.targets[at], outputs[at].argmax())
            assert each["probability"] == pytest.approx(float(outputs[at].max()), abs=1e-6)
            assert np.array_equal(array(each["pixels"]), samples.inputs[at] * np.float32(samples.scale))
    for layer, unit in ((0, 2), (5, 7), (6, 9)):
        told = site.get(f"/api/unit?layer={layer}&unit={unit}")
        part = gn.Sequential(model.layers[: layer + 1]).build((8, 8, 1), 256, "cpu")
        x = data.validation.inputs * np.float32(data.validation.scale)
        values = np.array(part.forward(x))
        values = values[:, unit] if values.ndim == 2 else values[..., unit].max(axis=(1, 2))
        order = np.argsort(-values, kind="stable")[:12]
        assert [each["activation"] for each in told["images"]] == pytest.approx(values[order].tolist(), abs=1e-5)
        assert told["images"][0]["index"] == order[0]
        assert told["images"][0]["set"] == "validation"
    w = model.arrays()["conv1.w"][2].transpose(1, 2, 0)
    assert np.array_equal(array(site.get("/api/unit?layer=0&unit=2")["weights"]), w)


def served_mistakes(site: Served, name: str) -> dict:
    return site.get(f"/api/mistakes?set={name}&count=200")


def test_several_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    y = (x[:, :2] > 0).astype(np.float32)
    model = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(2)])
    model.fit(x, y, loss=gn.BinaryCrossEntropy(), **QUIET)
    with serving(saved(model, tmp_path)) as served:
        told = served.get("/api/model")
        assert (told["task"], told["targets"], told["input"]["kind"]) == ("binary", ["output 1", "output 2"], "vector")
        answer = served.post("/api/predict", json={"values": x[0].tolist()})
        shares = model.predict_proba(x[:1])[0]
        assert [each["probability"] for each in answer["answers"]] == pytest.approx(shares.tolist(), abs=1e-6)
        assert [each["value"] for each in answer["answers"]] == model.predict(x[:1])[0].tolist()
        assert answer["best"] is None
        # A model alone has no samples, and says so.
        assert (told["has_samples"], told["has_test"], told["state"]) == (False, False, "finished")
        assert "serve the run folder" in served.get("/api/sample?index=0", 404)["error"]
        assert "serve the run folder" in served.get("/api/confusion", 404)["error"]
        unit = served.get("/api/unit?layer=0&unit=1")
        assert unit["images"] == []
        assert "serve the run folder" in unit["note"]
        assert served.get("/api/history")["rows"] == []


def test_an_autoencoder_shows_the_picture_that_it_makes(tmp_path: Path) -> None:
    folder = trained(read_experiment("autoencoder"), tmp_path / "run", epochs=1, device="cpu")
    with serving(folder) as served:
        assert served.get("/api/model")["task"] == "reconstruction"
        pixels = array(served.get("/api/sample?index=2")["pixels"])
        answer = served.post("/api/predict", json={"pixels": pixels.ravel().tolist()})
        wanted = gn.load_model(folder / "model.safetensors", "cpu").predict(pixels[None])
        assert np.allclose(array(answer["reconstruction"]), wanted.reshape(8, 8, 1), atol=1e-6)


@pytest.mark.parametrize("flat", [False, True])
def test_pictures_in_colours(tmp_path: Path, flat: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 6, 5, 3), np.uint8), np.arange(40) % 3
    layers = [gn.Flatten(), gn.Dense(4)] if flat else [gn.Conv2D(4, 3), gn.Flatten()]
    model = gn.Sequential([*layers, gn.ReLU(), gn.Dense(3)])
    model.fit(x, y, **QUIET)
    with serving(saved(model, tmp_path)) as served:
        told = served.get("/api/model")["input"]
        assert (told["shape"], told["is_grey"], told["takes_pictures"], told["low"], told["high"]) == (
            [6, 5, 3], False, True, 0.0, 1.0,
        )  # fmt: skip
        answer = served.post("/api/predict", content=png(x[0]), headers=PNG)
        assert np.allclose(array(answer["prepared"]), x[0] / 255, atol=1e-6)
        shares = model.predict_proba(x[:1])[0].tolist()
        assert [each["probability"] for each in answer["answers"]] == pytest.approx(shares, abs=1e-6)
        again = served.post("/api/predict", json={"pixels": array(answer["prepared"]).ravel().tolist()})
        assert again["answers"] == answer["answers"]
        assert array(served.get(f"/api/unit?layer={int(flat)}&unit=1")["weights"]).shape[2] == 3


def test_images_of_another_range_are_prepared_as_those_of_the_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (40, 6, 6, 1)).astype(np.float32), np.arange(40) % 2
    model = gn.Sequential([gn.Flatten(), gn.Dense(2)])
    model.fit(gn.Data.from_arrays(x, y, scale=0.5), **QUIET)
    with serving(saved(model, tmp_path)) as served:
        told = served.get("/api/model")["input"]
        assert (told["low"], told["high"]) == (-0.5, 0.5)
        picture = rng.integers(0, 256, (6, 6), np.uint8)
        answer = served.post("/api/predict", content=png(picture), headers=PNG)
        assert np.allclose(array(answer["prepared"])[..., 0], picture / 255 - 0.5, atol=1e-5)
        again = served.post("/api/predict", json={"pixels": array(answer["prepared"]).ravel().tolist()})
        shares = [each["probability"] for each in answer["answers"]]
        assert [each["probability"] for each in again["answers"]] == pytest.approx(shares, abs=1e-6)


def test_tokens(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 9, (50, 6))
    model = gn.Sequential([gn.Embedding(9, 4), gn.Flatten(), gn.Dense(2)])
    model.fit(x, (x[:, 0] > 4).astype(int), **QUIET)
    with serving(saved(model, tmp_path)) as served:
        told = served.get("/api/model")["input"]
        assert (told["kind"], told["shape"], told["tokens"]) == ("tokens", [6], 9)
        answer = served.post("/api/predict", json={"values": x[0].tolist()})
        shares = model.predict_proba(x[:1])[0].tolist()
        assert [each["probability"] for each in answer["answers"]] == pytest.approx(shares, abs=1e-6)
        assert array(answer["layers"][0]["activations"]).shape == (1, 6, 4)
        assert "from 0 to 8" in served.post("/api/predict", 422, json={"values": [9, 0, 0, 0, 0, 0]})["error"]
        assert "whole numbers" in served.post("/api/predict", 422, json={"values": [0.5, 0, 0, 0, 0, 0]})["error"]


def test_one_output_for_two_classes_has_both(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    model = gn.Sequential([gn.Dense(1)])
    model.fit(x, np.where(x[:, 0] > 0, "yes", "no"), loss=gn.BinaryCrossEntropy(), **QUIET)
    with serving(saved(model, tmp_path)) as served:
        answer = served.post("/api/predict", json={"values": x[0].tolist()})
        assert [each["name"] for each in answer["answers"]] == ["no", "yes"]
        assert answer["best"]["name"] == model.predict_names(x[:1])[0]


def test_large_maps_are_cut_and_the_rest_told(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Conv2D(5, 1), gn.GlobalAveragePool2D(), gn.Dense(2)]).build((256, 256, 1), 1, "cpu")
    with serving(saved(model, tmp_path)) as served:
        told = served.get("/api/model")["layers"][0]
        assert (told["shape"], told["shown"]) == ([256, 256, 5], 2)
        answer = served.post("/api/predict?layers=0", json={"pixels": [0.5] * 65536})
        (layer,) = answer["layers"]
        assert layer["activations"]["shape"] == [256, 256, 2]
        assert served.post("/api/predict?layers=none", json={"pixels": [0.5] * 65536})["layers"] == []


def test_a_run_whose_data_have_gone_is_served_without_samples(tmp_path: Path) -> None:
    source = table(tmp_path / "flats.csv", "price")
    folder = trained(read_experiment("table"), tmp_path / "run", data=str(source), epochs=1, device="cpu")
    source.unlink()
    with serving(folder) as served:
        area = served.get("/api/model")["input"]["columns"][0]
        assert area["min"] < 20 < 180 < area["max"]  # three deviations to each side of the mean
        told = served.get("/api/model")
        assert (told["has_samples"], told["has_test"]) == (False, False)
        assert "there is no such file" in told["samples_note"]
        assert "there is no such file" in served.get("/api/sample?index=0", 404)["error"]
        assert served.post("/api/predict", json={"values": {"area": 90}})["values"]


def test_a_page_downloads_nothing(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(url: str, *_: object) -> bytes:
        raise AssertionError(f"asked for {url}")

    monkeypatch.setattr("gpunn.data.download.receive", asked)
    monkeypatch.setattr("gpunn.data.load.user_cache", lambda: tmp_path / "cache")
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path))
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "experiment.toml"):
        content = (digits / name).read_bytes()
        (run / name).write_bytes(content.replace(b'source = "digits"', b'source = "fashion-mnist"'))
    with serving(run) as served:
        told = served.get("/api/model")
        assert told["has_samples"] is False
        assert "fashion-mnist are not on this machine, and nothing is downloaded" in told["samples_note"]
        assert not served.said
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_no_network_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no network")
    with pytest.raises(ModelFileError, match="damaged or no model file"), serving(tmp_path):
        pass
