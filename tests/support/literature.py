"""Equations of the literature: activations in z, and losses in output a and target y."""

ACTIVATIONS = {
    "swish": "z / (1 + exp(-z))",
    "mish": "z * tanh(log(1 + exp(z)))",
    "gelu": "z / 2 * (1 + erf(z / sqrt(2)))",
    "gelu_tanh": "0.5 * z * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 * z**3)))",
    "elu": "where(z > 0, z, exp(z) - 1)",
    "selu": "1.0507009873554804934193349852946 * where(z > 0, z, 1.6732632423543772848170429916717 * (exp(z) - 1))",
    "celu": "max(z, 0) + min(0, 1.5 * (exp(z / 1.5) - 1))",
    "softsign": "z / (1 + abs(z))",
    "hardswish": "z * min(max(z + 3, 0), 6) / 6",
    "hardtanh": "min(max(z, -1), 1)",
    "hardsigmoid": "min(max(z / 6 + 0.5, 0), 1)",
    "snake": "z + sin(2 * z)**2 / 2",
    "softplus": "log(1 + exp(z))",
    "logsigmoid": "log(sigmoid(z))",
    "tanhshrink": "z - tanh(z)",
    "relu6": "min(max(z, 0), 6)",
    "leaky_relu": "where(z > 0, z, 0.01 * z)",
    "softshrink": "where(z > 0.5, z - 0.5, where(z < -0.5, z + 0.5, 0 * z))",
    "gaussian": "exp(-z**2)",
    "isru": "z / sqrt(1 + z**2)",
    "logcosh": "log(cosh(z))",
    "atan": "2 / pi * atan(z)",
    "ratio": "(exp(z) - exp(-z)) / (exp(z) + exp(-z))",
    "logistic": "e**z / (1 + e**z)",
}
# Those that learn, with the values that their parameters begin with.
LEARNED = {
    "prelu": ("where(z > 0, z, a * z)", {"a": 0.25}),
    "snake": ("z + sin(a * z)**2 / a", {"a": 1.5}),
    "silu": ("z / (1 + exp(-b * z))", {"b": 1.2}),
}
# Whether targets are 0 to 1 beside the equation; only one is not finite everywhere.
LOSSES = {
    "pseudo_huber": "sqrt(1 + (a - y)**2) - 1",
    "huber": "where(abs(a - y) < 1, (a - y)**2 / 2, abs(a - y) - 0.5)",
    "smooth_l1": "where(abs(a - y) < 0.3, (a - y)**2 / 0.6, abs(a - y) - 0.15)",
    "log_cosh": "log(cosh(a - y))",
    "squared": "(a - y)**2",
    "absolute": "abs(a - y)",
    "logits": "max(a, 0) - a * y + log(1 + exp(-abs(a)))",
    "focal": "-y * (1 - sigmoid(a))**2 * log(sigmoid(a)) - (1 - y) * sigmoid(a)**2 * log(1 - sigmoid(a))",
    "quantile": "max(0.9 * (y - a), 0.1 * (a - y))",
    "hinge": "max(0, 1 - (2 * y - 1) * a)",
    "squared_hinge": "max(0, 1 - (2 * y - 1) * a)**2",
    "soft_margin": "log(1 + exp((1 - 2 * y) * a))",
}
POISSON = "exp(a) - y * a"
