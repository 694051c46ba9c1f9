"""Networks of newer layers as ONNX files: onnxruntime's answers, and the way back, also by the nodes alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpunn as gn
from gpunn.config import to_built_config

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from support.onnx_helpers import exported, run  # noqa: E402

CHANCE = np.random.default_rng(0)
IMAGES = CHANCE.normal(size=(17, 8, 6, 4)).astype(np.float32)
TOKENS = CHANCE.integers(0, 9, (17, 6))


def of_tokens(*layers: gn.Layer) -> list[gn.Layer]:
    return [gn.Embedding(9, 4), *layers]


NETWORKS = {
    "tokens alone": lambda: of_tokens(),
    "tokens that stay images": lambda: of_tokens(gn.Conv2D(3, (1, 3))),
    "tokens through a residual connection": lambda: of_tokens(
        gn.Residual([gn.Conv2D(4, (1, 3), padding="same"), gn.BatchNorm(), gn.ReLU()]),
        gn.GlobalAveragePool2D(), gn.Dense(3),
    ),
    "tokens through filters of several lengths": lambda: of_tokens(
        gn.Concatenate([gn.Conv2D(3, (1, 2), padding="same")], [gn.Conv2D(4, (1, 4), padding="same"), gn.ReLU()]),
        gn.MaxPool2D((1, 2)), gn.Flatten(), gn.Dense(2), gn.Softmax(),
    ),
    "tokens through a filter each": lambda: of_tokens(
        gn.Conv2D(4, (1, 3), groups="depthwise"), gn.Flatten(), gn.Dense(2)
    ),
    "tokens made longer": lambda: of_tokens(gn.ConvTranspose2D(3, (1, 2), (1, 2))),
    "groups and padded pooling": lambda: [
        gn.Conv2D(6, 3, groups=2, padding="same"),
        gn.Residual([gn.Conv2D(6, 3, groups="depthwise", padding="same"), gn.Conv2D(6, 1)]),
        gn.MaxPool2D(3, 2, 1), gn.Flatten(), gn.Dense(2),
    ],
    "larger again, side by side": lambda: [
        gn.Conv2D(6, 3, stride=2, padding=1), gn.ConvTranspose2D(4, 3, 2, padding=1, output_padding=1),
        gn.Concatenate([gn.AveragePool2D(3, 1, 1, count_include_pad=True)], [gn.MaxPool2D(3, 1, 1)], []),
    ],
}  # fmt: skip


def same(one: gn.Sequential, other: gn.Sequential, x: NDArray[Any]) -> bool:
    return np.array_equal(one.predict_proba(x), other.predict_proba(x))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_goes_there_and_comes_back(name: str, layout: str, tmp_path: Path) -> None:
    x = TOKENS if "tokens" in name else IMAGES
    model = gn.Sequential(NETWORKS[name]()).build(x.shape[1:], 8, "cpu", seed=1)
    model.load_arrays({key: a + 0.2 * CHANCE.random(a.shape) for key, a in model.arrays().items()})
    path, wanted = exported(model, tmp_path, layout=layout), model.predict_proba(x)
    answers = run(path, np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 and layout == "NCHW" else x)
    answers = answers.transpose(0, 2, 3, 1) if answers.ndim == 4 and layout == "NCHW" else answers
    assert answers.shape == wanted.shape
    assert np.abs(answers - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())

    again = gn.load_onnx(path, "cpu")
    assert [to_built_config(layer) for layer in again.layers] == [to_built_config(layer) for layer in model.layers]
    assert all(np.array_equal(again.arrays()[key], a) for key, a in model.arrays().items())
    assert same(model, again, x)

    made = onnx.load(path)
    del made.metadata_props[:]  # a file of anybody's
    onnx.save(made, path)
    of_nodes = gn.load_onnx(path, "cpu")
    assert [type(layer) for layer in of_nodes.layers] == [type(layer) for layer in model.layers]
    assert same(model, of_nodes, x)


def test_tokens_may_be_of_32_bits(tmp_path: Path) -> None:
    model = gn.Sequential(of_tokens(gn.Flatten(), gn.Dense(2))).build((6,), 8, "cpu")
    made = onnx.load(exported(model, tmp_path))
    made.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(made, tmp_path / "model.onnx")
    assert np.abs(run(tmp_path / "model.onnx", TOKENS.astype(np.int32)) - model.predict_proba(TOKENS)).max() <= 1e-5
    again = gn.load_onnx(tmp_path / "model.onnx", "cpu")
    assert again.tokens == 9
    assert same(model, again, TOKENS)
