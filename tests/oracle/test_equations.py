"""Activations and losses that are written as equations, against PyTorch in float64: values and gradients."""

from typing import Any

import numpy as np
import pytest
from support.literature import ACTIVATIONS, LEARNED, LOSSES, POISSON

import gpunn as gn

ERROR = 1e-10


def activations(torch: Any) -> dict[str, Any]:
    f = torch.nn.functional
    return {
        "swish": f.silu, "mish": f.mish, "gelu": f.gelu, "gelu_tanh": lambda z: f.gelu(z, approximate="tanh"),
        "elu": f.elu, "selu": f.selu, "celu": lambda z: f.celu(z, 1.5), "softsign": f.softsign,
        "hardswish": f.hardswish, "hardtanh": f.hardtanh,
        "hardsigmoid": lambda z: torch.clamp(z / 6 + 0.5, 0, 1),  # its own takes a sixth in float32
        "snake": lambda z: z + torch.sin(2 * z) ** 2 / 2, "softplus": lambda z: torch.logaddexp(z, 0 * z),
        "logsigmoid": f.logsigmoid, "tanhshrink": f.tanhshrink, "relu6": f.relu6, "leaky_relu": f.leaky_relu,
        "softshrink": f.softshrink, "gaussian": lambda z: torch.exp(-(z**2)),
        "isru": lambda z: z / torch.sqrt(1 + z**2),
        "logcosh": lambda z: torch.logaddexp(z, -z) - np.log(2), "atan": lambda z: 2 / torch.pi * torch.atan(z),
        "ratio": torch.tanh, "logistic": torch.sigmoid,
    }  # fmt: skip


def losses(torch: Any) -> dict[str, Any]:
    f = torch.nn.functional
    logits = f.binary_cross_entropy_with_logits

    def focal(a: Any, y: Any) -> Any:
        p = torch.sigmoid(a)
        return (y * (1 - p) ** 2 * f.softplus(-a) + (1 - y) * p**2 * f.softplus(a)).sum()

    return {
        "pseudo_huber": lambda a, y: (torch.sqrt(1 + (a - y) ** 2) - 1).sum(),
        "huber": lambda a, y: f.huber_loss(a, y, reduction="sum"),
        "smooth_l1": lambda a, y: f.smooth_l1_loss(a, y, reduction="sum", beta=0.3),
        "log_cosh": lambda a, y: (torch.logaddexp(a - y, y - a) - np.log(2)).sum(),
        "squared": lambda a, y: f.mse_loss(a, y, reduction="sum"),
        "absolute": lambda a, y: f.l1_loss(a, y, reduction="sum"),
        "logits": lambda a, y: logits(a, y, reduction="sum"),
        "focal": focal,
        "quantile": lambda a, y: torch.maximum(0.9 * (y - a), 0.1 * (a - y)).sum(),
        "hinge": lambda a, y: torch.relu(1 - (2 * y - 1) * a).sum(),
        "squared_hinge": lambda a, y: (torch.relu(1 - (2 * y - 1) * a) ** 2).sum(),
        "soft_margin": lambda a, y: f.soft_margin_loss(a, 2 * y - 1, reduction="sum"),
        "poisson": lambda a, y: f.poisson_nll_loss(a, y, reduction="sum"),
    }


def close(ours: Any, theirs: Any) -> None:
    theirs = theirs.detach().numpy()
    assert np.abs(ours - theirs).max() <= ERROR * max(1.0, float(np.abs(theirs).max()))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_pytorchs(torch: Any, name: str) -> None:
    rng = np.random.default_rng(0)
    z, da = np.r_[rng.normal(size=(60, 7)) * 3, rng.normal(size=(4, 7)) * 100], rng.normal(size=(64, 7))
    model = gn.Sequential([gn.Activation.from_equation(name, ACTIVATIONS[name])]).build(7, 64, "cpu", "float64")
    layer = model.layers[0]
    theirs = torch.tensor(z, requires_grad=True)
    a = activations(torch)[name](theirs)
    a.backward(torch.tensor(da))
    close(model.forward(z), a)
    seen = layer.forward(np.ascontiguousarray(z.T), True)
    close(seen.T, a)
    close(layer.backward(np.ascontiguousarray(da.T)).T, theirs.grad)


@pytest.mark.parametrize("name", [*LOSSES, "poisson"])
def test_a_loss_is_pytorchs(torch: Any, name: str) -> None:
    rng = np.random.default_rng(1)
    a, y = rng.normal(size=(16, 3)) * 3, rng.integers(0, 2, size=(16, 3)).astype(float)
    loss = gn.Loss.from_equation(name, LOSSES.get(name, POISSON), check=name != "poisson")
    value = loss.forward(a, y)
    theirs = torch.tensor(a, requires_grad=True)
    expected = losses(torch)[name](theirs, torch.tensor(y)) / 16
    expected.backward()
    close(value, expected)
    close(loss.backward(), theirs.grad)


def learned(torch: Any) -> dict[str, Any]:
    return {
        "prelu": torch.nn.functional.prelu,
        "snake": lambda z, a: z + torch.sin(a * z) ** 2 / a,
        "silu": lambda z, b: z * torch.sigmoid(b * z),
    }


@pytest.mark.parametrize("name", LEARNED)
def test_what_an_activation_learns_is_pytorchs(torch: Any, name: str) -> None:
    equation, begin = LEARNED[name]
    ((word, value),) = begin.items()
    rng = np.random.default_rng(2)
    z, da, values = rng.normal(size=(16, 3)) * 3, rng.normal(size=(16, 3)), value + rng.uniform(-0.1, 0.1, 3)
    model = gn.Sequential([gn.Activation.from_equation(name, equation, parameters=begin)]).build(
        3, 16, "cpu", "float64"
    )
    model.load_arrays({f"{name}1.{word}": values})
    layer = model.layers[0]
    theirs, parameter = torch.tensor(z, requires_grad=True), torch.tensor(values, requires_grad=True)
    a = learned(torch)[name](theirs, parameter)
    a.backward(torch.tensor(da))
    close(layer.forward(np.ascontiguousarray(z.T), True).T, a)
    close(layer.backward(np.ascontiguousarray(da.T)).T, theirs.grad)
    close(model.parameters[f"{name}1.{word}"].grad, parameter.grad)
