# %% [markdown]
# # 12. Batch normalization, and why the start matters
#
# You see why a deep network can be lost before its first step, derive the start that prevents it, and write batch
# normalization by hand: in training, in prediction, and backwards.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")
data = gn.load_data("digits")
x = data.train.inputs.reshape(-1, 64).T / 16  # a column for each image
x = (x - x.mean()) / x.std()
print("inputs", x.shape, f"mean {abs(x.mean()):.1f}, deviation {x.std():.1f}")

# %% [markdown]
# ## A signal on its way through twenty layers
#
# Let twenty layers of 64 ReLU units stand one after another, with random weights, and send all images through. The only
# question is how large the activations are. Weights come from $N(0, s)$, a normal distribution of deviation $s$.


# %%
def spread(s, depth=20, units=64):
    """Return the activations' size (root mean square) after each layer, and that of δ on the way back."""
    random = np.random.default_rng(0)
    a, weights, outputs = x, [], []
    for _ in range(depth):
        w = random.normal(0, s, (units, len(a)))
        a = np.maximum(w @ a, 0)  # (2), (3), biases are 0
        weights.append(w)
        outputs.append(a)
    delta, sizes = random.normal(size=a.shape), []
    for w, a in zip(reversed(weights), reversed(outputs), strict=True):
        delta = delta * (a > 0)  # (8): times f′(z) …
        sizes.append(np.sqrt((delta**2).mean()))
        delta = w.T @ delta  # … and through the weights
    return [np.sqrt((a**2).mean()) for a in outputs], sizes[::-1]


# %% alt="Activations and gradients over 20 layers: they explode, vanish, or keep their size"
starts = {"N(0, 1)": 1.0, "He: N(0, √(2/64))": np.sqrt(2 / 64), "Glorot: √(1/64)": np.sqrt(1 / 64), "N(0, 0.01)": 0.01}
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.6))
for (name, s), line in zip(starts.items(), ["-", "o-", "--", ":"], strict=True):
    for axis, sizes in zip(axes, spread(s), strict=True):
        axis.semilogy(range(1, 21), sizes, line, markersize=4, label=name)
axes[0].set(title="activations, forward", xlabel="layer", ylabel="root mean square", xticks=[1, 5, 10, 15, 20])
axes[1].set(title="δ, backward: read from the right", xlabel="layer", xticks=[1, 5, 10, 15, 20])
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# The choice of the first weights is called *initialization*, and much depends on it. The axis is logarithmic: a
# straight line is a factor for every layer. With $N(0, 1)$ numbers grow to $10^{15}$. With $N(0, 0.01)$ nothing is left
# of the image, and the δ that comes back to the first layer is as good as 0: it learns nothing. Only one start keeps
# its size in both directions.
#
# ## The start that keeps its size
#
# One unit sums over $n$ inputs, $z = \sum_q w_q a_q$. With independent weights of mean 0 and deviation $s$, and
# $\operatorname{E}$ for the mean over all draws,
#
# $$ \operatorname{E}[z^2] = n\, s^2\, \operatorname{E}[a^2] $$
#
# A ReLU turns one half of the $z$ into 0, so $\operatorname{E}[a^2] = \tfrac12 \operatorname{E}[z^2]$ goes on. The size
# stays if the factor of a layer is 1:
#
# $$ \tfrac12\, n\, s^2 = 1 \quad\Longrightarrow\quad s = \sqrt{2 / n} $$
#
# That is **He's start**, in gpunn
# [this line](../gpunn/nn/initializers.py "return generator.normal(0.0, sqrt(2 / fan_in), shape)"). **Glorot's** is made
# for activations that are straight near 0, such as tanh: $s = \sqrt{2 / (n_\text{in} + n_\text{out})}$, which is
# $\sqrt{1/n}$ where both counts are $n$, and between the two directions otherwise. gpunn takes He's where a ReLU follows, and Glorot's else.

# %%
for name, s in starts.items():
    factor = np.sqrt(64 * s**2 / 2)
    print(f"{name:18} factor of a layer √(n s²/2) = {factor:.3f}, after twenty {factor**20:.0e}")
measured = np.array(spread(starts["He: N(0, √(2/64))"])[0])
assert 0.3 < measured[-1] / measured[0] < 3

# %% [markdown]
# ## Batch normalization, by hand
#
# A good start helps at the start. After some steps the weights are others. Batch normalization (S. Ioffe and C.
# Szegedy, 2015) keeps the size at every step: for each feature it takes mean $\bar x$ and variance $\sigma^2(x)$ over the
# minibatch, and makes them 0 and 1. A small $\varepsilon$, here $10^{-5}$, keeps it from dividing by 0:
#
# $$ \hat x = \frac{x - \bar x}{\sqrt{\sigma^2(x) + \varepsilon}} \tag{23} $$
#
# Then it lets the network choose what they shall be instead, by two numbers for each feature that are learned like all
# others:
#
# $$ y = \gamma\, \hat x + \beta \tag{24} $$


# %%
def batch_norm(x, gamma, beta, epsilon=1e-5):
    """Compute (23) and (24) for a batch of rows."""
    mean = x.mean(axis=0)
    variance = ((x - mean) ** 2).mean(axis=0)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


random = np.random.default_rng(1)
batch = random.normal([-4, 1, 6], [0.5, 3, 1.2], (200, 3))  # three features of different place and width
gamma, beta = np.array([1.0, 0.5, 2.0]), np.array([0.0, 3.0, -2.0])

# %% alt="Three features: apart from each other, normalized to one place, and moved again by gamma and beta"
steps = {"x": batch, "x̂, by (23)": batch_norm(batch, 1, 0), "y = γ x̂ + β, by (24)": batch_norm(batch, gamma, beta)}
figure, axes = plt.subplots(1, 3, figsize=(9.4, 2.8), sharex=True, sharey=True)
for axis, (title, values) in zip(axes, steps.items(), strict=True):
    for feature in range(3):
        axis.hist(values[:, feature], bins=np.arange(-10, 10, 0.5), alpha=0.65, label=f"feature {feature}")
    axis.set(title=title, xlabel="value")
axes[0].set_ylabel("samples")
axes[0].legend()
plt.show()

# %% [markdown]
# gpunn computes the same.
# [The variance](../gpunn/kernels/normalization.py "np.divide(sums_of_rows(y, y), size, out=variance)") is the mean of
# squared distances, in a second pass: the shortcut $\operatorname{E}[x^2] - \bar x^2$ loses all digits where the mean
# is large beside the spread.

# %%
layer = gn.Sequential([gn.BatchNorm()]).build((3,), batch_size=200, device="cpu", dtype="float64")
layer.parameters["batchnorm1.gamma"].value[...] = gamma
layer.parameters["batchnorm1.beta"].value[...] = beta
y = layer.forward(batch, training=True)
print("mean     ", y.mean(axis=0).round(3), " which is β")
print("deviation", y.std(axis=0).round(3), " which is γ")
assert np.allclose(y, batch_norm(batch, gamma, beta), rtol=0, atol=1e-12)

# %% [markdown]
# **It can be nothing at all.** With $\gamma = \sqrt{\sigma^2 + \varepsilon}$ and $\beta = \bar x$ it is the identity:
# what (23) has taken away, (24) gives back. So it does not limit what a network can compute. It changes how easily it
# is learned.

# %%
layer.parameters["batchnorm1.gamma"].value[...] = np.sqrt(batch.var(axis=0) + 1e-5)
layer.parameters["batchnorm1.beta"].value[...] = batch.mean(axis=0)
assert np.allclose(layer.forward(batch, training=True), batch, rtol=0, atol=1e-12)
print("identity")

# %% [markdown]
# In images every place of a map is seen by the same filter, so all of them share one $\gamma$ and one $\beta$ a
# channel: the mean goes over the batch, the rows and the columns.

# %%
maps = random.normal(5, 2, (10, 6, 6, 4))
images = gn.Sequential([gn.BatchNorm()]).build((6, 6, 4), batch_size=10, device="cpu", dtype="float64")
by_hand = (maps - maps.mean(axis=(0, 1, 2))) / np.sqrt(maps.var(axis=(0, 1, 2)) + 1e-5)
assert np.allclose(images.forward(maps, training=True), by_hand)
print("γ and β of 4 channels:", images.parameters.values.size, "numbers")

# %% [markdown]
# ## Training is one thing, prediction another
#
# In training the answer for an image depends on the others in its batch. That is a useful noise there, and would be a
# scandal in prediction: the same image, two answers. So each training step also remembers a little of its statistics in
# a *running average*,
#
# $$ r := (1 - m)\, r + m\, \bar x $$
#
# and likewise for $\sigma^2$, with $m = 0.1$.
# [This is the line](../gpunn/kernels/normalization.py "running_mean += real(momentum) * mean"). When not training, $r$
# stands in the place of $\bar x$.

# %% alt="Means of batches scatter around 6; the running average starts at 0 and comes close after 40 batches"
fresh = gn.Sequential([gn.BatchNorm()]).build((3,), batch_size=20, device="cpu", dtype="float64")
means, remembered, r = [], [], 0.0
for _ in range(60):
    some = random.normal([-4, 1, 6], [0.5, 3, 1.2], (20, 3))
    fresh.forward(some, training=True)
    r = 0.9 * r + 0.1 * some.mean(axis=0)
    means.append(some.mean(axis=0)[2])
    remembered.append(fresh.arrays()["batchnorm1.mean"][2])
assert np.allclose(fresh.arrays()["batchnorm1.mean"], r)
figure, axes = plt.subplots(figsize=(6.4, 2.8))
axes.plot(means, ".", label="mean of each batch")
axes.plot(remembered, label="running average r")
axes.axhline(6, color="#767676", linewidth=1, zorder=1)
axes.set(xlabel="training step", ylabel="feature 2", ylim=(0, 7))
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# Two batches that have one sample in common:

# %%
one = np.array([[-4.0, 1.0, 6.0]])
low, high = np.vstack([one, batch[:10] - 3]), np.vstack([one, batch[:10] + 3])
for training in (True, False):
    answers = [fresh.forward(some, training=training)[0] for some in (low, high)]
    print(f"training={training!s:5}  in one batch {answers[0].round(2)}, in the other {answers[1].round(2)}")
    assert np.allclose(*answers) is not training

# %% [markdown]
# Averages lag behind weights that still change. After a short training it is better to take mean and variance of the
# whole training set in one pass through the finished network: `model.recompute_statistics(data)`, or
# `fit(recompute_statistics=True)`.
#
# ## Back through it
#
# The mean and the variance depend on every sample of the batch, so (8) has two more terms than one would guess. A bar is
# the mean over the batch:
#
# $$ \frac{\partial C}{\partial x} = \frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}} \left( \delta - \overline{\delta} -
# \hat x\, \overline{\delta \odot \hat x} \right) \qquad \frac{\partial C}{\partial \gamma} = \sum \delta \odot \hat x
# \qquad \frac{\partial C}{\partial \beta} = \sum \delta $$
#
# They take out of δ just what normalization would undo anyway: a push that moves all samples alike, and one that
# stretches them.

# %%
delta, x_hat = random.normal(size=(200, 3)), batch_norm(batch, 1, 0)
scale = gamma / np.sqrt(batch.var(axis=0) + 1e-5)
dx = scale * (delta - delta.mean(axis=0) - x_hat * (delta * x_hat).mean(axis=0))
assert np.allclose(dx.sum(axis=0), 0)  # no push that moves all samples alike is left
assert np.allclose((dx * x_hat).sum(axis=0), 0, atol=1e-3)  # and none that stretches them
layer.parameters["batchnorm1.gamma"].value[...] = gamma
layer.forward(batch, training=True)
layer.backward(delta)
assert np.allclose(layer.parameters["batchnorm1.gamma"].grad, (delta * x_hat).sum(axis=0))
assert np.allclose(layer.parameters["batchnorm1.beta"].grad, delta.sum(axis=0))
print(gn.check_gradients(gn.BatchNorm(), (3,), batch_size=6)["input"])

# %% [markdown]
# ## Ten layers, three starts, and BatchNorm
#
# Does it matter in a training? Ten layers of 64 ReLU units on the digits, plain gradient descent (4). Each network gets
# twelve epochs.


# %%
def deep(start, norm):
    """Make ten layers with this start, each with BatchNorm before its ReLU or without."""
    layers = [gn.Flatten()]
    for _ in range(10):
        layers += [gn.Dense(64, weights=start), *([gn.BatchNorm()] if norm else []), gn.ReLU()]
    return gn.Sequential([*layers, gn.Dense(10)])


cases = {
    "N(0, 1)": (gn.Normal(1.0), False, 0.05),
    "N(0, 0.01)": (gn.Normal(0.01), False, 0.05),
    "He": (gn.He(), False, 0.05),
    "N(0, 1), BatchNorm": (gn.Normal(1.0), True, 0.5),
}
curves = {}

# %%
for name, (start, norm, rate) in cases.items():
    model = deep(start, norm)
    try:
        curves[name] = model.fit(data, optimizer=gn.SGD(rate), epochs=12, batch_size=64, device="cpu", seed=0,
                                 progress=False)  # fmt: skip
    except gn.GpunnError as error:  # gpunn stops where the loss is no number any more
        print(f"{name}: {str(error).partition(';')[0]}")
print("learned something:", [name for name, history in curves.items() if history[-1].train_accuracy > 0.5])

# %% alt="Loss stays at ln 10 for N(0, 0.01), and falls for He and for N(0, 1) with BatchNorm"
figure, axes = plt.subplots(figsize=(7, 3.4))
for (name, history), line in zip(curves.items(), [":", "-", "--"], strict=True):
    smooth = np.convolve(history["train_loss"], np.ones(4) / 4, "valid")  # the mean of an epoch
    axes.plot(history["epoch"][3:], smooth, line, label=name)
axes.set(xlabel="epoch", ylabel="training loss", ylim=(0, 2.7))
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
assert set(curves) == set(cases) - {"N(0, 1)"}

# %% [markdown]
# - $N(0, 1)$ ends before it has begun: numbers become too large for float32.
# - $N(0, 0.01)$ stays at $\ln 10$: no gradient arrives.
# - He's start learns.
# - With BatchNorm the same $N(0, 1)$ learns too, and stands ten times the learning rate. Why larger weights even *need*
#   a larger rate is exercise 1.
#
# So it is no substitute for a good start, which costs nothing, and it is no cure for overfitting. It makes training
# less touchy. In a convolutional network (chapter 11) it stands behind each convolution or each pooling; where a batch
# has few samples, layer normalization (exercise 3) is the better choice.
#
# ## What to remember
#
# - Each layer multiplies the size of a signal. Twenty times a factor is a disaster, unless the factor is 1.
# - $s = \sqrt{2/n}$ for ReLU.
# - BatchNorm: (23) over the batch, (24) learned; remembered statistics when not training.
#
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. What it makes superfluous.** A `Dense` layer is followed by BatchNorm. Show that the output does not change when
# the bias is set to 7, nor when all weights are multiplied by 10. What happens to ∂C/∂w in the second case, and what
# does that say about the learning rate?

# %% tags=["solution"]
pair = gn.Sequential([gn.Dense(4), gn.BatchNorm(epsilon=1e-12)])
pair.build((3,), batch_size=200, device="cpu", dtype="float64", seed=0)
before = pair.forward(batch, training=True)
pair.backward(before**2)  # any ∂C/∂y will do
gradient = pair.parameters["dense1.w"].grad.copy()
pair.parameters["dense1.b"].value[...] = 7.0
pair.parameters["dense1.w"].value[...] *= 10
after = pair.forward(batch, training=True)
pair.backward(after**2)
assert np.allclose(before, after)
assert np.allclose(pair.parameters["dense1.w"].grad, gradient / 10)
print("the same output, a tenth of the gradient: relative to the weights a step is 100 times smaller")

# %% [markdown] tags=["exercise"]
# **2. Gone at prediction.** With remembered $\bar x$ and $\sigma^2$, BatchNorm after a `Dense` is only a multiplication
# and an addition. Find weights $w'$ and biases $b'$ of a single `Dense` that answers the same, and check them.

# %% tags=["solution"]
kept = pair.arrays()
factor = kept["batchnorm1.gamma"] / np.sqrt(kept["batchnorm1.variance"] + 1e-12)
single = gn.Sequential([gn.Dense(4)]).build((3,), batch_size=200, device="cpu", dtype="float64")
single.parameters["dense1.w"].value[...] = factor[:, None] * kept["dense1.w"]
single.parameters["dense1.b"].value[...] = (
    factor * (kept["dense1.b"] - kept["batchnorm1.mean"]) + kept["batchnorm1.beta"]
)
assert np.allclose(single.forward(batch), pair.forward(batch))
print("w' = γ/√(σ² + ε) · w,  b' = γ/√(σ² + ε) · (b − x̄) + β")

# %% [markdown] tags=["exercise"]
# **3. Across instead of down.** Layer normalization takes mean and variance over the *features of one sample*. Write
# it, compare it with `gn.LayerNorm`, and show that a sample no longer depends on its batch, in training neither.

# %% tags=["solution"]
centred = batch - batch.mean(axis=1, keepdims=True)
across = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
layer_norm = gn.Sequential([gn.LayerNorm()]).build((3,), batch_size=200, device="cpu", dtype="float64")
together = layer_norm.forward(batch, training=True)
alone = layer_norm.forward(batch[:1], training=True)
print("no running averages:", sorted(layer_norm.arrays()))
assert np.allclose(together, across)
assert np.allclose(alone[0], together[0])
