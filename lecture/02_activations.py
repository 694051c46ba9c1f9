# %% [markdown]
# # 2. Activations and their derivatives
#
# After this chapter you know five activation functions and the derivative of each, can compute both where the obvious
# formula fails, and see why deep networks mostly use ReLU.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")

# %% [markdown]
# ## Five functions
#
# An **activation function** $f$ bends: without it all layers together would be one (chapter 1, exercise 2). Its
# **derivative** $f'$ decides how much of an error goes back through the unit:
#
# | | $f(z)$ | $f'(z)$ | by its output $a = f(z)$ |
# |---|---|---|---|
# | sigmoid | $1/(1 + e^{-z})$ | $f(z)\,(1 - f(z))$ | $a(1 - a)$ |
# | tanh | $\tanh z$ | $1 - \tanh^2 z$ | $(1 - a)(1 + a)$ |
# | ReLU | $\max(z, 0)$ | 1 for $z > 0$, else 0 | 1 for $a > 0$, else 0 |
# | LeakyReLU | $\max(z, \alpha z)$, $\alpha \le 1$ | 1 for $z > 0$, else $\alpha$ | |
# | SoftPlus | $\ln(1 + e^z)$ | $1/(1 + e^{-z})$ | $1 - e^{-a}$ |
#
# Here they are, computed by gpunn. The trick in `through`: a unit whose input is 0 has $z = b$, so the biases are the
# places at which we look. The way back is derived in chapter 5; all we need of it now is this. $C$ is the **cost**, by
# one number how wrong the answers are (chapter 3), and $\delta = \partial C/\partial z$. If we say that
# $\partial C/\partial a = 1$, then $\delta = f'(z)$ by equation (8), and the bias gets just that as its derivative
# $\partial C/\partial b$, by equation (12).


# %%
def through(activation, z, dtype="float64"):
    """Return f(z) and f′(z) as gpunn computes them."""
    model = gn.Sequential([gn.Dense(len(z)), activation]).build((1,), batch_size=1, device="cpu", dtype=dtype)
    bias = model.parameters["dense1.b"]
    bias.value[...] = z
    a = model.forward(np.zeros((1, 1)), training=True)[0]
    model.backward(np.ones((1, len(z)), dtype))
    return a, bias.grad.copy()


FIVE = {"sigmoid": gn.Sigmoid, "tanh": gn.Tanh, "ReLU": gn.ReLU, "LeakyReLU, α = 0.1": lambda: gn.LeakyReLU(0.1)}
FIVE |= {"SoftPlus": gn.Softplus}

# %% alt="Five activation functions on the left, their derivatives on the right"
z = np.linspace(-4, 4, 401)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8))
for (name, made), dashes in zip(FIVE.items(), ["-", "-", "-", "--", "-"], strict=True):
    for axis, values in zip(axes, through(made(), z), strict=True):
        axis.plot(z, values, dashes, label=name)
axes[0].set(title="f(z)", xlabel="z", ylim=(-1.3, 3))
axes[1].set(title="its derivative f′(z)", xlabel="z")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
plt.show()

# %% [markdown]
# Read the right picture first, for it is the one that training depends on. The slope of the sigmoid is nowhere above ¼.
# That of tanh reaches 1, but only at 0. ReLU passes everything or nothing, LeakyReLU at least a little, and SoftPlus is
# a ReLU with a rounded corner; its slope is the sigmoid.
#
# ## The derivative from the output
#
# Derive the sigmoid once by hand. With $a = (1 + e^{-z})^{-1}$ the chain rule gives
#
# $$f'(z) = \frac{e^{-z}}{(1 + e^{-z})^2} = \frac{1}{1 + e^{-z}} \cdot \frac{e^{-z}}{1 + e^{-z}} = a\,(1 - a).$$
#
# This is more than short. Whoever knows $a$ needs $z$ no more: $a$ may overwrite it, and a layer keeps one array
# instead of two. In gpunn [this line](../gpunn/kernels/activations.py "dz = da * a * (T(1) - a);") is that formula in CUDA
# C++, and the lines of NumPy below it are the same for a CPU. The last column of the table is the only form that gpunn
# computes, but for LeakyReLU.
#
# Whether a derivative is right, a **central difference** tells without any thought: two values of $f$, left and right
# of $z$.

# %%
places = np.array([-3.0, -1.0, -0.2, 0.4, 2.0])  # not 0, where ReLU has a corner
step = 1e-5
for name, made in FIVE.items():
    left, right = (through(made(), places + move)[0] for move in (-step, step))
    derivative = through(made(), places)[1]
    agrees = np.allclose((right - left) / (2 * step), derivative, atol=1e-9)
    print(f"{name:<18} f′ =", np.round(derivative, 4), "agrees" if agrees else "DIFFERS")

# %% [markdown]
# ## Far out: where formulas fail
#
# Computers hold no number above about $10^{38}$ (float32) or $10^{308}$ (float64): $e^{1000}$ is `inf`. This is
# **overflow**, and the textbook's formulas run into it. Type them as they stand, and put in $z = \pm 1000$:

# %%
far = np.array([-1000.0, -40.0, 0.0, 1000.0])
with np.errstate(all="ignore"):  # or NumPy warns, and rightly
    print("sigmoid ", 1 / (1 + np.exp(-far)))
    print("tanh    ", (np.exp(far) - np.exp(-far)) / (np.exp(far) + np.exp(-far)))
    print("SoftPlus", np.log(1 + np.exp(far)))

# %% [markdown]
# The sigmoid had luck: $1/\infty = 0$ is the right limit. The formula of tanh is $\infty/\infty$, which is not a
# number: one `nan`, and after the next step every weight of the network is one. SoftPlus of 1000 should be 1000, not
# infinity; and at −40 it is not 0 but $4 \cdot 10^{-18}$, which is lost because $1 + 4 \cdot 10^{-18}$ is 1 to a
# computer.
#
# The cure is algebra. Take the larger of 0 and $z$ out of the logarithm, and what is left in the exponent is never
# positive:
#
# $$\ln(1 + e^z) = \max(z, 0) + \ln\big(1 + e^{-|z|}\big)$$
#
# `log1p(x)` is $\ln(1 + x)$, exact for small $x$ too. With it
# [the line that is SoftPlus](../gpunn/kernels/activations.py "a = (z < T(0) ? T(0) : z) + log1p(exp(-abs(z)));") is
# right everywhere. Let us see all five, in float32 and in float64, with their derivatives:

# %%
print("SoftPlus by the cure", np.maximum(far, 0) + np.log1p(np.exp(-np.abs(far))))
for name, made in FIVE.items():
    for dtype in ("float32", "float64"):
        a, slope = through(made(), far, dtype)
        assert np.all(np.isfinite([a, slope]))
    print(f"{name:<18} f  {a}\n{'':<18} f′ {slope}")

# %% [markdown]
# ## Saturation, and the gradient that vanishes
#
# Where $f$ is flat, $f'$ is nearly 0: the unit is **saturated**, and no error gets through to its weights. Equation (8)
# multiplies one such slope for each layer,
#
# $$\delta^l = \big((w^{l+1})^\mathsf{T}\, \delta^{l+1}\big) \odot f'(z^l), \tag{8}$$
#
# and
# [one line](../gpunn/nn/layers/activation.py "self._run(self.gradient_kernel, dy, self._seen, *self._constants(), dz)")
# is the product with $f'$ for all activations of gpunn. A sigmoid's slope is at most ¼, so eight layers of it leave at
# most $(1/4)^8 \approx 0.000015$ of the error, if weights do not make up for it. Measure it: a stack of eight hidden
# layers, one batch forward and backward, and the mean size of the gradients that arrive in each layer.

# %%
data = gn.load_data("digits")
x, y = data.train.inputs[:256] / 16, data.train.targets[:256]


def gradients_by_layer(activation, hidden=8):
    """Return the mean size of ∂C/∂b in each hidden layer of a deep network that has just begun."""
    layers = [layer for _ in range(hidden) for layer in (gn.Dense(30), activation())]
    model = gn.Sequential([gn.Flatten(), *layers, gn.Dense(10)]).build((8, 8, 1), batch_size=256, device="cpu", seed=0)
    loss = gn.SoftmaxCrossEntropy()
    loss.forward(model.forward(x, training=True), y)
    model.backward(loss.backward())
    return [np.abs(model.parameters[f"dense{number}.b"].grad).mean() for number in range(1, hidden + 1)]


# %% alt="On a logarithmic scale the gradient of a sigmoid network falls by orders of magnitude towards the first layer"
figure, axis = plt.subplots(figsize=(7, 3.6))
for name, marker in {"sigmoid": "o", "tanh": "s", "ReLU": "^"}.items():
    sizes = gradients_by_layer(FIVE[name])
    axis.semilogy(range(1, 9), sizes, marker=marker, label=name)
axis.set(xlabel="hidden layer (1 is next to the inputs)", ylabel="mean |∂C/∂b|", title="How much of the error arrives")
axis.legend()
plt.show()

# %% [markdown]
# The error comes from the right. With ReLU and tanh it arrives nearly whole at the first layer. With the sigmoid each
# layer loses most of what is left, until the first layers hardly learn: the **vanishing gradient**. It is one reason
# why networks were shallow for decades, and why hidden layers now mostly have ReLU, which costs next to nothing to
# compute besides.
#
# ## The same network with each
#
# How much does it matter in a shallow network? The same 64–30–30–10 network, the same start, the same rate:

# %% alt="Training loss over epochs for five activations: the sigmoid network starts slowest"
figure, axis = plt.subplots(figsize=(7, 3.6))
for (name, made), dashes in zip(FIVE.items(), ["-", "-", "-", "--", "-"], strict=True):
    model = gn.Sequential([gn.Flatten(), gn.Dense(30), made(), gn.Dense(30), made(), gn.Dense(10)])
    optimizer = gn.SGD(0.1)
    history = model.fit(data, optimizer=optimizer, epochs=15, batch_size=32, seed=0, device="cpu", progress=False)
    axis.plot(history["epoch"], history["train_loss"], dashes, label=name)
axis.set(xlabel="epoch", ylabel="training loss", title="Five activations, everything else alike")
axis.legend()
plt.show()

# %% [markdown]
# Four of them are there after a few epochs. The sigmoid has hardly begun after fifteen: its small slopes, twice, make
# every step of the first layer small. (It gets there with a rate ten times as large. So comparing activations at *one*
# rate is not quite fair; chapter 4 is about the rate.)
#
# For hidden layers begin with ReLU. Take LeakyReLU where units die (exercise 3), tanh for small networks that should be
# smooth, SoftPlus for a smooth ReLU or for an output above 0, and the sigmoid for outputs that are probabilities: the
# next chapter.

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. Derive one of your own.** Swish is $f(z) = z \cdot \sigma(z)$ with the sigmoid $\sigma$. Derive $f'$ by the
# product rule. Write both as functions that are finite and right at $z = \pm 1000$, and compare with central
# differences. Is $f$ monotonic, as the other five are?

# %% [markdown] tags=["solution"]
# $f' = \sigma + z\,\sigma(1 - \sigma) = \sigma\,(1 + z(1 - \sigma))$. For large $|z|$ the product $z\,\sigma(1-\sigma)$
# must not be computed as $\infty \cdot 0$; here it is $\pm 1000 \cdot 0$, since a sigmoid computed without overflow is
# exactly 0 or 1 there. Swish is not monotonic: it falls to about −0.28 near $z = -1.28$ and then rises.


# %% tags=["solution"]
def sigmoid(z):
    small = np.exp(-np.abs(z))  # the exponent is never positive
    return np.where(z >= 0, 1, small) / (1 + small)


def swish(z):
    return z * sigmoid(z)


def swish_derivative(z):
    return sigmoid(z) * (1 + z * (1 - sigmoid(z)))


z = np.array([-1000, -3, -1.28, 0.0, 2, 1000])
difference = (swish(z + 1e-5) - swish(z - 1e-5)) / 2e-5
print(np.round(swish_derivative(z), 4))
assert np.allclose(swish_derivative(z), difference, atol=1e-8)
assert swish_derivative(z)[1] < 0 < swish_derivative(z)[3]

# %% [markdown] tags=["exercise"]
# **2. Is tanh another kind of network?** Show that $\tanh z = 2\,\sigma(2z) - 1$. Then take a network with one hidden
# layer of tanh and change its four arrays so that it answers the same with the sigmoid. What follows for what the two
# kinds can learn, and why do they still train differently?

# %% [markdown] tags=["solution"]
# $2\sigma(2z) - 1 = \frac{2 - (1 + e^{-2z})}{1 + e^{-2z}} = \frac{1 - e^{-2z}}{1 + e^{-2z}} = \tanh z$. So double $w^1$
# and $b^1$; the next layer gets $2a - 1$ in place of $a$: double $w^2$, and take the sum of each of its old rows off
# $b^2$. Both kinds can compute the very same functions. They train differently since the slopes differ: tanh is four
# times as steep at 0, and its outputs have mean 0.

# %% tags=["solution"]
rng = np.random.default_rng(0)
w1, b1, w2, b2 = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=(2, 5)), rng.normal(size=2)
a0 = rng.normal(size=3)

by_tanh = w2 @ np.tanh(w1 @ a0 + b1) + b2
by_sigmoid = 2 * w2 @ sigmoid(2 * w1 @ a0 + 2 * b1) + b2 - w2.sum(axis=1)
assert np.allclose(by_tanh, by_sigmoid)

# %% [markdown] tags=["exercise"]
# **3. A dead unit.** A ReLU unit sees the 64 pixels of a digit, all between 0 and 1. Its weights are drawn from
# $N(0, 0.1)$, a normal distribution of deviation 0.1, and a step that was too long has set its bias to −10. Let
# $\partial C/\partial a$ be 1 for each of the first 256 digits, and predict the gradient of the bias. Can gradient
# descent revive the unit? What changes with LeakyReLU?

# %% [markdown] tags=["solution"]
# Its $z$ has mean −10 and a deviation of at most $0.1 \cdot \sqrt{64} = 0.8$: it is below 0 for every digit. So
# $f' = 0$ everywhere and all its gradients are exactly 0: no step changes it, it is dead for good. LeakyReLU lets the
# share $\alpha$ of the error through, small but not 0, and the unit can come back.


# %% tags=["solution"]
def bias_gradient(activation):
    model = gn.Sequential([gn.Flatten(), gn.Dense(1, weights=gn.Normal(0.1), bias=-10.0), activation])
    model.build((8, 8, 1), batch_size=256, device="cpu")
    model.forward(x, training=True)
    model.backward(np.ones((256, 1), np.float32))
    return float(model.parameters["dense1.b"].grad[0])


print(bias_gradient(gn.ReLU()), bias_gradient(gn.LeakyReLU(0.1)))
assert bias_gradient(gn.ReLU()) == 0
assert np.isclose(bias_gradient(gn.LeakyReLU(0.1)), 256 * 0.1)
