"""A layer of your own: layer normalization in twenty lines of array code, checked, and trained on the digits.

`python examples/own_layer.py [DEVICE]`: the same lines run on NumPy ("cpu") and on CuPy ("cuda").
"""

import sys
from typing import Any

import gpunn as gn


@gn.register  # so that a model file may name it
class Normalize(gn.Layer):
    """y = γ x̂ + β, x̂ = (x − mean)/√(variance + ε) over the features of a sample; arrays are (features, batch)."""

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = epsilon

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.xp = context.xp  # NumPy or CuPy
        self.gamma = context.parameter("gamma", input_shape, 1.0)
        self.beta = context.parameter("beta", input_shape, 0.0)
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        self.scale = 1 / self.xp.sqrt(x.var(axis=0) + self.epsilon)
        self.normal = (x - x.mean(axis=0)) * self.scale
        return self.gamma.column * self.normal + self.beta.column

    def backward(self, dy: Any) -> Any:
        self.gamma.grad[...] = (dy * self.normal).sum(axis=1)
        self.beta.grad[...] = dy.sum(axis=1)
        dy = dy * self.gamma.column
        return (dy - dy.mean(axis=0) - self.normal * (dy * self.normal).mean(axis=0)) * self.scale


device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
print(gn.check_gradients(Normalize(), 6, device=device))  # raises an error where one is wrong

digits = gn.load_data("digits")
model = gn.Sequential([gn.Dense(64), Normalize(), gn.ReLU(), gn.Dense(10)])
model.fit(digits, epochs=15, device=device, progress=False)
print(model.summary())

model.save("own_layer.safetensors")
again = gn.load_model("own_layer.safetensors", device)
print(f"test accuracy {again.evaluate(digits.test).accuracy:.2%}")
