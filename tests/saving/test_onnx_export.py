"""ONNX files give the network's answers: run by onnxruntime, by the bundled recipes, layer by layer, by opset."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import gpunn, own_folder, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.experiments.experiment import read_experiment, recipes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from support.onnx_helpers import coloured, compare, exported, metadata, operators, outputs_of, run  # noqa: E402

from gpunn.saving.onnx.export import checked_graph  # noqa: E402

folder = pytest.fixture(own_folder)
IMAGES = np.random.default_rng(0).normal(size=(301, 9, 7, 3)).astype(np.float32)
ROWS = np.ascontiguousarray(IMAGES.reshape(301, -1)[:, :6])
QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "epochs": 1}


def shape_for(layers: Any) -> tuple[int, ...]:
    return (9 * 7 * 3,) if layers[0].takes_rows else (9, 7, 3)


def built(*layers: Any, seed: int = 1) -> gn.Sequential:
    """A network for IMAGES, with values in its statistics and parameters that are not those of the beginning."""
    model = gn.Sequential(list(layers)).build(shape_for(layers), 8, "cpu", seed=seed)
    chance = np.random.default_rng(seed)
    moved = {name: a + 0.2 * chance.random(a.shape) for name, a in model.arrays().items()}
    model.load_arrays(moved)
    return model


def equation(text: str, parameters: dict[str, float] | None = None) -> gn.Activation:
    return gn.Activation.from_equation("own", text, parameters)


LAYERS = {
    "dense": lambda: [gn.Flatten(), gn.Dense(4)],
    "dense without bias": lambda: [gn.Flatten(), gn.Dense(4, bias=False)],
    "flat rows": lambda: [gn.Dense(4)],
    "valid": lambda: [gn.Conv2D(4, (3, 2))],
    "strided": lambda: [gn.Conv2D(4, 3, stride=(2, 3), bias=False)],
    "padded": lambda: [gn.Conv2D(4, 3, padding=(2, 1), stride=2)],
    "same": lambda: [gn.Conv2D(4, 3, padding="same")],
    "same with odd zeros": lambda: [gn.Conv2D(4, (4, 2), padding="same", stride=2)],
    "same with strides beyond the filter": lambda: [gn.Conv2D(4, 1, padding="same", stride=3)],
    "groups": lambda: [gn.Conv2D(6, 3, groups=3, padding="same")],
    "depthwise": lambda: [gn.Conv2D(6, (2, 3), groups="depthwise", stride=2, bias=False)],
    "a chain": lambda: [gn.Chain([gn.Conv2D(4), gn.ReLU()]), gn.Chain([gn.Flatten(), gn.Dense(3)])],
    "residual": lambda: [gn.Residual([gn.Conv2D(3, padding="same"), gn.BatchNorm(), gn.ReLU()]), gn.ReLU()],
    "residual with a projection": lambda: [gn.Residual([gn.Conv2D(4, padding="same", stride=2)])],
    "residual with its own": lambda: [gn.Residual([gn.Conv2D(4)], [gn.Conv2D(4, 3, bias=False), gn.Tanh()])],
    "side by side": lambda: [gn.Concatenate([gn.Conv2D(4, padding="same")], [], [gn.Residual([gn.ReLU()])])],
    "features side by side": lambda: [gn.Flatten(), gn.Concatenate([gn.Dense(4)], [gn.Dense(3), gn.Tanh()])],
    "max pool": lambda: [gn.MaxPool2D(2)],
    "overlapping max pool": lambda: [gn.MaxPool2D((3, 2), 1)],
    "average pool": lambda: [gn.AveragePool2D((2, 3))],
    "padded max pool": lambda: [gn.MaxPool2D(3, 2, (1, 2))],
    "same max pool": lambda: [gn.MaxPool2D((3, 2), (2, 3), "same")],
    "padded average pool": lambda: [gn.AveragePool2D(3, 2, 1)],
    "average pool of padding": lambda: [gn.AveragePool2D((3, 4), (2, 1), (1, 2), count_include_pad=True)],
    "same average pool": lambda: [gn.AveragePool2D(4, 3, "same")],
    "transposed": lambda: [gn.ConvTranspose2D(4, (3, 2), bias=False)],
    "strided and transposed": lambda: [gn.ConvTranspose2D(4, 3, (2, 3), padding=1, output_padding=(1, 2))],
    "same and transposed": lambda: [gn.ConvTranspose2D(4, (5, 2), (2, 3), "same")],
    "global average": lambda: [gn.GlobalAveragePool2D()],
    "batch norm of images": lambda: [gn.BatchNorm(1e-3)],
    "batch norm of features": lambda: [gn.Flatten(), gn.BatchNorm()],
    "layer norm of images": lambda: [gn.LayerNorm(1e-3)],
    "layer norm of features": lambda: [gn.Flatten(), gn.LayerNorm()],
    "dropout": lambda: [gn.Dropout(0.9)],
    "relu": lambda: [gn.ReLU()],
    "leaky relu": lambda: [gn.LeakyReLU(-0.3)],
    "softplus": lambda: [gn.Softplus()],
    "sigmoid": lambda: [gn.Sigmoid()],
    "tanh": lambda: [gn.Tanh()],
    "softmax": lambda: [gn.Flatten(), gn.Dense(5), gn.Softmax()],
    "swish that learns": lambda: [equation("z / (1 + exp(-a * z))", {"a": 1.0})],
    "a parameter a feature": lambda: [gn.Flatten(), equation("max(z, 0) + a * min(z, 0)", {"a": 0.25})],
    "mish": lambda: [equation("z * tanh(log(1 + exp(z)))")],
    "elu": lambda: [equation("where(z > 0, z, exp(z) - 1)")],
    "gelu": lambda: [equation("z / 2 * (1 + erf(z / sqrt(2)))")],
    "functions": lambda: [equation("sin(z) + cos(z) * atan(z) - abs(z)**1.5 + sinh(min(max(z, -5), 5))")],
    "more functions": lambda: [equation("sign(z) * sqrt(z**2 + 1) + tan(z / 9) * where(z < 1, 1, 2)")],
    "comparisons": lambda: [equation("where(z >= 1, z**3, where(z < -1, -z, 2)) * where(z != 0, 1, 0) + z")],
    "equation without a step": lambda: [equation("z + 0", None)],
}  # fmt: skip


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same_there(name: str, layout: str, tmp_path: Path) -> None:
    model = built(*LAYERS[name]())
    path = exported(model, tmp_path, layout=layout)
    wanted, x = model.predict_proba(IMAGES), IMAGES
    if not (is_flat := len(model.input_shape) == 1) and layout == "NCHW":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    answers = run(path, x.transpose(0, 3, 1, 2).reshape(len(x), -1) if is_flat else x)
    if wanted.ndim == 4 and layout == "NCHW":
        answers = answers.transpose(0, 2, 3, 1)
    assert answers.shape == wanted.shape
    assert np.abs(answers - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())
    images_come_out = wanted.ndim == 4
    assert operators(path).count("Transpose") == ((1 + images_come_out) if layout == "NHWC" and not is_flat else 0)


WATCHED = ("dense", "flat rows", "same", "groups", "a chain", "residual with a projection", "side by side", "max pool")
WATCHED += ("features side by side", "transposed", "global average", "layer norm of images", "softmax", "mish")


@pytest.mark.parametrize("name", WATCHED)
def test_a_graph_gives_the_output_of_each_layer_that_is_watched(name: str, tmp_path: Path) -> None:
    model = built(*LAYERS[name](), gn.ReLU(), gn.Dropout())
    names = [layer.name for layer in model.layers]
    content = checked_graph(model, 18, "NHWC", False, False, names).SerializeToString(deterministic=True)
    x = IMAGES.transpose(0, 3, 1, 2).reshape(len(IMAGES), -1) if len(model.input_shape) == 1 else IMAGES
    answers, *seen = outputs_of(content, x)
    plain = run(exported(model, tmp_path), x)
    assert np.array_equal(answers, plain)
    for count, (layer, values) in enumerate(zip(names, seen, strict=True), start=1):
        before = gn.Sequential(model.layers[:count]).build(model.input_shape, 8, "cpu")
        wanted = before.predict_proba(x)
        assert values.shape == wanted.shape, layer
        assert np.abs(values - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max()), layer


def test_layers_within_others_are_watched_by_their_names() -> None:
    inner = [gn.Conv2D(3, padding="same"), gn.ReLU()]
    model = built(gn.Residual([gn.Chain(inner)]), gn.Flatten(), gn.Dense(2))
    convolution, activation = model.layers[0].branches[0][0].branches[0]
    made = checked_graph(model, 18, "NHWC", False, False, [convolution.name, activation.name, "dense1"])
    _, maps, positive, outputs = outputs_of(made.SerializeToString(), IMAGES)
    assert maps.shape == (301, 9, 7, 3)
    assert np.array_equal(positive, np.maximum(maps, 0))
    assert (maps < 0).any()
    assert outputs.shape == (301, 2)


def whole() -> gn.Sequential:
    layers = [gn.Conv2D(4, 3, padding="same", stride=2), gn.BatchNorm(), gn.LayerNorm(), gn.LeakyReLU(), gn.MaxPool2D()]
    layers += [gn.Conv2D(5, 2, padding=1), gn.Softplus(), equation("z / (1 + exp(-a * z))", {"a": 1.0}), gn.Flatten()]
    return built(
        *layers, gn.Dense(7), gn.BatchNorm(), gn.LayerNorm(), gn.Tanh(), gn.Dropout(), gn.Dense(3), gn.Softmax()
    )


@pytest.mark.parametrize("opset", [13, 18])
def test_tokens_are_looked_up_there(opset: int, tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 9, (301, 5))
    model = gn.Sequential([gn.Embedding(9, 4), gn.Conv2D(6, (1, 3)), gn.ReLU(), gn.Flatten(), gn.Dense(2)])
    model.fit(tokens, tokens[:, 0] % 2, **QUIET)
    path = exported(model, tmp_path, opset=opset)
    compare(model, path, tokens)
    assert onnx.load(path).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT64
    assert "whole numbers from 0 to 8" in metadata(path)["preparation"]


@pytest.mark.parametrize("opset", range(13, 29))
def test_every_opset_computes_the_same(opset: int, tmp_path: Path) -> None:
    model = whole()
    path = exported(model, tmp_path, opset=opset)
    assert onnx.load(path).opset_import[0].version == opset
    compare(model, path, IMAGES)


def test_the_file_is_one_that_runtimes_of_2023_read(tmp_path: Path) -> None:
    made = onnx.load(exported(whole(), tmp_path))
    assert (made.ir_version, [(version.domain, version.version) for version in made.opset_import]) == (8, [("", 18)])
    (x,), (y,) = made.graph.input, made.graph.output
    assert x.type.tensor_type.shape.dim[0].dim_param == y.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [dim.dim_value for dim in x.type.tensor_type.shape.dim][1:] == [9, 7, 3]
    assert (x.name, y.name) == ("input", "probabilities")
    assert [node.op_type for node in made.graph.node].count("Transpose") == 1


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_gives_the_same_answers_to_its_whole_validation_set(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = read_experiment(name)
    if experiment.data.source == "mnist":
        monkeypatch.setenv("GPUNN_DATA", str(request.getfixturevalue("mnist_folder").parent))
    data = coloured(600) if experiment.data.source.startswith("cifar") else experiment.load_data()
    model = experiment.model(data)
    few = gn.Data(data.name, data.train.first(256), None, data.class_names)
    model.fit(few, optimizer=gn.SGD(0.01), batch_size=64, **QUIET)
    samples = data.validation or data.train.first(10_000)
    path = exported(model, tmp_path)
    x = np.asarray(samples.inputs).reshape(-1, *data.train.shape)
    compare(model, path, x.astype(np.float32) * np.float32(samples.scale))
    raw = exported(model, tmp_path, raw=True)
    assert np.abs(run(raw, x[:300]) - model.predict_proba(x[:300])).max() <= 1e-5


def test_bytes_are_scaled_within(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 6, 5, 3), np.uint8)
    model = gn.Sequential([gn.Conv2D(4, 3), gn.ReLU(), gn.Flatten(), gn.Dense(2)])
    model.fit(images, np.arange(64) % 2, **QUIET)
    path = exported(model, tmp_path, raw=True)
    assert np.abs(run(path, images) - model.predict_proba(images)).max() <= 1e-5
    assert json.loads(metadata(path)["preparation"]) == {"inside": ["bytes times 0.00392156863"], "outside": []}
    outside = json.loads(metadata(exported(model, tmp_path))["preparation"])
    assert outside == {"inside": [], "outside": ["bytes to float, times 0.00392156863"]}


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("raw", [True, False])
def test_images_that_go_flat_into_the_first_layer_come_as_images(raw: bool, layout: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 6, 5, 3), np.uint8)
    model = gn.Sequential([gn.Dense(5), gn.ReLU(), gn.Dense(2)])
    model.fit(images, np.arange(64) % 2, **QUIET)
    path = exported(model, tmp_path, raw=raw, layout=layout)
    x = images if raw else images.astype(np.float32) / np.float32(255)
    answers = run(path, x if layout == "NHWC" else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    assert np.abs(answers - model.predict_proba(images)).max() <= 1e-5
    assert operators(path).count("Transpose") == (layout == "NHWC")


def test_floats_of_a_scale_are_scaled_within(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 5)).astype(np.float32) * 50
    model = gn.Sequential([gn.Dense(3), gn.Dense(2)])
    model.fit(gn.Samples(x, np.arange(40) % 2, scale=0.02), **QUIET)
    compare(model, exported(model, tmp_path), x)


TARGETS = {
    "one output, two classes": (ROWS[:, 0] > 0).astype(int),
    "several answers": (ROWS[:, :3] > 0).astype(np.float32),
    "a regression": ROWS[:, :2] * [3, 400] + [1, 5000],
    "one number": ROWS[:, 0] * 1e3,
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("ends", ["in Dense", "in an activation"])
def test_every_task_gives_the_answers_of_predict_proba(name: str, ends: str, tmp_path: Path) -> None:
    targets = TARGETS[name]
    outputs = 1 if targets.ndim == 1 else targets.shape[1]
    is_binary = name in ("one output, two classes", "several answers")
    last = [] if ends == "in Dense" else [gn.Sigmoid() if is_binary else gn.LeakyReLU()]
    model = gn.Sequential([gn.Dense(8), gn.Tanh(), gn.Dense(outputs), *last])
    model.fit(ROWS, targets, **QUIET)
    path = exported(model, tmp_path)
    compare(model, path, ROWS)
    assert onnx.load(path).graph.output[0].name == ("probabilities" if is_binary else "outputs")
    if is_binary:
        logits = run(exported(model, tmp_path, logits=True), ROWS)
        assert np.abs(1 / (1 + np.exp(-logits)) - model.predict_proba(ROWS)).max() < 1e-5
    else:
        with pytest.raises(gn.GpunnError, match="the network gives none"):
            model.export_onnx(tmp_path / "other.onnx", logits=True)


@pytest.mark.parametrize("last", ["in the loss", "a layer", "in a chain"])
def test_logits_come_before_softmax(last: str, tmp_path: Path) -> None:
    ends = {"in the loss": [], "a layer": [gn.Softmax()], "in a chain": [gn.Chain([gn.Dense(4), gn.Softmax()])]}
    model = gn.Sequential([gn.Dense(4), *ends[last]])
    model.fit(ROWS, np.arange(len(ROWS)) % 4, **QUIET)
    z = run(exported(model, tmp_path, logits=True), ROWS)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    assert np.abs(e / e.sum(axis=1, keepdims=True) - model.predict_proba(ROWS)).max() < 1e-5
    assert np.abs(z.sum(axis=1) - 1).max() > 0.1
    assert json.loads(metadata(tmp_path / "model.onnx")["class_names"]) == ["0", "1", "2", "3"]


@pytest.fixture
def table(folder: Path) -> Path:
    chance = np.random.default_rng(0)
    colours, words = ("red", "green", "blue"), ("yes", "no")
    rows = [
        f"{1.7e9 + 100 * chance.normal():.2f},{colours[i % 3]},{chance.normal():.3f},{words[i % 2]},{i * 2000}"
        for i in range(120)
    ]
    rows[50] = ",,0.5,yes,100000"
    (folder / "t.csv").write_text("\n".join(["time,colour,b,fresh,price", *rows]))
    return folder / "t.csv"


@pytest.mark.parametrize("target", ["price", "fresh"])
def test_a_table_is_standardised_within_or_before(target: str, table: Path) -> None:
    data = gn.load_data(str(table), target=target, missing="mean")
    model = gn.Sequential([gn.Dense(6), gn.ReLU(), gn.Dense(1 if target == "price" else 2)])
    model.fit(data, **QUIET)
    path = exported(model, table.parent)
    compare(model, path, np.asarray(data.train.inputs))
    described = json.loads(metadata(path)["columns"])
    columns = model.trained_on.columns  # type: ignore[union-attr]
    assert columns is not None
    assert described["features"] == columns.feature_names
    raw = exported(model, table.parent, raw=True)
    numbers = {"time": 1.7e9 + 70, "colour": 2.0, "b": -0.3, "fresh": 1.0, "price": 7000.0}
    texts = {**numbers, "colour": "red", "fresh": "yes"}
    row = np.array([[numbers[name] for name in columns.names], [np.nan] * len(columns.names)])
    frame = {name: [texts[name], None if isinstance(texts[name], str) else np.nan] for name in columns.names}
    pandas = pytest.importorskip("pandas")
    wanted = model.predict_proba(pandas.DataFrame(frame))
    assert np.abs(run(raw, row) / wanted - 1).max() <= 1e-5
    assert "standardised by column" in json.loads(metadata(raw)["preparation"])["inside"][0]


class Doubled(gn.ReLU):
    """Something of somebody's own, without a form in ONNX."""


class Scaled(gn.Layer):
    """z := factor z, with a form in ONNX that may be a wrong one."""

    def __init__(self, factor: float, written: float) -> None:
        self.factor, self.written = factor, written

    def build(self, context: Any, input_shape: Any) -> Any:
        self._backend, self._y = context.backend, context.buffer(input_shape)
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        self._backend.assign(self._y[x.shape[-1]], x, self.factor)
        return self._y[x.shape[-1]]

    def backward(self, dy: Any) -> Any:
        return dy * self.factor

    def to_onnx(self, graph: Any, x: str) -> str:
        made: str = graph.node("Mul", x, graph.number(self.written))
        return made


def test_a_layer_of_ones_own_is_refused_by_name_or_writes_itself(tmp_path: Path) -> None:
    with pytest.raises(gn.GpunnError, match=r"relu1 \(Doubled\) has no form in ONNX") as refused:
        exported(built(gn.Conv2D(2, 3), Doubled()), tmp_path)
    one_line(refused.value)
    model = built(gn.Conv2D(2, 3), Scaled(2.5, 2.5), gn.Flatten())
    compare(model, exported(model, tmp_path), IMAGES)


class Miswritten(Scaled):
    """z := z, in ONNX nodes that are against its rules."""

    def to_onnx(self, graph: Any, x: str) -> str:
        word = str(self.written)
        made: str = word if word == "nowhere" else graph.node(word, x)
        return made


@pytest.mark.parametrize("written", ["nowhere", "Nope", "ReduceSum"])
def test_nodes_of_ones_own_against_the_rules_are_said_in_a_line(written: Any, tmp_path: Path) -> None:
    with pytest.raises(gn.GpunnError, match="a layer of your own may write other nodes") as refused:
        exported(built(gn.Flatten(), Miswritten(1.0, written)), tmp_path)
    one_line(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_file_that_would_give_other_answers_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"what was there")
    with pytest.raises(gn.GpunnError, match="other answers than the network"):
        exported(built(gn.Conv2D(2, 3), Scaled(2.5, 2.4)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"what was there"


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    assert exported(whole(), tmp_path).read_bytes() == exported(whole(), tmp_path).read_bytes()


def test_a_network_of_float64_is_written_in_float32(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Dense(3), gn.Tanh()]).build((6,), device="cpu", dtype="float64")
    assert np.abs(run(exported(model, tmp_path), ROWS) - model.predict_proba(ROWS)).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"opset": 12}, "opset must be from 13 to 28, got 12"),
        ({"opset": 29}, "opset must be from 13 to 28, got 29"),
        ({"opset": "18"}, "opset must be a whole number"),
        ({"layout": "NWHC"}, "layout must be NHWC or NCHW"),
        ({"raw": "no"}, "raw must be True or False"),
        ({"logits": None}, "logits must be True or False"),
        ({"logits": True}, "the network gives none"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], wrong: str, tmp_path: Path) -> None:
    with pytest.raises(gn.GpunnError, match=wrong) as refused:
        exported(built(gn.Conv2D(2, 3)), tmp_path, **options)
    one_line(refused.value)


def test_raw_inputs_are_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(gn.GpunnError, match="raw inputs are bytes or a table's columns"):
        exported(gn.Sequential([gn.Dense(2)]).build((6,), device="cpu"), tmp_path, raw=True)
    model = gn.Sequential([gn.Dense(2)])
    model.fit(ROWS, np.arange(len(ROWS)) % 2, **QUIET)
    with pytest.raises(gn.GpunnError, match="inputs reach from 0 to 255"):
        exported(model, tmp_path, raw=True)


def test_a_network_that_is_not_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(gn.GpunnError, match="not built"):
        exported(gn.Sequential([gn.Dense(2)]), tmp_path)


def test_without_the_extra_a_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(gn.GpunnError, match=r"pip install 'gpunn\[onnx\]'"):
        exported(built(gn.ReLU()), tmp_path)


def test_the_program_exports_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    assert gpunn("train", "--recipe", "tiny.toml", "--out", "run", "--epochs", "1").code == 0
    done = gpunn("export", "run", "model.onnx", "--opset", "13", "--layout", "NCHW", "--raw", "--logits")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("model.onnx  ")
    assert onnx.load(folder / "model.onnx").opset_import[0].version == 13
    assert onnx.load(folder / "model.onnx").graph.output[0].name == "logits"
    done = gpunn("export", "run", "other.onnx", "--opset", "7")
    assert (done.code, done.out) == (2, "")
    assert "opset must be from 13 to 28" in done.err
    assert not (folder / "other.onnx").exists()
