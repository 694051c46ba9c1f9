# %% [markdown]
# # 1. The forward pass, and its shapes
#
# After this chapter you can compute what a network answers: for one unit by hand, for a layer as one product, and for a
# whole batch. You will know the shape of every array on the way, and get the same numbers as gpunn to the last digits.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")

# %% [markdown]
# ## One unit
#
# A **unit** (or neuron) has a weight $w_q$ for each input $a_q$, and a bias $b$. It sums its weighted inputs, adds the
# bias, and puts the sum $z$ through an activation function $f$:
#
# $$a = f\Big(\sum_q w_q a_q + b\Big) = f(z) \tag{1}$$
#
# We take the sigmoid $f(z) = 1/(1 + e^{-z})$ here, which makes a number between 0 and 1 of any sum. Chapter 2 compares
# it with others.


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


a = np.array([1.0, 2.0, 0.5])  # three inputs
w = np.array([0.5, -1.0, 2.0])  # a weight for each
b = 0.1

z = w[0] * a[0] + w[1] * a[1] + w[2] * a[2] + b
print(f"z = 0.5·1 − 1·2 + 2·0.5 + 0.1 = {z:.1f}")
print(f"a = f(z) = {sigmoid(z):.4f}")
print(f"the same as a product: f(w @ a + b) = {sigmoid(w @ a + b):.4f}")

# %% [markdown]
# ## What one unit can tell apart
#
# With two inputs we can look at a unit: where $z = 0$ its answer is exactly ½, and that is a straight line. The weights
# are the arrow across the line; they point to where the answer is near 1. Longer weights make the change sharper, and
# the bias moves the line. **One unit draws one straight line**, and no more.

# %% alt="Two maps of a unit's answer over two inputs: a straight line divides low answers from high ones"
first, second = np.meshgrid(np.linspace(-3, 3, 200), np.linspace(-3, 3, 200))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for axis, (w1, w2, bias) in zip(axes, [(1.0, 0.5, 0.5), (4.0, 2.0, 2.0)], strict=True):
    answer = sigmoid(w1 * first + w2 * second + bias)
    shown = axis.contourf(first, second, answer, levels=np.linspace(0, 1, 21), cmap="cividis")
    axis.contour(first, second, answer, levels=[0.5], colors="white")
    foot = -bias * np.array([w1, w2]) / (w1**2 + w2**2)  # the point of the line nearest to 0
    axis.annotate("", foot + np.array([1.2, 0.6]), foot, arrowprops={"arrowstyle": "->", "linewidth": 1.5})
    axis.text(*(foot + np.array([1.3, 0.6])), "w")
    axis.set(title=f"w = ({w1:g}, {w2:g}), b = {bias:g}", xlabel="input $a_1$", aspect="equal")
    axis.grid(False)
axes[0].set_ylabel("input $a_2$")
figure.colorbar(shown, ax=axes, label="answer a", ticks=[0, 0.5, 1])
plt.show()

# %% [markdown]
# ## One layer is one product
#
# Units that share their inputs are a **layer**: a fully-connected layer, since each unit sees each input. Write the
# weights of each unit as a row of a matrix $w^l$, and number the layers from 1; $a^0$ are the inputs. Then all sums of
# layer $l$ are one product, and $f$ works on each number for itself:
#
# $$z^l = w^l a^{l-1} + b^l \tag{2}$$
#
# $$a^l = f(z^l) \tag{3}$$
#
# Read the shapes from right to left: (units of $l$ × units of $l-1$) times (units of $l-1$) gives (units of $l$). If
# two neighbours do not agree, NumPy refuses, and that is the error that you will meet most often; so meet it now. gpunn
# refuses as well, and says what to do.

# %%
rng = np.random.default_rng(1)
w1, b1 = rng.normal(size=(4, 3)), np.zeros(4)  # layer 1: 4 units see 3 inputs
w2, b2 = rng.normal(size=(2, 4)), np.zeros(2)  # layer 2: 2 units see 4 inputs

a0 = np.array([1.0, 2.0, 0.5])
a1 = sigmoid(w1 @ a0 + b1)
a2 = sigmoid(w2 @ a1 + b2)
for name, array in {"a0": a0, "w1": w1, "b1": b1, "a1": a1, "w2": w2, "b2": b2, "a2": a2}.items():
    print(f"{name}: {array.shape}")

# %%
try:
    sigmoid(w2 @ a0 + b2)  # layer 2 expects the 4 numbers of layer 1, not the 3 inputs
except ValueError as error:
    print("NumPy:", error)
try:
    gn.Sequential([gn.Dense(30)]).build((8, 8, 1), device="cpu")  # an image where a row of numbers is expected
except gn.GpunnError as error:
    print("gpunn:", error)

# %% [markdown]
# The two matrices and two biases are the whole network, and computing $a^1$, then $a^2$, is its **forward pass**. The
# layer between inputs and outputs is called a **hidden layer**. Here it is, drawn: each circle holds the number that
# its unit answers, each line is a weight, the thicker the larger; blue is below 0, red above.

# %% alt="A network of three inputs, four hidden units and two outputs, with the numbers in its units"
figure, axis = plt.subplots(figsize=(7, 3.8))
columns = [a0, a1, a2]
places = [[(2.2 * column, 1.5 * ((len(a) - 1) / 2 - row)) for row in range(len(a))] for column, a in enumerate(columns)]
for column, weights in enumerate([w1, w2]):
    for unit, input_ in np.ndindex(weights.shape):
        value = weights[unit, input_]
        ends = np.array([places[column][input_], places[column + 1][unit]]).T
        axis.plot(*ends, color="#B2182B" if value > 0 else "#2166AC", linewidth=2.5 * abs(value), alpha=0.6, zorder=1)
for column, activations in zip(places, columns, strict=True):
    for (x, y), value in zip(column, activations, strict=True):
        axis.scatter(x, y, s=1400, color="white", edgecolor="#222222", zorder=2)
        axis.text(x, y, f"{value:.2f}", ha="center", va="center", zorder=3)
for x, name in enumerate(["inputs $a^0$", "hidden layer $a^1$", "outputs $a^2$"]):
    axis.text(2.2 * x, 3.1, name, ha="center")
axis.set(xlim=(-0.7, 5.1), ylim=(-2.9, 3.5))
axis.axis("off")
plt.show()

# %% [markdown]
# ## A whole batch at once
#
# Samples do not know of each other. Put $n$ of them side by side as the **columns** of a matrix, and equation (2) holds
# as it stands: $Z = w A + b$, with the bias added to each column. One large product is far quicker than many small
# ones.
#
# Files and NumPy programs mostly have samples as **rows**. Transposing both sides gives the same equation for rows:
# $Z = X w^\mathsf{T} + b$. gpunn takes and gives rows, and computes with columns inside:
# [this line](../gpunn/nn/layers/dense.py "self._forward(1.0, self.w.value, x, 0.0, z)") is the product of equation (2),
# and [this one](../gpunn/nn/layers/dense.py "self._run(add_bias, self.b.column, x.reshape(self._units, -1))") adds the
# bias.

# %%
samples = rng.normal(size=(5, 3))  # five samples of three numbers, as rows
by_columns = w1 @ samples.T + b1[:, None]  # (4 × 3) @ (3 × 5) = (4 × 5)
by_rows = samples @ w1.T + b1  # (5 × 3) @ (3 × 4) = (5 × 4)
one_by_one = np.array([w1 @ sample + b1 for sample in samples])
print("columns", by_columns.shape, "rows", by_rows.shape)
print("the same numbers:", np.allclose(by_columns.T, by_rows) and np.allclose(by_rows, one_by_one))

# %% [markdown]
# ## Digits through a network of gpunn
#
# Now real inputs: handwritten digits of 8 × 8 pixels, each from 0 (paper) to 16 (ink). We divide by 16, so that all
# inputs are between 0 and 1.

# %% alt="Ten handwritten digits of 8 by 8 pixels"
data = gn.load_data("digits")
x, y = data.train.inputs / 16, data.train.targets
print("inputs", x.shape, "targets", y.shape)
figure, axes = plt.subplots(1, 10, figsize=(8, 1.2))
for digit, axis in enumerate(axes):
    axis.imshow(x[y == digit][0][:, :, 0], vmin=0, vmax=1)
    axis.set(title=digit, xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
plt.show()

# %% [markdown]
# The network has 64 inputs, a hidden layer of 30 units, and 10 outputs, one for each digit. `Flatten` puts the 8 × 8
# pixels into one row of 64; `Dense` is equation (2), `Sigmoid` is equation (3). A layer has a weight for each pair of
# unit and input, and a bias for each unit: $30 \cdot 64 + 30 = 1950$ parameters in the first. We build it on the CPU,
# so that its arrays are NumPy's like ours, in double precision.

# %%
model = gn.Sequential([gn.Flatten(), gn.Dense(30), gn.Sigmoid(), gn.Dense(10), gn.Sigmoid()])
model.build((8, 8, 1), batch_size=100, device="cpu", dtype="float64", seed=0)
for parameter in model.parameters:
    print(f"{parameter.name}: {parameter.shape}, {parameter.size} numbers")
print("in all", sum(parameter.size for parameter in model.parameters))

# %% [markdown]
# The forward pass is [a loop over the layers](../gpunn/nn/layout.py "x = stage.forward(x, training)"), in gpunn as in
# your own code. Take gpunn's weights, compute both layers with NumPy, and compare:

# %%
w1, b1, w2, b2 = (model.parameters[name].value for name in ["dense1.w", "dense1.b", "dense2.w", "dense2.b"])
batch = x[:100].reshape(100, 64)
hidden = sigmoid(batch @ w1.T + b1)  # (100, 30)
outputs = sigmoid(hidden @ w2.T + b2)  # (100, 10)
difference = np.abs(outputs - model.forward(x[:100])).max()
print(outputs.shape, "the same as gpunn's to 12 digits:", difference < 1e-12)

# %% [markdown]
# ## What an untrained network sees
#
# Here is the whole way of one digit: its pixels, the same as one column, the hidden layer, the outputs. The weights are
# random as yet, so the largest output says nothing about the digit. That the answers are *wrong* is all that training
# changes: the forward pass stays the same, the weights become better ones. How wrong the answers are is chapter 3, and
# how they get better is chapter 4.

# %% alt="A digit, its 64 numbers as a column, 30 hidden activations, and ten outputs that do not tell the digit"
one = 7
figure, axes = plt.subplots(1, 4, figsize=(8, 4), width_ratios=[3, 1, 1, 4])
axes[0].imshow(x[one, :, :, 0])
axes[1].imshow(batch[one][:, None], vmin=0, vmax=1, aspect=0.12)
axes[2].imshow(hidden[one][:, None], vmin=0, vmax=1, aspect=0.27)
axes[3].barh(range(10), outputs[one], color=["C1" if digit == y[one] else "C0" for digit in range(10)])
axes[3].set(yticks=range(10), ylim=(9.6, -0.6), xlim=(0, 1), xlabel="answer", ylabel="output")
titles = [f"a digit {y[one]}\n(8 × 8)", "$a^0$\n(64)", "$a^1$\n(30)", "outputs $a^2$ (10); orange is right"]
for axis, title in zip(axes, titles, strict=True):
    axis.set_title(title)
for axis in axes[:3]:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
plt.show()

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. Count before you build.** Images of 28 × 28 pixels go through two hidden layers of 100 and 50 units to 10
# outputs. Write down the shapes of all weights and biases, and the number of parameters. Which layer has most of them?
# Then let gpunn count.

# %% tags=["solution"]
sizes = [28 * 28, 100, 50, 10]
counts = [units * inputs + units for inputs, units in zip(sizes[:-1], sizes[1:], strict=True)]
print(counts, sum(counts))  # the first has 93 % of them: each of its units sees every pixel

larger = gn.Sequential([gn.Flatten(), gn.Dense(100), gn.Sigmoid(), gn.Dense(50), gn.Sigmoid(), gn.Dense(10)])
larger.build((28, 28, 1), device="cpu")
assert sum(counts) == sum(parameter.size for parameter in larger.parameters) == 84_060

# %% [markdown] tags=["exercise"]
# **2. Why is there an activation at all?** Leave it out: $f(z) = z$. Show that two layers are then no more than one:
# find $w$ and $b$ from $w^1, b^1, w^2, b^2$. What follows for a network of ten such layers?

# %% [markdown] tags=["solution"]
# Put one into the other: $w^2 (w^1 a + b^1) + b^2 = (w^2 w^1)\, a + (w^2 b^1 + b^2)$. So $w = w^2 w^1$ and
# $b = w^2 b^1 + b^2$. Ten such layers are one as well: without activations, depth gives nothing, and all boundaries
# stay straight lines.

# %% tags=["solution"]
w, b = w2 @ w1, w2 @ b1 + b2
two_layers = w2 @ (w1 @ batch[0] + b1) + b2
assert np.allclose(w @ batch[0] + b, two_layers)

# %% [markdown] tags=["exercise"]
# **3. XOR by hand.** One unit draws one line, so it cannot answer "exactly one of two inputs is 1". Two hidden units
# and one output can. Find the nine numbers, with $f$ = sigmoid, so that the output is above 0.9 for (0, 1) and (1, 0),
# and below 0.1 for (0, 0) and (1, 1). *Hint:* let one hidden unit answer OR, and the other AND. Large weights make a
# sigmoid nearly a switch.

# %% tags=["solution"]
inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
hidden_w, hidden_b = np.array([[20, 20], [20, 20]]), np.array([-10, -30])  # OR: one is enough. AND: it takes both
output_w, output_b = np.array([[20, -20]]), np.array([-10])  # OR and not AND

hidden_answers = sigmoid(inputs @ hidden_w.T + hidden_b)
answers = sigmoid(hidden_answers @ output_w.T + output_b)[:, 0]
print(np.round(answers, 3))
assert np.all(answers[1:3] > 0.9)
assert np.all(answers[[0, 3]] < 0.1)

# %% tags=["solution"] alt="The network's answer over both inputs: a yellow band between two lines, with (0, 1) and (1, 0) in it"
first, second = np.meshgrid(np.linspace(-0.5, 1.5, 200), np.linspace(-0.5, 1.5, 200))
places = np.stack([first.ravel(), second.ravel()], axis=1)
shown = sigmoid(sigmoid(places @ hidden_w.T + hidden_b) @ output_w.T + output_b).reshape(first.shape)
figure, axis = plt.subplots(figsize=(4, 3.4))
axis.contourf(first, second, shown, levels=np.linspace(0, 1, 21), cmap="cividis")
axis.scatter(*inputs.T, s=70, color="white", edgecolor="#222222")
axis.set(title="two lines, one band", xlabel="input 1", ylabel="input 2", aspect="equal")
axis.grid(False)
plt.show()
