"""ONNX files become networks: our own to the last bit, others by what their nodes compute; the rest is refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cli_helpers import gpunn, own_folder, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.config import to_built_config
from gpunn.experiments.experiment import read_experiment, recipes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from support.onnx_helpers import coloured, graph, node, run  # noqa: E402

folder = pytest.fixture(own_folder)
CHANCE = np.random.default_rng(0)
IMAGES = CHANCE.normal(size=(24, 8, 6, 3)).astype(np.float32)
ROWS = np.ascontiguousarray(IMAGES[:, 0, 0, :]).repeat(2, axis=1)[:, :4]
LABELS = np.arange(24) % 3
QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "epochs": 2, "batch_size": 8}


def weights(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def same(one: gn.Sequential, other: gn.Sequential) -> bool:
    a, b = one.arrays(), other.arrays()
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def described(model: gn.Sequential) -> list[dict[str, Any]]:
    return [to_built_config(layer) for layer in model.layers]


def of_images() -> gn.Sequential:
    layers = [gn.Conv2D(6, padding="same"), gn.BatchNorm(momentum=0.3), gn.ReLU(), gn.LayerNorm(), gn.MaxPool2D()]
    layers += [
        gn.Residual([gn.Conv2D(6, padding="same"), gn.Activation.from_equation("swish", "z*b/(1+exp(-z))", {"b": 1.0})])
    ]
    layers += [gn.Concatenate([gn.Conv2D(2, 1)], [], [gn.AveragePool2D((1, 1))]), gn.Flatten(), gn.Dropout(0.4)]
    return gn.Sequential([*layers, gn.Chain([gn.Dense(7), gn.Tanh()]), gn.Dense(3)])


NETWORKS = {
    "images": (of_images, IMAGES, LABELS, {}),
    "bytes": (of_images, (IMAGES * 40 + 128).clip(0, 255).astype(np.uint8), LABELS, {}),
    "bytes, raw": (of_images, (IMAGES * 40 + 128).clip(0, 255).astype(np.uint8), LABELS, {"raw": True}),
    "images, NCHW": (of_images, IMAGES, LABELS, {"layout": "NCHW"}),
    "logits": (of_images, IMAGES, LABELS, {"logits": True}),
    "flat images": (lambda: gn.Sequential([gn.Dense(5), gn.ReLU(), gn.Dense(3)]), IMAGES, LABELS, {}),
    "opset 13": (of_images, IMAGES, LABELS, {"opset": 13}),
    "opset 28": (of_images, IMAGES, LABELS, {"opset": 28}),
    "one output": (lambda: gn.Sequential([gn.Dense(5), gn.Tanh(), gn.Dense(1)]), ROWS, LABELS > 0, {}),
    "a regression": (lambda: gn.Sequential([gn.LayerNorm(), gn.Dense(2)]), ROWS, ROWS[:, :2], {}),
    "several answers": (lambda: gn.Sequential([gn.Dense(2), gn.Sigmoid()]), ROWS, (ROWS[:, :2] > 0) * 1.0, {}),
    "tokens": (
        lambda: gn.Sequential([gn.Embedding(9, 4), gn.GlobalAveragePool2D(), gn.Dense(3)]),
        CHANCE.integers(0, 9, (24, 5)), LABELS, {},
    ),
    "larger images": (
        lambda: gn.Sequential([gn.ConvTranspose2D(2, 2, 2, "same"), gn.MaxPool2D(3, 2, 1), gn.Flatten(), gn.Dense(3)]),
        IMAGES, LABELS, {},
    ),
    "frozen": (lambda: frozen(of_images()), IMAGES, LABELS, {}),
}  # fmt: skip


def frozen(model: gn.Sequential) -> gn.Sequential:
    model.layers[0].trainable = model.layers[1].trainable = False
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_to_the_last_bit_and_trains_on_to_the_same(name: str, tmp_path: Path) -> None:
    make, x, y, options = NETWORKS[name]
    model = make()
    model.fit(x, y, **QUIET)
    model.export_onnx(tmp_path / "m.onnx", **options)
    again = gn.load_onnx(tmp_path / "m.onnx", "cpu")
    assert same(model, again)
    assert (model.predict_proba(x) == again.predict_proba(x)).all()
    assert (model.predict(x) == again.predict(x)).all()
    assert described(model) == described(again)
    for each in (model, again):
        each.fit(x, y, optimizer=gn.Adam(0.01), **QUIET)
    assert same(model, again)
    assert model.steps_trained == again.steps_trained > 0


@pytest.mark.parametrize("name", sorted(recipes()))
def test_the_network_of_every_recipe_comes_back_to_the_last_bit(name: str, tmp_path: Path) -> None:
    source = gn.load_data("digits").train.first(64)
    x = np.asarray(source.inputs).reshape(-1, 8, 8, 1)
    experiment = read_experiment(name)
    if experiment.data.source == "mnist":  # the networks alone, which need no such images but their size
        x = np.pad(x, ((0, 0), (10, 10), (10, 10), (0, 0)))
    data = gn.Data("small", gn.Samples(x, source.targets), None, tuple("0123456789"))
    if experiment.data.source.startswith("cifar"):
        data = coloured(32)
        x = np.asarray(data.train.inputs)
    model = experiment.model(data)
    model.fit(data, optimizer=gn.SGD(0.01), batch_size=32, epochs=1, progress=False, device="cpu")
    model.export_onnx(tmp_path / "m.onnx")
    again = gn.load_onnx(tmp_path / "m.onnx", "cpu")
    assert (model.predict_proba(x) == again.predict_proba(x)).all()
    for each in (model, again):
        each.fit(data, optimizer=gn.SGD(0.01), batch_size=32, epochs=1, progress=False, device="cpu")
    assert same(model, again)


def test_the_columns_of_a_table_come_back(folder: Path) -> None:
    rows = "\n".join(f"{i},{'red' if i % 2 else 'blue'},{2 * i}" for i in range(40))
    (folder / "t.csv").write_text(f"a,colour,price\n{rows}\n")
    data = gn.load_data("t.csv")
    model = gn.Sequential([gn.Dense(4), gn.ReLU(), gn.Dense(1)])
    model.fit(data, **{**QUIET, "batch_size": 16})
    for options in ({}, {"raw": True}):
        model.export_onnx("m.onnx", **options)
        again = gn.load_onnx("m.onnx", "cpu")
        assert again.trained_on == model.trained_on
        assert again.task is model.task
        assert (again.predict_proba(data.train.inputs) == model.predict_proba(data.train.inputs)).all()


def test_a_description_that_is_of_another_graph_is_not_believed(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Flatten(), gn.Dense(3), gn.ReLU()])
    model.build((8, 6, 3), device="cpu")
    model.export_onnx(tmp_path / "m.onnx")
    made = onnx.load(tmp_path / "m.onnx")
    made.graph.node[-1].op_type = "Tanh"
    again = loaded(made.SerializeToString(), tmp_path)
    assert repr(again) == "Sequential([Flatten(), Dense(3), Tanh()])"
    given = next(entry for entry in made.metadata_props if entry.key == "gpunn")
    for wrong in ("{", "[]", '{"format": 1}', given.value.replace('"ReLU"', '"Softplus"')):
        given.value = wrong
        assert repr(loaded(made.SerializeToString(), tmp_path)) == "Sequential([Flatten(), Dense(3), Tanh()])"


def test_weights_that_were_changed_in_the_file_are_those_that_come(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Dense(3), gn.Dropout(0.2), gn.Dense(2)]).build((4,), device="cpu")
    model.export_onnx(tmp_path / "m.onnx")
    made = onnx.load(tmp_path / "m.onnx")
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(3, 4), "dense1.w"))
    again = loaded(made.SerializeToString(), tmp_path)
    assert (again.arrays()["dense1.w"] == weights(3, 4)).all()
    assert described(again) == described(model)  # with Dropout, which the graph does not show


def loaded(content: bytes, tmp_path: Path, **options: Any) -> gn.Sequential:
    (tmp_path / "other.onnx").write_bytes(content)
    return gn.load_onnx(tmp_path / "other.onnx", "cpu", **options)


def agree(content: bytes, x: NDArray[Any], tmp_path: Path, given: NDArray[Any] | None = None, **options: Any) -> str:
    """What is made of a file: it gives onnxruntime's answers, and can be trained on."""
    model = loaded(content, tmp_path, **options)
    wanted = run(content, x)
    found = model.predict_proba(x if given is None else given)
    found = found.transpose(0, 3, 1, 2) if found.shape != wanted.shape and found.ndim == 4 else found
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())
    if found.ndim == 2:
        before, x = model.arrays(), x if given is None else given
        model.fit(x, np.zeros((len(x), found.shape[1])), loss="mse", optimizer=gn.SGD(1e-4), **QUIET)
        assert not before or not all((model.arrays()[name] == value).all() for name, value in before.items())
    return repr(model)[len("Sequential([") : -2]


NCHW = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
SHAPE = ("batch", 3, 8, 6)
W, B = weights(5, 4), weights(5)
GEMM = node("Gemm", ["input", "w"], ["z"], transB=1)
FOLDED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "MatMul and Add": (
        [node("MatMul", ["input", "w"], ["z"]), node("Add", ["z", "b"], ["output"])], {"w": W.T, "b": B}, "Dense(5)"
    ),
    "Add with the constant first": (
        [node("MatMul", ["input", "w"], ["z"]), node("Add", ["b", "z"], ["output"])],
        {"w": W.T, "b": B[None]}, "Dense(5)",
    ),
    "transposed weights": (
        [node("Transpose", ["w"], ["v"], perm=[1, 0]), node("MatMul", ["input", "v"], ["output"])], {"w": W},
        "Dense(5, bias=False)",
    ),
    "alpha and beta": (
        [node("Gemm", ["input", "w", "b"], ["output"], alpha=0.5, beta=2.0, transB=1)], {"w": W, "b": B}, "Dense(5)"
    ),
    "constants as nodes": (
        [helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(W)),
         node("Identity", ["w"], ["v"]), node("Gemm", ["input", "v"], ["output"], transB=1)], {}, "Dense(5, bias=False)"
    ),
    "Identity and Dropout": (
        [node("Identity", ["input"], ["a"]), node("Dropout", ["a"], ["c"]), node("Relu", ["c"], ["output"])], {},
        "Dropout(0.5), ReLU()",
    ),
    "numbers of each feature": (
        [node("Mul", ["input", "c"], ["a"]), node("Sub", ["d", "a"], ["e"]),
         node("Gemm", ["e", "w"], ["output"], transB=1)],
        {"w": W, "c": weights(4), "d": np.float32(2)}, "BatchNorm(), BatchNorm(), Dense(5, bias=False)",
    ),
    "a clipped ReLU": (
        [node("Gemm", ["input", "w"], ["z"], transB=1), node("Clip", ["z", "low", "high"], ["output"])],
        {"w": W, "low": np.float32(0), "high": np.float32(1)},
        "Dense(5, bias=False), Activation.from_equation('clip', '(min(max(z, 0.0), 1.0))', check=False)",
    ),
    "SiLU": (
        [GEMM, node("Sigmoid", ["z"], ["s"]), node("Mul", ["z", "s"], ["output"])],
        {"w": W}, "Dense(5, bias=False), Activation.from_equation('mul', '((z) * ((sigmoid(z))))', check=False)",
    ),
    "PRelu": (
        [node("Gemm", ["input", "w"], ["z"], transB=1), node("PRelu", ["z", "a"], ["output"])],
        {"w": W, "a": np.abs(weights(5))}, "Dense(5, bias=False), Activation...",
    ),
    "a residual connection": (
        [GEMM, node("Relu", ["z"], ["a"]), node("Add", ["input", "a"], ["output"])],
        {"w": weights(4, 4)}, "Residual([Dense(4, bias=False), ReLU()])",
    ),
    "a residual connection within one": (
        [node("Gemm", ["input", "w"], ["z"], transB=1), node("Tanh", ["z"], ["a"]), node("Add", ["z", "a"], ["c"]),
         node("Relu", ["c"], ["d"]), node("Add", ["d", "input"], ["output"])],
        {"w": weights(4, 4)}, "Residual([Dense(4, bias=False), Residual([Tanh()]), ReLU()])",
    ),
    "side by side": (
        [node("Gemm", ["input", "w"], ["z"], transB=1), node("Concat", ["z", "input"], ["output"], axis=-1)],
        {"w": W}, "Concatenate([Dense(5, bias=False)], [])",
    ),
    "what no output needs": (
        [node("Tanh", ["input"], ["unused"]), node("Gemm", ["input", "w"], ["output"], transB=1)], {"w": W},
        "Dense(5, bias=False)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_equivalent_is_folded(name: str, tmp_path: Path) -> None:
    nodes, arrays, layers = FOLDED[name]
    found = agree(graph(nodes, weights=arrays), ROWS, tmp_path)
    if "numbers of each" not in name and name != "PRelu":
        assert found == layers
    else:
        assert found.split("(")[0] == layers.split("(")[0]


K = weights(4, 3, 3, 3)
FOLDED_IMAGES: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "global average and Flatten": (
        [node("GlobalAveragePool", ["input"], ["a"]), node("Flatten", ["a"], ["output"])], {}, "GlobalAveragePool2D()"
    ),
    "global average and Reshape": (
        [node("GlobalAveragePool", ["input"], ["a"]), node("Reshape", ["a", "s"], ["output"])],
        {"s": np.array([-1, 3])}, "GlobalAveragePool2D()",
    ),
    "a mean of height and width": (
        [node("ReduceMean", ["input", "axes"], ["output"], keepdims=0)], {"axes": np.array([-2, -1])},
        "GlobalAveragePool2D()",
    ),
    "global average and Squeeze": (
        [node("GlobalAveragePool", ["input"], ["a"]), node("Squeeze", ["a", "s"], ["output"])],
        {"s": np.array([2, 3])}, "GlobalAveragePool2D()",
    ),
    "global maximum": ([node("GlobalMaxPool", ["input"], ["output"])], {}, "MaxPool2D((8, 6))"),
    "SAME_UPPER": (
        [node("Conv", ["input", "w"], ["output"], auto_pad="SAME_UPPER", strides=[2, 2])], {"w": K},
        "Conv2D(4, stride=2, padding='same', bias=False)",
    ),
    "a bias behind": (
        [node("Conv", ["input", "w"], ["a"], pads=[1, 1, 1, 1]), node("Add", ["a", "b"], ["output"])],
        {"w": K, "b": weights(4, 1, 1)}, "Conv2D(4, padding=1)",
    ),
    "asymmetric pads that are those of same": (
        [node("Conv", ["input", "w"], ["output"], pads=[0, 0, 1, 1], strides=[2, 2])], {"w": K},
        "Conv2D(4, stride=2, padding='same', bias=False)",
    ),
    "groups": (
        [node("Conv", ["input", "w"], ["output"], group=3)], {"w": weights(6, 1, 2, 2)},
        "Conv2D(6, size=2, bias=False, groups=3)",
    ),
    "channels last in between": (
        [node("Transpose", ["input"], ["a"], perm=[0, 2, 3, 1]), node("Mul", ["a", "c"], ["d"]),
         node("Transpose", ["d"], ["e"], perm=[0, 3, 1, 2]), node("Conv", ["e", "w"], ["output"])],
        {"c": weights(3), "w": K}, "BatchNorm(), Conv2D(4, bias=False)",
    ),
    "padded pooling": (
        [node("MaxPool", ["input"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
         node("AveragePool", ["a"], ["output"], kernel_shape=[3, 2], strides=[1, 2], auto_pad="SAME_UPPER")], {},
        "MaxPool2D(3, stride=2, padding=1), AveragePool2D((3, 2), stride=(1, 2), padding='same')",
    ),
    "zeros that count": (
        [node("AveragePool", ["input"], ["output"], kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)], {},
        "AveragePool2D(2, stride=1, padding=1, count_include_pad=True)",
    ),
    "a transposed convolution": (
        [node("ConvTranspose", ["input", "w", "b"], ["output"], strides=[2, 2], pads=[1, 1, 1, 1])],
        {"w": weights(3, 4, 3, 3), "b": weights(4)}, "ConvTranspose2D(4, stride=2, padding=1)",
    ),
    "a transposed convolution to twice the size": (
        [node("ConvTranspose", ["input", "w"], ["a"], strides=[2, 2], pads=[0, 0, 1, 1]),
         node("Add", ["a", "b"], ["output"])],
        {"w": weights(3, 4, 3, 3), "b": weights(4, 1, 1)}, "ConvTranspose2D(4, stride=2, padding='same')",
    ),
    "a row of channels last": (
        [node("Conv", ["input", "k"], ["a"]), node("Transpose", ["a"], ["c"], perm=[0, 2, 3, 1]),
         node("Flatten", ["c"], ["d"]), node("Relu", ["d"], ["e"]),
         node("Gemm", ["e", "w", "b"], ["output"], transB=1)],
        {"k": K, "w": weights(5, 96), "b": B}, "Conv2D(4, bias=False), Flatten(), ReLU(), Dense(5)",
    ),
    "rows by the size of the batch": (  # x.view(x.size(0), -1), as PyTorch's older exporter writes it
        [node("Conv", ["input", "k"], ["a"]), node("Shape", ["a"], ["s"]), node("Gather", ["s", "at0"], ["n"], axis=0),
         node("Unsqueeze", ["n", "axis"], ["m"]), node("Concat", ["m", "rest"], ["t"], axis=0),
         node("Reshape", ["a", "t"], ["d"]), node("Gemm", ["d", "w"], ["output"], transB=1)],
        {"k": K, "at0": np.int64(0), "axis": np.array([0]), "rest": np.array([-1]), "w": weights(5, 96)},
        "Conv2D(4, bias=False), Flatten(), Dense(5, bias=False)",
    ),
    "rows by sizes of the input and products of others": (
        [node("Shape", ["input"], ["s"], end=1), node("Conv", ["input", "k"], ["a"]), node("Shape", ["a"], ["r"]),
         node("Slice", ["r", "one", "two"], ["c"]), node("Gather", ["r", "two"], ["h"]),
         node("Gather", ["r", "three"], ["v"]), node("Mul", ["c", "h"], ["ch"]), node("Mul", ["ch", "v"], ["f"]),
         node("Concat", ["s", "f"], ["t"], axis=0), node("Reshape", ["a", "t"], ["d"]),
         node("Gemm", ["d", "w"], ["output"], transB=1)],
        {"k": K, "one": np.array([1]), "two": np.array([2]), "three": np.array([3]), "w": weights(5, 96)},
        "Conv2D(4, bias=False), Flatten(), Dense(5, bias=False)",
    ),
    "a residual connection with a projection": (
        [node("Conv", ["input", "k"], ["a"], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["c"]),
         node("Conv", ["input", "p"], ["d"]), node("Add", ["c", "d"], ["output"])],
        {"k": K, "p": weights(4, 3, 1, 1)},
        "Residual([Conv2D(4, padding=1, bias=False), ReLU()], projection=Conv2D(4, size=1, bias=False))",
    ),
    "channels side by side": (
        [node("Conv", ["input", "k"], ["a"], pads=[1, 1, 1, 1]), node("MaxPool", ["input"], ["d"], kernel_shape=[1, 1]),
         node("Concat", ["a", "d", "input"], ["output"], axis=1)],
        {"k": K}, "Concatenate([Conv2D(4, padding=1, bias=False)], [MaxPool2D(1)], [])",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED_IMAGES)
def test_what_is_equivalent_for_images_is_folded(name: str, tmp_path: Path) -> None:
    nodes, arrays, layers = FOLDED_IMAGES[name]
    found = agree(graph(nodes, SHAPE, arrays), NCHW, tmp_path, IMAGES)
    if name != "channels last in between":
        assert found == layers


def test_images_that_the_file_takes_channels_last_come_as_they_are(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["input"], ["a"], perm=[0, 3, 1, 2]), node("Conv", ["a", "w"], ["c"])]
    nodes.append(node("Flatten", ["c"], ["output"]))
    agree(graph(nodes, ("n", 8, 6, 3), {"w": K}), IMAGES, tmp_path)


def test_a_size_that_the_file_leaves_open_is_given(tmp_path: Path) -> None:
    nodes = [node("Conv", ["input", "w"], ["a"]), node("GlobalAveragePool", ["a"], ["c"])]
    content = graph([*nodes, node("Flatten", ["c"], ["output"])], ("n", 3, "h", "w"), {"w": K})
    with pytest.raises(gn.GpunnError, match=r"has no fixed size, \(n, 3, h, w\): say how large samples are"):
        loaded(content, tmp_path)
    agree(content, NCHW, tmp_path, IMAGES, input_shape=(8, 6, 3))


EMBEDDED: dict[str, tuple[list[Any], list[str]]] = {
    "and flattened": (
        [node("Flatten", ["a"], ["c"]), node("Gemm", ["c", "w"], ["output"], transB=1)],
        ["Embedding", "Flatten", "Dense"],
    ),
    "and their mean": (
        [node("ReduceMean", ["a", "axes"], ["c"], keepdims=0), node("Gemm", ["c", "v"], ["output"], transB=1)],
        ["Embedding", "GlobalAveragePool2D", "Dense"],
    ),
    "and convolved": (
        [node("Transpose", ["a"], ["c"], perm=[0, 2, 1]), node("Unsqueeze", ["c", "two"], ["d"]),
         node("Conv", ["d", "k"], ["e"]), node("Flatten", ["e"], ["output"])],
        ["Embedding", "Conv2D", "Flatten"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EMBEDDED)
def test_tokens_that_pick_rows_are_embedded(name: str, tmp_path: Path) -> None:
    nodes, kinds = EMBEDDED[name]
    arrays = {"table": weights(9, 4), "w": weights(2, 20), "v": weights(2, 4), "k": weights(2, 4, 1, 3)}
    picked = [node("Gather", ["table", "input"], ["a"]), *nodes]
    content = graph(picked, ("n", 5), {**arrays, "axes": np.array([1]), "two": np.array([2])}, kind=7)
    tokens = np.random.default_rng(0).integers(0, 9, (24, 5))
    model = loaded(content, tmp_path)
    assert np.abs(model.predict_proba(tokens) - run(content, tokens)).max() <= 1e-5
    assert [type(layer).__name__ for layer in model.layers] == kinds
    model.fit(tokens, LABELS % 2, **QUIET)


def test_bytes_are_scaled_as_the_file_scales_them(tmp_path: Path) -> None:
    x = (NCHW * 40 + 128).clip(0, 255).astype(np.uint8)
    nodes = [node("Cast", ["input"], ["a"], to=1), node("Div", ["a", "c"], ["d"]), node("Conv", ["d", "w"], ["e"])]
    content = graph([*nodes, node("Flatten", ["e"], ["output"])], SHAPE, {"w": K, "c": np.float32(255)}, kind=2)
    model = loaded(content, tmp_path)
    images = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    assert model.input_scale == pytest.approx(1 / 255)
    assert np.abs(model.predict_proba(images) - run(content, x)).max() <= 1e-5


def test_float64_stays_float64(tmp_path: Path) -> None:
    content = graph([node("Gemm", ["input", "w"], ["output"], transB=1)], weights={"w": W.astype(np.float64)}, kind=11)
    model = loaded(content, tmp_path)
    assert model.dtype == "float64"
    assert np.abs(model.predict_proba(ROWS) - ROWS.astype(np.float64) @ W.T).max() < 1e-12


def of_conv(**attributes: Any) -> bytes:
    return graph([node("Conv", ["input", "w"], ["output"], name="conv", **attributes)], SHAPE, {"w": K})


def of_pool(**attributes: Any) -> bytes:
    return graph([node("MaxPool", ["input"], ["output"], name="pool", kernel_shape=[2, 2], **attributes)], SHAPE)


def of_one(kind: str, shape: Any = ("n", 4), arrays: dict[str, Any] | None = None, **attributes: Any) -> bytes:
    inputs = ["input", *(arrays or {})]
    return graph([node(kind, inputs, ["output"], name="it", **attributes)], shape, arrays)


def external() -> bytes:
    model = onnx.ModelProto.FromString(of_conv())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=os.devnull)
    return model.SerializeToString()  # type: ignore[no-any-return]


def changed(content: bytes, change: Any) -> bytes:
    model = onnx.ModelProto.FromString(content)
    change(model)
    return model.SerializeToString()  # type: ignore[no-any-return]


def named_domain(model: Any) -> None:
    model.graph.node[0].domain = "com.microsoft"


REFUSED: dict[str, tuple[Any, str]] = {
    "dilations": (lambda: of_conv(dilations=[2, 2]), "node 'conv', operator Conv: dilations = [2, 2]"),
    "pads of one side": (lambda: of_conv(pads=[2, 0, 0, 0]), "node 'conv', operator Conv: pads = [2, 0, 0, 0]"),
    "pads below 0": (lambda: of_conv(pads=[-1, 0, 0, 0]), "node 'conv', operator Conv: pads = [-1, 0, 0, 0]"),
    "groups that do not fit": (lambda: of_conv(group=2), "node 'conv', operator Conv: group = 2"),
    "auto_pad": (lambda: of_conv(auto_pad="SOME"), "node 'conv', operator Conv: auto_pad = SOME"),
    "strides of 0": (lambda: of_conv(strides=[0, 1]), "node 'conv', operator Conv: strides = [0, 1]"),
    "an attribute of another type": (lambda: of_conv(group=1.5), "node 'conv', operator Conv: group = 1.5"),
    "an unknown attribute": (lambda: of_conv(secret=3), "node 'conv', operator Conv: secret = 3"),
    "another domain": (lambda: changed(of_conv(), named_domain), "operator Conv: domain = 'com.microsoft'"),
    "a convolution of sound": (lambda: of_one("Conv", ("n", 3, 8), {"w": weights(2, 3, 3)}), "(n, 3, 8): expected"),
    "gaps in a window": (lambda: of_pool(dilations=[2, 2]), "node 'pool', operator MaxPool: dilations = [2, 2]"),
    "column by column": (lambda: of_pool(storage_order=1), "node 'pool', operator MaxPool: Indices"),
    "a recurrent layer": (lambda: of_one("LSTM", hidden_size=3), "node 'it', operator LSTM: it: gpunn has no layer"),
    "Softmax of images": (lambda: of_one("Softmax", SHAPE), "operator Softmax: an input (3, 8, 6) of each sample"),
    "Softmax of samples": (lambda: of_one("Softmax", axis=0), "node 'it', operator Softmax: axis = 0"),
    "a product of images": (lambda: of_one("MatMul", SHAPE, {"w": weights(6, 2)}), "flatten it before"),
    "transA": (lambda: of_one("Gemm", arrays={"w": W}, transA=1), "node 'it', operator Gemm: transA = 1"),
    "weights that do not fit": (lambda: of_one("Gemm", arrays={"w": W}), "weights of (4, 5): expected (units, 4)"),
    "a matrix of biases": (
        lambda: of_one("Gemm", arrays={"w": W.T, "b": weights(3, 5)}), "operator Gemm: C of (3, 5): expected one"),
    "training": (
        lambda: of_one("BatchNormalization", arrays=dict.fromkeys("abcd", np.ones(4, "f4")), training_mode=1),
        "operator BatchNormalization: training_mode = 1"),
    "another order of axes": (lambda: of_one("Transpose", SHAPE, perm=[0, 1, 3, 2]), "perm = [0, 1, 3, 2]"),
    "another shape": (lambda: of_one("Reshape", SHAPE, {"s": np.array([-1, 2, 72])}), "shape = [-1, 2, 72]"),
    "a size computed of the batch": (
        lambda: graph([node("Shape", ["input"], ["s"], end=1), node("Mul", ["s", "two"], ["m"]),
                       node("Concat", ["m", "rest"], ["t"], axis=0), node("Reshape", ["input", "t"], ["output"])],
                      SHAPE, {"two": np.array([2]), "rest": np.array([72])}), "operator Mul: its inputs: expected"),
    "a number that the size of the batch picks": (
        lambda: graph([node("Shape", ["input"], ["s"], end=1), node("Gather", ["c", "s"], ["f"]),
                       node("Add", ["input", "f"], ["output"])], weights={"c": np.float32([5])}),
        "operator Gather: its inputs: expected values without the batch size"),
    "a sum with the size of the batch": (
        lambda: graph([node("Shape", ["input"], ["s"], end=1), node("Cast", ["s"], ["f"], to=1),
                       node("Add", ["input", "f"], ["output"])]),
        "operator Add: its inputs: expected values without the batch size"),
    "log-probabilities": (lambda: of_one("LogSoftmax"), "gpunn has no layer for this operator: export it without"),
    "images alone": (lambda: of_one("Mul", SHAPE, {"c": weights(3, 8, 6)}), "numbers of (3, 8, 6): expected one"),
    "a division by 0": (lambda: of_one("Div", arrays={"c": np.float32(0)}), "operator Div: numbers: expected finite"),
    "branches that cross": (
        lambda: graph([node("Tanh", ["input"], ["a"]), node("Sigmoid", ["a"], ["c"]),
                       node("Concat", ["a", "c", "input"], ["output"], name="join", axis=1)]),
        "node 'join', operator Concat: inputs a, c, input"),
    "another file": (external, "lies in another file, which is not opened"),
    "an old opset": (lambda: changed(of_conv(), lambda m: setattr(m.opset_import[0], "version", 5)), "it has opset 5"),
    "a new opset": (lambda: changed(of_conv(), lambda m: setattr(m.opset_import[0], "version", 99)), "it has opset 99"),
    "no opset": (lambda: changed(of_conv(), lambda m: m.ClearField("opset_import")), "it has opset none"),
    "half precision": (
        lambda: of_one("Gemm", arrays={"w": W.astype(np.float16)}, transB=1), "numbers of the type FLOAT16"),
    "whole numbers": (lambda: graph([node("Relu", ["input"], ["output"])], kind=7), "inputs must be integers if"),
    "truth": (lambda: graph([node("Relu", ["input"], ["output"])], kind=9), "the input 'input' is bool"),
    "numbers that pick rows": (
        lambda: graph([node("Gather", ["w", "input"], ["a"]), node("Flatten", ["a"], ["output"])], weights={"w": W}),
        "its inputs must be integers if"),
    "groups of transposed convolutions": (
        lambda: of_one("ConvTranspose", SHAPE, {"w": weights(3, 2, 2, 2)}, group=3), "ConvTranspose: group = 3"),
    "a size of transposed convolutions": (
        lambda: of_one("ConvTranspose", SHAPE, {"w": weights(3, 2, 2, 2)}, output_shape=[9, 9]), "output_shape: exp"),
    "padding without a pixel": (
        lambda: of_pool(pads=[2, 2, 2, 2]), "operator MaxPool: its window: padding of MaxPool2D must be below"),
    "texts": (lambda: graph([node("Relu", ["input"], ["output"])], kind=8), "the input 'input' is STRING"),
    "two outputs": (
        lambda: changed(of_conv(), lambda m: m.graph.output.append(helper.make_tensor_value_info("w", 1, None))),
        "it has 2 outputs"),
    "an output of nothing": (
        lambda: changed(of_conv(), lambda m: setattr(m.graph.output[0], "name", "nowhere")), "is not made of the"),
    "no layers": (lambda: of_one("Identity"), "it has 0 layers"),
    "a circle": (
        lambda: graph([node("Add", ["input", "c"], ["a"]), node("Relu", ["a"], ["c"]),
                       node("Relu", ["c"], ["output"])]),
        "branches must begin with one input"),
    "a name twice": (
        lambda: graph([node("Relu", ["input"], ["output"]), node("Tanh", ["input"], ["output"])]), "two nodes make"),
    "too many nodes": (
        lambda: graph([node("Relu", ["input"], ["output"])] * 2001), "it has 2,001 nodes, gpunn reads at most 2,000"),
    "more numbers than it has": (
        lambda: changed(of_conv(), lambda m: m.graph.initializer[0].dims.append(9)), "must have 972 numbers, got 108"),
    "a sum of one": (lambda: of_one("Add"), "node 'it', operator Add: 1 inputs: expected 2"),
    "PRelu without slopes": (lambda: of_one("PRelu"), "node 'it', operator PRelu: 1 inputs: expected 2"),
    "Reshape without a shape": (lambda: of_one("Reshape", SHAPE), "node 'it', operator Reshape: shape = []"),
    "a node without an output": (
        lambda: graph([node("Relu", ["input"], [], name="it"), node("Relu", ["input"], ["output"])]),
        "node 'it', operator Relu: it has no output"),
    "no ONNX file": (lambda: b"\x93NUMPY" + bytes(100), "is no ONNX file"),
    "an empty file": (lambda: b"", "it has opset none"),
    "a file that ends early": (lambda: of_conv()[:-9], "is no ONNX file: it ends within a field"),
    "a model file": (lambda: b'{"__metadata__": {}}' * 9, "is no ONNX file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_gpunn_has_no_layer_for_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    make, wanted = REFUSED[name]
    with pytest.raises(gn.GpunnError) as refused:
        loaded(make(), tmp_path)
    one_line(refused.value)
    assert wanted in str(refused.value)
    assert "other.onnx" in str(refused.value)


def test_there_are_twenty_refusals_and_the_program_ends_with_1(folder: Path) -> None:
    assert len(REFUSED) >= 20
    (folder / "other.onnx").write_bytes(of_conv(dilations=[2, 2]))
    done = gpunn("import", "other.onnx")
    assert (done.code, done.out) == (1, "")
    assert "node 'conv', operator Conv: dilations = [2, 2]: gpunn has no dilated windows" in done.err
    assert [path.name for path in folder.iterdir() if "safetensors" in path.name] == []


@pytest.mark.parametrize("wrong", ["nowhere.onnx", ".", "folder"])
def test_a_path_that_names_no_file_is_said(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(gn.GpunnError) as refused:
        gn.load_onnx(wrong)
    one_line(refused.value)


def test_the_program_imports_what_it_exported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    assert gpunn("train", "--recipe", "tiny.toml", "--out", "run", "--epochs", "1").code == 0
    assert gpunn("export", "run", "model.onnx").code == 0
    done = gpunn("import", "model.onnx")
    assert (done.code, done.err) == (0, "")
    assert "model.safetensors" in done.out
    written, again = (gn.load_model(path) for path in ("run/model.safetensors", "model.safetensors"))
    assert same(written, again)
    assert written.class_names == again.class_names
    assert json.loads(json.dumps(repr(written))) == repr(again)
    assert gpunn("import", "model.onnx", "other.safetensors").code == 0
    assert (folder / "other.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    done = gpunn("evaluate", "model.safetensors", "digits")
    assert done.code == 0, done.err


def test_the_network_that_is_read_is_not_written_over(folder: Path) -> None:
    (folder / "within").mkdir()
    model = gn.Sequential([gn.Dense(3)]).build((4,), device="cpu")
    model.save("a.safetensors")
    model.export_onnx("a.onnx")
    os.link("a.onnx", "linked.onnx")
    held = (folder / "a.safetensors").read_bytes()
    done = gpunn("import", "a.onnx")  # which may have been trained on since
    assert (done.code, done.out) == (2, "")
    assert "a.safetensors is there already: name the file to write" in done.err
    assert (folder / "a.safetensors").read_bytes() == held
    for command in (
        ("export", "a.safetensors", "a.safetensors"),
        ("export", "a.safetensors", "within/../a.safetensors"),
        ("import", "a.onnx", str(folder / "a.onnx")),
        ("import", "a.onnx", "linked.onnx"),
    ):
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        done = gpunn(*command)
        assert (done.code, done.out) == (2, "")
        assert "would be written over" in done.err
        assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_an_onnx_file_in_place_of_a_model_file_is_told_how_it_becomes_one(folder: Path) -> None:
    gn.Sequential([gn.Dense(3)]).build((64,), device="cpu").export_onnx("a.onnx")
    done = gpunn("evaluate", "a.onnx", "digits")
    assert (done.code, done.out) == (1, "")
    assert "import it first: gpunn import a.onnx" in done.err
