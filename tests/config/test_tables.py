"""Parts as dictionaries and back; only names on the list can be made."""

import json
from typing import Any

import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.config import PARTS, Part, arguments_of, from_config, to_config
from gpunn.data.augmentation import Augmentation
from gpunn.errors import OptionError
from gpunn.nn import initializers
from gpunn.train.schedules import Changed

EXAMPLES: dict[str, list[Any]] = {
    "layer": [
        gn.Dense(3), gn.Dense(4, "he", 0.5), gn.Dense(4, gn.Normal(0.3)), gn.Dense(2, gn.LeCun()),
        gn.Dense(5, bias=False),
        gn.Conv2D(3, 2), gn.Conv2D(4, (3, 2), stride=(2, 1), padding=1), gn.Conv2D(4, groups=2),
        gn.Conv2D(4, groups="depthwise"),
        gn.ConvTranspose2D(4), gn.ConvTranspose2D(3, 2, stride=(2, 3), padding=1, output_padding=(0, 1), bias=False),
        gn.MaxPool2D(2), gn.MaxPool2D((3, 2), 1),
        gn.MaxPool2D(3, 2, "same"), gn.AveragePool2D(3, 2, (1, 0), count_include_pad=True),
        gn.AveragePool2D(2), gn.AveragePool2D(3, (2, 1)), gn.BatchNorm(), gn.BatchNorm(1e-3, 0.5), gn.Dropout(0.25),
        gn.Flatten(),
        gn.GlobalAveragePool2D(), gn.LayerNorm(), gn.LayerNorm(1e-3),
        gn.Embedding(4, 3), gn.Embedding(9, 2, gn.Normal(0.1)),
        gn.Sigmoid(), gn.Tanh(), gn.ReLU(), gn.LeakyReLU(), gn.LeakyReLU(-0.25), gn.Softplus(), gn.Softmax(),
        gn.Chain([gn.Dense(3), gn.ReLU()]),
        gn.Residual([gn.Conv2D(4, padding="same"), gn.Chain([gn.BatchNorm(), gn.Tanh()])]),
        gn.Residual([gn.Dense(3)], gn.Dense(3, bias=False)),
        gn.Residual([gn.Conv2D(4, 1)], [gn.Conv2D(4, 1, bias=False), gn.BatchNorm()]),
        gn.Concatenate([], [gn.Dense(3), gn.Residual([gn.Tanh()])], [gn.Dropout(0.25)]),
        gn.Activation.from_equation("swish", "z / (1 + exp(-z))"),
        gn.Activation.from_equation("prelu", "where(z > 0, z, a * z)", parameters={"a": 0.5}),
    ],
    "loss": [
        gn.MeanSquaredError(), gn.BinaryCrossEntropy(), gn.SoftmaxCrossEntropy(),
        gn.SoftmaxCrossEntropy(label_smoothing=0.1),
        gn.Loss.from_equation("log_cosh", "log(cosh(a - y))"),
    ],
    "regularizer": [gn.L1(0.5), gn.L2(5.0)],
    "optimizer": [
        gn.SGD(), gn.SGD(0.5, 0.9, nesterov=True), gn.SGD(gn.Cosine(0.5, 0.1), 0.5), gn.Adam(),
        gn.Adam(gn.OneCycle(0.1), 0.8, 0.9, 1e-6),
        gn.AdamW(), gn.AdamW(gn.Cosine(0.1), 0.25, 0.8, 0.9, 1e-6),
    ],
    "schedule": [
        gn.Constant(0.5), gn.StepDecay(0.5, 0.25, 3), gn.Cosine(0.5, 0.25), gn.OneCycle(0.5, 0.25, 10.0, 100.0),
        Changed(0.5, 1.5, gn.Cosine(0.1)), gn.Warmup(0.5, epochs=2), gn.Warmup(gn.Cosine(0.5), steps=100),
        Changed(gn.Warmup(0.5, steps=3), 1.5, gn.Warmup(0.25, steps=3)),
    ],
    "augmentation": [Augmentation(), Augmentation(2.0, 15, 0.1, 0.2, 0.5, 8)],
    "initializer": [gn.Normal(0.3), gn.He(), gn.Glorot(), gn.LeCun(), initializers.Constant(0.5)],
    "metric": [],
}  # fmt: skip
ALL = [(kind, part) for kind, parts in EXAMPLES.items() for part in parts]


def same(a: Any, b: Any) -> bool:
    """Of one type, with the same arguments, parts within parts too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if not any(type(a) in kinds.values() for kinds in PARTS.values()):
        return bool(a == b)
    mine, other = arguments_of(a), arguments_of(b)
    return mine.keys() == other.keys() and all(same(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize(("kind", "part"), ALL, ids=lambda value: value if isinstance(value, str) else repr(value))
def test_a_part_comes_back_from_its_dictionary(kind: str, part: Any) -> None:
    config = to_config(part)
    assert config["type"] == type(part).__name__
    assert same(from_config(kind, json.loads(json.dumps(config))), part)


PYTHON = {name: part for parts in PARTS.values() for name, part in parts.items()}


@pytest.mark.parametrize("part", [part for _, part in ALL], ids=repr)
def test_a_part_is_shown_as_the_python_that_makes_it(part: Any) -> None:
    constant = initializers.Constant if isinstance(part, initializers.Initializer) else gn.Constant
    assert same(eval(repr(part), {**PYTHON, "Activation": gn.Activation, "Loss": gn.Loss, "Constant": constant}), part)


@pytest.mark.parametrize(
    "text",
    [
        "MaxPool2D(2)", "MaxPool2D(3, stride=2)", "MaxPool2D((2, 3), stride=(2, 1))", "Dense(5, bias=False)",
        "Conv2D(4, size=(3, 2), padding=1)", "SGD(0.1, momentum=0.9)", "SGD(Cosine(0.5, final=0.1))", "ReLU()",
    ],
)  # fmt: skip
def test_what_was_not_asked_for_is_not_shown(text: str) -> None:
    assert repr(eval(text, dict(PYTHON))) == text


def test_a_part_that_does_not_keep_its_arguments_is_shown_without_them() -> None:
    class Forgetful(Part):
        def __init__(self, *layers: Any, size: int = 1) -> None:
            pass

    assert repr(Forgetful(1, 2, size=3)) == "Forgetful()"


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_every_part_that_a_file_may_name_is_tried_above(kind: str) -> None:
    own = {name for name, part in PARTS[kind].items() if part.__module__.startswith("gpunn.")}
    assert {type(part).__name__ for part in EXAMPLES[kind]} >= own - {"Constant"}


def test_a_bare_name_is_a_part_without_options() -> None:
    assert isinstance(from_config("layer", "ReLU"), gn.ReLU)
    assert isinstance(from_config("loss", "MeanSquaredError"), gn.MeanSquaredError)


def test_options_that_are_left_out_take_their_defaults() -> None:
    assert same(from_config("optimizer", {"type": "SGD", "momentum": 0.5}), gn.SGD(0.1, 0.5))


def test_making_a_part_leaves_its_dictionary_as_it_was() -> None:
    config = {"type": "SGD", "learning_rate": {"type": "Cosine", "rate": 0.5}}
    copy = json.loads(json.dumps(config))
    from_config("optimizer", config)
    assert config == copy


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("layer", "Magic", r"unknown layer 'Magic': expected one of AveragePool2D, BatchNorm"),
        ("layer", {"type": "magic\n"}, r"unknown layer 'magic\\n'"),
        ("layer", {"type": "SGD"}, "unknown layer 'SGD'"),
        ("layer", {"type": "__import__"}, "unknown layer '__import__'"),
        ("optimizer", {"type": "Dense", "units": 3}, "unknown optimizer 'Dense': expected one of Adam, AdamW, SGD"),
        ("layer", {}, "a layer must be a table with a type"),
        ("layer", {"units": 3}, "a layer must be a table with a type"),
        ("layer", {"type": 3}, "a layer must be a table with a type"),
        ("layer", 3, "a layer must be a table with a type"),
        ("layer", None, "a layer must be a table with a type"),
        ("layer", ["Dense"], "a layer must be a table with a type"),
        ("layer", {"type": "Dense", "unit": 3}, "Dense has no option 'unit': expected units, weights, bias"),
        ("layer", {"type": "ReLU", "x": 3}, "ReLU has no option 'x': expected none"),
        ("layer", {"type": "Dense", "self": 3}, "Dense has no option 'self'"),
        ("layer", {"type": "Dense"}, "Dense cannot be made"),
        ("layer", {"type": "Dense", "units": "3"}, "units of Dense must be a whole number, got '3'"),
        ("layer", {"type": "Dense", "units": 3, "bias": "x"}, "bias of Dense must be"),
        ("layer", {"type": "Dense", "units": 3, "weights": 4}, "weights of Dense must be"),
        ("layer", {"type": "Dense", "units": 3, "weights": {"type": "Magic"}}, "unknown initializer 'Magic'"),
        ("layer", {"type": "Dropout", "p": 1.0}, "p of Dropout"),
        ("layer", {"type": "Dropout", "p": float("nan")}, "p of Dropout must be finite"),
        ("optimizer", {"type": "SGD", "learning_rate": "fast"}, "learning_rate of SGD must be"),
        ("optimizer", {"type": "SGD", "learning_rate": -1}, "learning rate must be above 0"),
        ("optimizer", {"type": "SGD", "learning_rate": 10**320}, "learning_rate of SGD must be at most"),
        ("optimizer", {"type": "SGD", "learning_rate": {"type": "Magic"}}, "unknown schedule 'Magic'"),
        ("optimizer", {"type": "SGD", "learning_rate": {"type": "Cosine"}}, "Cosine cannot be made"),
        ("optimizer", {"type": "SGD", "nesterov": 1}, "nesterov of SGD must be true or false"),
        ("optimizer", {"type": "SGD", "momentum": True}, "momentum of SGD must be a number"),
        ("regularizer", {"type": "L2", "strength": "5"}, "strength of L2 must be a number"),
        ("regularizer", {"type": "L2", "strength": -5}, "strength of L2 must be at least 0"),
        ("schedule", {"type": "Constant", "rate": [0.1]}, "rate of Constant must be a number"),
        ("layer", "Rleu", "did you mean ReLU"),
        ("layer", "relu", "unknown layer 'relu': expected one of .*; did you mean ReLU"),
        ("optimizer", {"type": "adams"}, "did you mean Adam"),
    ],
    ids=str,
)
def test_what_cannot_be_made_says_what_was_expected(kind: str, config: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        from_config(kind, config)
    one_line(caught.value)
