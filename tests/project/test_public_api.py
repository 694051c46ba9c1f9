"""Everything that is public, given what it cannot take: it works, or says why not in one line."""

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.display import style
from gpunn.errors import GpunnError

ODD: dict[str, Any] = {
    "None": None, "text": "x", "": "", ".": ".", "null": "a\0b",
    "digits": "3", "bytes": b"3", "class": gn.Adam, "type": int, "function": math.sin,
    "object": object(), "empty list": [], "list": [1], "nested": [[1], [2, 3]], "tuple": (2, 3), "dict": {"a": 1},
    "set": {1, 2}, "True": True, "0": 0, "-1": -1, "-0.5": -0.5, "2.5": 2.5, "3.0": 3.0, "nan": math.nan,
    "inf": math.inf, "huge": 10**400, "large": 2**45, "complex": 1j, "float32": np.float32(0.5), "int64": np.int64(3),
    "bool_": np.True_, "0-d": np.array(3), "0-d float": np.array(0.5), "array": np.zeros(2), "matrix": np.eye(3),
    "strings": np.array(["a"]), "layer": gn.ReLU(), "loss": gn.MeanSquaredError(),
    "data": gn.Data.from_arrays(np.eye(3), [0, 1, 2]),
    "samples": gn.Samples(np.eye(3), [0, 1, 2]),
}  # fmt: skip
X, Y = np.random.default_rng(0).normal(size=(6, 4)), np.arange(6) % 2
QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "epochs": 1}


def network() -> gn.Sequential:
    return gn.Sequential([gn.Dense(3), gn.ReLU(), gn.Dense(2)])


def fitted() -> gn.Sequential:
    model = network()
    model.fit(X, Y, **QUIET)
    return model


def of_numbers() -> gn.Sequential:
    model = gn.Sequential([gn.Dense(2)])
    model.fit(X, X[:, :2], **QUIET)
    return model


def of_images() -> gn.Sequential:
    return gn.Sequential([gn.Conv2D(1, 3), gn.Flatten(), gn.Dense(2)]).build((6, 6, 1), 2, "cpu")


def reconstructing() -> gn.Sequential:
    return gn.Sequential([gn.Dense(X.shape[1])]).build(X.shape[1:], 4, "cpu")


def normed() -> gn.Sequential:
    model = gn.Sequential([gn.Dense(3), gn.BatchNorm(), gn.Dense(2)])
    model.fit(X, Y, **QUIET)
    return model


def built(layer: gn.ReLU) -> None:
    """What a layer took is found to be wrong when it is made, not when it is built."""
    flat = isinstance(layer, gn.Dense | gn.Softmax)
    model = gn.Sequential([*([gn.Flatten()] if flat else []), layer])
    try:
        model.build((12, 12, 1), 4, "cpu")
    except gn.GpunnError as error:
        one_line(error)
        return
    model.forward(np.ones((2, 12, 12, 1)))


def forward(**given: Any) -> None:
    loss = gn.SoftmaxCrossEntropy()
    loss.forward(**{"y": np.zeros((6, 2)), "t": Y, **given})


LAYERS = [gn.AveragePool2D, gn.BatchNorm, gn.Conv2D, gn.Dense, gn.Dropout, gn.LayerNorm, gn.LeakyReLU, gn.MaxPool2D]
LAYERS += [gn.ConvTranspose2D, gn.Embedding]
STATE = fitted().state_dict()
# What is called, with arguments that it takes; each of its arguments is then given all that is odd.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    **{kind.__name__: (lambda kind=kind, **given: built(kind(**given)), {}) for kind in LAYERS},
    "Chain": (lambda layers: built(gn.Chain(layers)), {"layers": [gn.ReLU()]}),
    "Residual": (lambda layers, projection=None: built(gn.Residual(layers, projection)), {"layers": [gn.ReLU()]}),
    "Concatenate": (lambda first, second: built(gn.Concatenate(first, second)), {"first": [], "second": [gn.ReLU()]}),
    "SGD": (gn.SGD, {"momentum": 0.5}),
    "Adam": (gn.Adam, {}),
    "AdamW": (gn.AdamW, {}),
    "L1": (gn.L1, {"strength": 1.0}),
    "L2": (gn.L2, {"strength": 1.0}),
    "Constant": (gn.Constant, {"rate": 1.0}),
    "Cosine": (gn.Cosine, {"rate": 1.0}),
    "OneCycle": (gn.OneCycle, {"peak": 1.0}),
    "StepDecay": (gn.StepDecay, {"rate": 1.0}),
    "Warmup": (gn.Warmup, {"rate": 1.0, "epochs": 1.0}),
    "Augmentation": (gn.Augmentation, {}),
    "SoftmaxCrossEntropy": (gn.SoftmaxCrossEntropy, {}),
    "Normal": (gn.Normal, {}),
    "Samples": (gn.Samples, {"inputs": X, "targets": Y}),
    "Samples.subset": (gn.Samples(X, Y).subset, {"indices": [0]}),
    "Samples.first": (gn.Samples(X, Y).first, {"count": 2}),
    "Data": (gn.Data, {"name": "a", "train": gn.Samples(X, Y), "validation": None, "class_names": ("a", "b")}),
    "Data.from_arrays": (gn.Data.from_arrays, {"x": X, "y": Y}),
    "Data.from_samples": (gn.Data.from_samples, {"samples": gn.Samples(X, Y)}),
    "Data.test": (lambda **given: gn.Data.from_arrays(X, Y, **given).test, {"test": (X, Y)}),
    "load_data": (gn.load_data, {"source": "digits"}),
    "load_state_dict": (
        lambda **given: gn.load_state_dict(**{"model": fitted(), **given}), {"source": STATE, "names": None}
    ),
    "load_model": (gn.load_model, {"path": "none.safetensors"}),
    "load_onnx": (gn.load_onnx, {"path": "none.onnx"}),
    "set_memory_limit": (lambda limit: (gn.set_memory_limit(limit), gn.set_memory_limit(None)), {"limit": "1TB"}),
    "Sequential": (lambda layers: gn.Sequential(layers), {"layers": [gn.Dense(1)]}),
    "Sequential.build": (lambda **given: network().build(**given), {"input_shape": (4,), "device": "cpu"}),
    "Sequential.fit": (lambda **given: network().fit(**given), {"data": X, "y": Y, **QUIET}),
    "Sequential.find_learning_rate": (
        lambda **given: network().find_learning_rate(**given), {"data": X, "y": Y, "device": "cpu", "steps": 20}
    ),
    "Sequential.evaluate": (lambda **given: fitted().evaluate(**given), {"samples": X, "y": Y}),
    "Sequential.report": (lambda **given: fitted().report(**given), {"samples": X, "y": Y}),
    "ClassificationReport.top_k_accuracy": (lambda **given: fitted().report(X, Y).top_k_accuracy(**given), {"k": 1}),
    "Sequential.predict": (lambda **given: fitted().predict(**given), {"x": X}),
    "Sequential.predict_proba": (lambda **given: fitted().predict_proba(**given), {"x": X}),
    "Sequential.forward": (lambda **given: fitted().forward(**given), {"x": X}),
    "Sequential.recompute_statistics": (
        lambda **given: normed().recompute_statistics(**given), {"samples": gn.Samples(X, Y)}
    ),
    "Sequential.replace_last": (lambda **given: fitted().replace_last(**given), {"outputs": 3}),
    "Sequential.state_dict": (lambda **given: fitted().state_dict(**given), {"names": ["a", "b"]}),
    "Sequential.save": (lambda **given: fitted().save(**given), {"path": "a.safetensors"}),
    "Sequential.export_onnx": (lambda **given: fitted().export_onnx(**given), {"path": "a.onnx"}),
    "Loss.forward": (forward, {"y": np.zeros((6, 2)), "t": Y}),
    "History.write_csv": (gn.History().write_csv, {"path": "a.csv"}),
    "History.read_csv": (lambda path: (gn.History().write_csv("a.csv"), gn.History.read_csv(path)), {"path": "a.csv"}),
    "History.plot": (gn.History().plot, {}),
    "plot_history": (gn.plot_history, {"history": gn.History()}),
    "plot_learning_rates": (
        gn.plot_learning_rates, {"curve": network().find_learning_rate(X, Y, device="cpu", steps=20)}
    ),
    "plot_confusion": (gn.plot_confusion, {"model": fitted(), "samples": X, "y": Y}),
    "plot_mistakes": (gn.plot_mistakes, {"model": fitted(), "samples": X, "y": Y}),
    "plot_reconstructions": (gn.plot_reconstructions, {"model": reconstructing(), "samples": X}),
    "plot_predictions": (gn.plot_predictions, {"model": of_numbers(), "samples": X, "y": X[:, :2]}),
    "plot_filters": (gn.plot_filters, {"model": of_images()}),
    "plot_activations": (gn.plot_activations, {"model": of_images(), "image": np.ones((6, 6, 1))}),
    "Checkpointer": (gn.Checkpointer, {"folder": "run"}),
    "EarlyStopping": (gn.EarlyStopping, {"patience": 3}),
    "TensorBoard": (gn.TensorBoard, {}),
    "OverfittingDetector": (gn.OverfittingDetector, {}),
    "ProgressBar": (gn.ProgressBar, {}),
    "register": (gn.register, {"part": type("PublicApi", (gn.ReLU,), {"__module__": __name__})}),
    "check_gradients": (gn.check_gradients, {"part": gn.ReLU(), "shape": 3}),
    "register_format": (lambda suffix: gn.register_format(suffix), {"suffix": ".public-api"}),
    "GpunnError": (gn.GpunnError, {"message": "a"}),
}  # fmt: skip
# Parameters of what is behind a lambda.
BEHIND: dict[str, Any] = {
    **{kind.__name__: kind for kind in LAYERS}, "Data.test": lambda test: None, "set_memory_limit": gn.set_memory_limit,
    "ClassificationReport.top_k_accuracy": lambda k: None, "load_state_dict": gn.load_state_dict,
    "register_format": lambda suffix: None, "Sequential": lambda layers: None, "Loss.forward": lambda y, t: None,
    **{f"Sequential.{name}": getattr(network(), name) for name in
       ("build", "fit", "find_learning_rate", "evaluate", "report", "predict", "predict_proba", "forward",
        "recompute_statistics", "replace_last", "state_dict", "save", "export_onnx")},
}  # fmt: skip
# Records of results, which take what they are given; and parts without arguments.
PLAIN = {"Evaluation", "History", "Record", "Flatten", "ReLU", "Sigmoid", "Softmax", "Softplus", "Tanh", "Glorot", "He",
         "LeCun", "BinaryCrossEntropy", "MeanSquaredError"}  # fmt: skip
PLAIN |= {"GlobalAveragePool2D", "ClassificationReport", "MultilabelReport", "RegressionReport"}
# How a training is seen and stopped: tests/train/test_callbacks.py.
PLAIN |= {"Callback", "StopTraining", "TrainingView"}
# Of `check_gradients`: tests/nn/test_check_gradients.py.
PLAIN |= {"GradientCheck", "GradientError"}
# Bases of one's own parts: tests/project/test_own_parts.py has one of each.
BASES = {"Activation", "Initializer", "Layer", "Loss", "Metric", "Optimizer", "Regularizer", "Schedule"}


def cases() -> Iterator[Any]:
    for name in CALLS:
        for parameter in inspect.signature(BEHIND.get(name, CALLS[name][0])).parameters:
            yield pytest.param(name, parameter, id=f"{name}({parameter})")


def test_a_model_shows_its_public_names_alone() -> None:
    shown = {name for name in dir(normed()) if not name.startswith("_")}
    assert shown >= {
        "layers",
        "parameters",
        "loss",
        "build",
        "fit",
        "forward",
        "backward",
        "predict",
        "save",
        "bytes_for",
    }
    internal = {
        "build_with",
        "lay_out",
        "unbuild",
        "propagate",
        "stages_under",
        "compile_ahead",
        "clock",
    }
    assert not shown & internal


def test_everything_public_is_tried() -> None:
    assert {name.partition(".")[0] for name in CALLS} | PLAIN | BASES >= set(gn.__all__)


@pytest.mark.parametrize(("name", "parameter"), list(cases()))
def test_what_is_odd_is_taken_or_refused_in_one_line(
    name: str, parameter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(style._STYLE, "figure.dpi", 25)  # what is odd is so at any resolution
    function, right = CALLS[name]
    if name in BEHIND and name in {kind.__name__ for kind in LAYERS}:
        needed = {"Dense": {"units": 2}, "Embedding": {"tokens": 4, "features": 2}}
        right = needed.get(name, {"filters": 2} if name.startswith("Conv") else {})
    if name not in (
        "load_model",
        "load_onnx",
        "Sequential.export_onnx",
        "TensorBoard",
    ):  # which need a file, or the extra
        function(**right)
    wrong = []
    for what, odd in ODD.items():
        if (name, what) == ("Data.test", "function") or (parameter, what) == ("epochs", "large"):
            continue  # is called, and its error is its own; would take as long as it was asked to
        try:
            function(**{**right, parameter: odd})
        except GpunnError as error:
            one_line(error)
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{parameter}={what}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_a_listing_shows_the_public_names_and_no_module() -> None:
    assert dir(gn) == sorted([*gn.__all__, "__version__"])
