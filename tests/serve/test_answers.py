"""What the page is answered: the same as the network says, to the last digits."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

import gpunn as gn
from gpunn.experiments.predict import predict_files

from .conftest import Served


def array(given: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(given["data"]), "<f4").reshape(given["shape"])


def png(pixels: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def drawn(digit: np.ndarray, times: int = 20) -> np.ndarray:
    """A digit as somebody draws it: dark on white, large."""
    scaled = (digit[..., 0] / digit.max() * 255).astype(np.uint8)
    large = Image.fromarray(255 - scaled).resize((8 * times, 8 * times), Image.Resampling.BICUBIC)
    return np.asarray(large)


def test_a_drawing_is_answered_as_gpunn_predict_answers_it(site: Served, digits: Path, tmp_path: Path) -> None:
    right, data = 0, gn.load_data("digits")
    for number in range(10):
        picture = png(drawn(data.test.inputs[number]))
        (tmp_path / "drawing.png").write_bytes(picture)
        told = site.post("/api/predict?layers=none", content=picture, headers={"content-type": "image/png"})
        (wanted,) = predict_files(str(digits), [str(tmp_path / "drawing.png")], "cpu", note=lambda _: None)
        assert told["best"]["name"] == wanted.label
        assert [each["probability"] for each in told["answers"]] == wanted.outputs
        assert told["best"]["sure"] is wanted.sure
        assert told["changes"]  # it was fitted, and dark and light exchanged
        assert not any("picture:" in change or "--" in change for change in told["changes"])
        right += told["best"]["name"] == data.class_names[data.test.targets[number]]
    assert right >= 8


def test_activations_are_those_of_the_network(site: Served, digits: Path) -> None:
    model = gn.load_model(digits / "model.safetensors", "cpu")
    sample = site.get("/api/sample?set=validation&index=5")
    pixels = array(sample["pixels"])
    told = site.post("/api/predict", json={"pixels": pixels.ravel().tolist()})
    assert np.array_equal(array(told["prepared"]), pixels)
    x = pixels[None]
    described = site.get("/api/model")["layers"]
    assert [layer["title"] for layer in described][:3] == [
        "Conv2D(8, padding='same')",
        "ReLU()",
        "MaxPool2D(2)",
    ]
    assert len(told["layers"]) == len(model.layers) == len(described)
    for count, answer in enumerate(told["layers"], 1):
        part = gn.Sequential(model.layers[:count]).build(x.shape[1:], 1, "cpu")
        wanted = part.forward(x)[0]
        assert described[count - 1]["shape"] == answer["activations"]["shape"] == list(wanted.shape)
        assert np.abs(array(answer["activations"]) - wanted).max() < 1e-6
    shares = [each["probability"] for each in told["answers"]]
    assert np.allclose(shares, model.predict_proba(x)[0], atol=1e-6)
