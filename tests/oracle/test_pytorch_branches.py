"""Against PyTorch in float64: residual connections and branches side by side, outputs and gradients of networks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpunn import (
    BatchNorm,
    Chain,
    Concatenate,
    Conv2D,
    Dense,
    GlobalAveragePool2D,
    LayerNorm,
    MaxPool2D,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
)
from gpunn.nn.layers import Layer


def through(torch: Any, layers: Sequence[Layer], x: Any, held: dict[str, Any]) -> Any:
    """The layers' equations in PyTorch's functions, with our parameters by their names."""
    f = torch.nn.functional
    for layer in layers:
        word = f"{layer.name}."
        if isinstance(layer, Residual):
            y = through(torch, layer.layers, x, held)
            shortcut = layer.branches[1] if len(layer.branches) > 1 else []
            x = y + through(torch, shortcut, x, held)
        elif isinstance(layer, Chain):
            x = through(torch, layer.layers, x, held)
        elif isinstance(layer, Concatenate):
            x = torch.cat([through(torch, branch, x, held) for branch in layer.branches], dim=1)
        elif isinstance(layer, Conv2D):
            padding = "same" if layer.padding == "same" else layer.padding if layer.padding != "valid" else 0
            x = f.conv2d(x, held[word + "w"], held.get(word + "b"), layer.stride, padding)
        elif isinstance(layer, Dense):
            x = f.linear(x, held[word + "w"], held.get(word + "b"))
        elif isinstance(layer, BatchNorm):
            x = f.batch_norm(x, None, None, held[word + "gamma"], held[word + "beta"], True, eps=layer.epsilon)
        elif isinstance(layer, LayerNorm):
            axes = (0, *range(2, x.ndim), 1)
            rows = f.layer_norm(
                x.permute(axes), (x.shape[1],), held[word + "gamma"], held[word + "beta"], layer.epsilon
            )
            x = rows.permute(np.argsort(axes).tolist())
        elif isinstance(layer, MaxPool2D):
            x = f.max_pool2d(x, layer.size, layer.stride)
        elif isinstance(layer, GlobalAveragePool2D):
            x = x.mean((2, 3))
        else:
            x = {"Tanh": torch.tanh, "Sigmoid": torch.sigmoid}[type(layer).__name__](x)
    return x


def check(torch: Any, layers: list[Layer], shape: tuple[int, ...], n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = Sequential(layers).build(shape, 8, "cpu", "float64", seed)
    model.parameters.load({p.name: rng.normal(0, 0.5, p.shape) for p in model.parameters})
    x: NDArray[Any] = rng.normal(size=(n, *shape))
    y = model.forward(x, training=True)
    v = rng.normal(size=y.shape)
    model.backward(v)
    held = {p.name: torch.tensor(p.value.copy(), requires_grad=True) for p in model.parameters}
    theirs = through(torch, model.layers, torch.tensor(x if x.ndim == 2 else x.transpose(0, 3, 1, 2).copy()), held)
    theirs.backward(torch.tensor(v if v.ndim == 2 else v.transpose(0, 3, 1, 2).copy()))
    as_ours = theirs.detach().numpy()
    as_ours = as_ours if as_ours.ndim == 2 else as_ours.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y, as_ours, rtol=1e-10, atol=1e-10 * np.abs(as_ours).max())
    assert len(held) == len(model.parameters)
    for p in model.parameters:
        expected = held[p.name].grad.numpy()
        # The gradient of a bias before BatchNorm is 0 but for rounding.
        size = max(np.abs(expected).max(), 1e-3)
        np.testing.assert_allclose(p.grad, expected, rtol=1e-10, atol=1e-10 * size, err_msg=p.name)


def block(filters: int, stride: int = 1) -> list[Layer]:
    strided = Conv2D(filters, 3, stride, padding=1, bias=False)
    return [Residual([strided, BatchNorm(), Tanh(), Conv2D(filters, 3, padding=1, bias=False), BatchNorm()]), Tanh()]


NETWORKS: dict[str, Callable[[], list[Layer]]] = {
    "residual": lambda: [Conv2D(3, 3), *block(3), *block(4, 2), *block(6, 2), GlobalAveragePool2D(), Dense(5)],
    "own projection": lambda: [Residual([Conv2D(4, 3, 2, 1), LayerNorm()], [Conv2D(4, 1, 2), BatchNorm()]), Tanh()],
    "inception": lambda: [
        Concatenate([Conv2D(2, 1), Tanh()], [Conv2D(2, 1), Conv2D(3, 3, padding=1)], [MaxPool2D(1), Conv2D(2, 1)]),
        BatchNorm(), Sigmoid(), GlobalAveragePool2D(), Dense(3),
    ],
    "dense blocks": lambda: [
        Concatenate([], [BatchNorm(), Tanh(), Conv2D(3, 3, padding=1)]),
        Concatenate([], [BatchNorm(), Tanh(), Conv2D(3, 3, padding=1)]),
        GlobalAveragePool2D(), Dense(3),
    ],
    "within each other": lambda: [
        Residual([Residual([Conv2D(2, 3, padding=1), Tanh()]), Concatenate([], [Conv2D(3, 1)]), Chain([Conv2D(2, 1)])]),
        GlobalAveragePool2D(), Residual([Dense(5), Tanh(), Dense(2)]), Concatenate([Dense(2)], []),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_with_branches_are_pytorchs(torch: Any, name: str) -> None:
    for seed in range(5):
        check(torch, NETWORKS[name](), (9, 8, 2), 4, seed)


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(), n=st.integers(2, 8), width=st.integers(1, 5), height=st.integers(1, 6), across=st.integers(1, 6),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_branches_of_any_shape_are_pytorchs(
    torch: Any, data: st.DataObject, n: int, width: int, height: int, across: int, seed: int
) -> None:
    def layers(depth: int) -> list[Layer]:
        made: list[Layer] = []
        for _ in range(data.draw(st.integers(1, 3))):
            kind = data.draw(st.integers(0, 4 if depth else 2))
            if kind < 3:
                made.append([Conv2D(width, 3, padding=1), Tanh(), Conv2D(width, 1, bias=False)][kind])
            elif kind == 3:
                made.append(Residual(layers(depth - 1)))
            else:
                made += [Concatenate(layers(depth - 1), [], layers(depth - 1)), Conv2D(width, 1)]
        return made

    check(torch, [Conv2D(width, 1), *layers(2), GlobalAveragePool2D(), Dense(3)], (height, across, 2), n, seed)
