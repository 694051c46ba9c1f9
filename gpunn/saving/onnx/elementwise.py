"""Read elementwise operators: as scale and shift of each channel, or as one activation by an equation."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import GpunnError
from gpunn.nn.equations.activation import Equation
from gpunn.nn.layers import BatchNorm
from gpunn.saving.onnx.operator_readers import give_bias
from gpunn.saving.onnx.parsing import Operator
from gpunn.saving.onnx.reader_state import ReaderState

MOST_TEXT = 2000  # characters of an equation
_AFFINE = {"Add", "Sub", "Mul", "Div"}
# Formula with x for the input, and attributes with the defaults of ONNX.
_TEXTS: dict[str, tuple[str, dict[str, float]]] = {
    "Relu": ("max({x}, 0)", {}), "Sigmoid": ("sigmoid({x})", {}), "Tanh": ("tanh({x})", {}),
    "Softplus": ("log(1 + exp({x}))", {}), "Exp": ("exp({x})", {}), "Log": ("log({x})", {}), "Sqrt": ("sqrt({x})", {}),
    "Abs": ("abs({x})", {}), "Neg": ("-({x})", {}), "Reciprocal": ("1 / ({x})", {}), "Erf": ("erf({x})", {}),
    "Sin": ("sin({x})", {}), "Cos": ("cos({x})", {}), "Tan": ("tan({x})", {}), "Atan": ("atan({x})", {}),
    "Sinh": ("sinh({x})", {}), "Cosh": ("cosh({x})", {}), "Sign": ("sign({x})", {}), "Identity": ("({x})", {}),
    "Softsign": ("({x}) / (1 + abs({x}))", {}), "Mish": ("({x}) * tanh(log(1 + exp({x})))", {}),
    "HardSwish": ("({x}) * max(0, min(1, ({x}) / 6 + 0.5))", {}),
    "LeakyRelu": ("where({x} > 0, {x}, {alpha} * ({x}))", {"alpha": 0.01}),
    "Elu": ("where({x} > 0, {x}, {alpha} * (exp({x}) - 1))", {"alpha": 1.0}),
    "Celu": ("max(0, {x}) + min(0, {alpha} * (exp(({x}) / {alpha}) - 1))", {"alpha": 1.0}),
    "Selu": ("where({x} > 0, {gamma} * ({x}), {gamma} * {alpha} * (exp({x}) - 1))",
             {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "HardSigmoid": ("max(0, min(1, {alpha} * ({x}) + {beta}))", {"alpha": 0.2, "beta": 0.5}),
    "ThresholdedRelu": ("where({x} > {alpha}, {x}, 0)", {"alpha": 1.0}),
    "Shrink": ("where({x} < -({lambd}), {x} + {bias}, where({x} > {lambd}, {x} - ({bias}), 0))",
               {"bias": 0.0, "lambd": 0.5}),
    "Swish": ("({x}) / (1 + exp(-({alpha} * ({x}))))", {"alpha": 1.0}),
}  # fmt: skip
_OF_TWO = {"Add": "({0}) + ({1})", "Sub": "({0}) - ({1})", "Mul": "({0}) * ({1})", "Div": "({0}) / ({1})",
           "Max": "max({0}, {1})", "Min": "min({0}, {1})", "Pow": "({0})**{1}"}  # fmt: skip
_COMPARED = {"Greater": ">", "GreaterOrEqual": ">=", "Less": "<", "LessOrEqual": "<=", "Equal": "=="}
ELEMENTWISE = {*_TEXTS, *_OF_TWO, *_COMPARED, "Where", "Clip", "PRelu", "Gelu"}


# Least and greatest number of inputs, where these are not one.
_INPUTS = dict.fromkeys((*_AFFINE, *_COMPARED, "Pow", "PRelu"), (2, 2)) | {"Where": (3, 3), "Clip": (1, 3)}
_INPUTS |= {"Max": (1, 50), "Min": (1, 50)}


def aligned(node: Operator, values: NDArray[Any], rank: int) -> NDArray[Any]:
    """Reshape a constant for broadcasting with activations of `rank` axes; opset 6 has an attribute for it."""
    if node.opset > 6 or node.kind not in _AFFINE:
        return values
    axis = node.attributes.get("axis")
    if axis is None or not isinstance(axis, int) or not 0 <= axis % rank <= rank - values.ndim:
        return values
    return values.reshape(values.shape + (1,) * (rank - values.ndim - axis % rank))


def check_inputs(node: Operator) -> None:
    """Refuse a node with a wrong number of inputs."""
    least, most = _INPUTS.get(node.kind, (1, 1))
    if not least <= len(node.inputs) <= most or not all(node.inputs[:least]):
        raise node.refusal(f"{len(node.inputs)} inputs", f"expected {least}" if least == most else f"{least} to {most}")


def read_with_constant(state: ReaderState, node: Operator, x: str, constants: Mapping[str, NDArray[Any]]) -> None:
    """Read a node whose other inputs are constants."""
    if node.kind in _AFFINE and not (node.kind == "Div" and node.inputs[0] != x):
        _scale(state, node, x, constants)
    else:
        add_equation(state, [node], x, constants)


def _scale(state: ReaderState, node: Operator, x: str, constants: Mapping[str, NDArray[Any]]) -> None:
    """Read y = c x + d per channel: as the bias of the layer before, or as a frozen BatchNorm."""
    (values,) = (constants[name] for name in node.inputs if name != x)
    values = aligned(node, values, len(state.axes) + 1)
    if node.opset < 7:
        for attribute in ("axis", "broadcast"):
            node.attributes.pop(attribute, None)
    found = state.per_channel(node, np.asarray(values, np.float64), "numbers")
    if found is None:
        raise node.refusal(f"numbers of {values.shape}", "expected one, or one for each feature or channel")
    if node.kind == "Add" and give_bias(state, found):
        return
    is_minus = node.kind == "Sub" and node.inputs[0] != x
    gamma, beta = np.ones(len(found)), np.zeros(len(found))
    if node.kind in ("Mul", "Div"):
        gamma = found if node.kind == "Mul" else 1 / np.where(found == 0, np.nan, found)
    else:
        beta = -found if node.kind == "Sub" and not is_minus else found
        gamma = -gamma if is_minus else gamma
    if not (np.isfinite(gamma).all() and np.isfinite(beta).all()):
        raise node.refusal("numbers", "expected finite ones, and no division by 0")
    layer = BatchNorm(1e-5)
    layer.trainable = False
    one = np.full(len(found), 1 - layer.epsilon)
    state.add(node, layer, gamma=gamma, beta=beta, mean=np.zeros(len(found)), variance=one)


def add_equation(state: ReaderState, nodes: list[Operator], x: str, constants: Mapping[str, NDArray[Any]]) -> None:
    """Append an activation that computes some nodes, whose inputs are x, constants or each other's outputs."""
    texts, parameters = {x: "z"}, dict[str, NDArray[Any]]()

    def text_of(node: Operator, name: str) -> str:
        if name in texts:
            return texts[name]
        values = constants[name]
        if values.dtype.kind not in "fiu":
            raise node.refusal(f"numbers of {values.dtype}", "expected float32 or float64")
        if values.size == 1:
            return _written(node, float(values.reshape(-1)[0]))
        found = state.per_channel(node, values, "numbers")
        if found is None or len(parameters) == 8:
            raise node.refusal(f"numbers of {values.shape}", "expected one, or one for each feature or channel")
        parameters[letter := "abcdfghk"[len(parameters)]] = found
        return letter

    for node in nodes:
        texts[node.outputs[0]] = f"({_text(node, [text_of(node, name) if name else '' for name in node.inputs])})"
        if len(texts[node.outputs[0]]) > MOST_TEXT:
            raise node.refusal("its formula", "it is too long for one activation")
    last = nodes[-1]
    initial = {letter: float(values[0]) for letter, values in parameters.items()} or None
    try:
        layer = Equation(texts[last.outputs[0]], last.kind.lower(), initial, check=False)
    except GpunnError as error:
        raise last.refusal("its formula", str(error)) from None
    state.add(last, layer, **parameters)


def _written(node: Operator, value: float) -> str:
    if not isfinite(value):
        raise node.refusal(f"the number {value}", "expected a finite one")
    return f"{value!r}" if value >= 0 else f"({value!r})"


def _text(node: Operator, given: list[str]) -> str:
    """Return the formula of a node from the formulas of its inputs."""
    check_inputs(node)
    if node.opset < 7:  # allows broadcasting, which later opsets always do
        node.attributes.pop("broadcast", None)
    if node.kind in _OF_TWO:
        made = given[0]
        for other in given[1:]:
            made = _OF_TWO[node.kind].format(made, other)
        return made
    if node.kind in _COMPARED:
        return f"({given[0]}) {_COMPARED[node.kind]} ({given[1]})"
    if node.kind == "Where":
        return f"where({given[0]}, {given[1]}, {given[2]})"
    if node.kind == "Clip":
        bounds = [given[1] if len(given) > 1 else "", given[2] if len(given) > 2 else ""]
        for at, attribute in enumerate(("min", "max")):
            if (bound := node.attributes.pop(attribute, None)) is not None and abs(bound) < 3e38:
                bounds[at] = _written(node, bound)
        made = f"max({given[0]}, {bounds[0]})" if bounds[0] else given[0]
        return f"min({made}, {bounds[1]})" if bounds[1] else made
    if node.kind == "PRelu":
        return f"where({given[0]} > 0, {given[0]}, {given[1]} * ({given[0]}))"
    if node.kind == "Gelu":
        if node.take("approximate", "none") == "tanh":
            inner = "0.7978845608028654 * ({x} + 0.044715 * ({x})**3)"
            return f"0.5 * ({{x}}) * (1 + tanh({inner}))".format(x=given[0])
        return "0.5 * ({x}) * (1 + erf(({x}) / sqrt(2)))".format(x=given[0])
    text, defaults = _TEXTS[node.kind]
    values = {name: _written(node, node.take(name, default)) for name, default in defaults.items()}
    return text.format(x=given[0], **values)
