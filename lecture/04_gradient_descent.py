# %% [markdown]
# # 4. Gradient descent and minibatches
#
# After this chapter you can write the loop that trains a network, choose its learning rate by looking at a curve, and
# say what a minibatch and an epoch are. Your loop will give the same weights as gpunn's `fit`.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn
from gpunn.kernels.random import epoch_order

plt.style.use("gpunn.display.lecture")

# %% [markdown]
# ## One step
#
# The cost $C$ depends on every parameter $p$ of the network. Its derivative $\partial C/\partial p$ says how steeply it
# rises with $p$. So step the other way, by a length that the **learning rate** $\eta$ sets:
#
# $$p := p - \eta\, \frac{\partial C}{\partial p} \tag{4}$$
#
# That is **gradient descent**, and there is nothing else in training: all that you will learn later changes $C$, or the
# network, or the step a little. In gpunn equation (4) is [this line](../gpunn/kernels/updates.py "value -= eta * g;").
#
# ## Too small, good, too large
#
# One parameter is enough to see what $\eta$ does. Take $C(w) = w^2$, whose derivative is $2w$, and begin at $w = 4$. A
# step is $w := w - 2\eta w = (1 - 2\eta)\, w$: each multiplies $w$ by the same factor.


# %%
def descend(rate, steps=12, w=4.0):
    """Return w before each step and after the last."""
    path = [w]
    for _ in range(steps):
        w = w - rate * 2 * w  # (4)
        path.append(w)
    return np.array(path)


# %% alt="Four parabolas with steps on them: creeping, falling to the bottom, jumping from side to side, and climbing out"
w = np.linspace(-6, 6, 200)
figure, axes = plt.subplots(1, 4, figsize=(9, 2.8), sharey=True)
for axis, rate in zip(axes, [0.03, 0.3, 0.9, 1.03], strict=True):
    path = descend(rate)
    axis.plot(w, w**2, color="#BBBBBB")
    axis.plot(path, path**2, "o-", color="C1", markersize=4, linewidth=1)
    axis.set(title=f"η = {rate}\nfactor {1 - 2 * rate:+.2f}", xlabel="w", xlim=(-6.5, 6.5), ylim=(-2, 36))
axes[0].set_ylabel("C(w)")
plt.show()

# %% [markdown]
# With 0.03 it creeps. With 0.3 it is there after a few steps. With 0.9 it jumps over the bottom each time, and still
# comes closer. Above 1 each jump ends higher than the last: it **diverges**. A network then shows a cost that jumps up
# and stays there, or `nan`. The border lies where the factor reaches −1, and it depends on how curved the valley is
# (exercise 1).
#
# ## Two parameters: a real surface
#
# Real valleys are curved differently in different directions. Fit a line $a = w x + b$ to 40 points, by the mean
# squared error. With $\delta = 2(a - y)$ for each point the chain rule gives both derivatives: $\partial C/\partial w$ is
# the mean of $\delta x$, and $\partial C/\partial b$ that of $\delta$.

# %%
rng = np.random.default_rng(4)
x = rng.uniform(0, 3, 40)
y = 0.8 * x + 1 + rng.normal(0, 0.4, 40)


def gradient(p, at=slice(None)):
    """Return ∂C/∂(w, b) over the points at some places."""
    delta = 2 * (p[0] * x[at] + p[1] - y[at])
    return np.array([np.mean(delta * x[at]), np.mean(delta)])


def walk(rate, steps, momentum=0.0, batch=40):
    p, v, path = np.array([-1.5, 3.5]), np.zeros(2), []
    for _ in range(steps):
        path.append(p)
        at = slice(None) if batch == 40 else rng.choice(40, batch, replace=False)
        v = momentum * v + gradient(p, at)
        p = p - rate * v
    return np.array(path).T


# %% alt="Contours of a long valley with three paths to its bottom: a zigzag, a noisy one, and a curve with momentum"
w, b = np.meshgrid(np.linspace(-2, 3, 120), np.linspace(-1, 5, 120))
cost = np.mean((w[..., None] * x + b[..., None] - y) ** 2, axis=-1)
walks = {"all points, η = 0.19": walk(0.19, 60), "momentum 0.7, η = 0.06": walk(0.06, 60, momentum=0.7)}
walks["4 points at a time, η = 0.06"] = walk(0.06, 200, batch=4)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), sharey=True)
for axis, (name, path) in zip(axes, walks.items(), strict=True):
    axis.contourf(w, b, cost, levels=np.geomspace(0.1, 40, 20), cmap="Blues", extend="both")
    axis.plot(*path, ".-", color="C1", linewidth=1, markersize=4)
    axis.plot(*np.polyfit(x, y, 1), "k+", markersize=12)
    axis.set(title=name, xlabel="w", xlim=(-2, 3), ylim=(-1, 5))
    axis.grid(False)
axes[0].set_ylabel("b")
plt.show()

# %% [markdown]
# The cross is the bottom, and the darker the blue the higher the cost. Left, every step goes straight downhill, and
# still the path zigzags: across the valley it is steep, along it flat, and one rate must do for both. In the middle
# each step keeps a part of the last one, $v := \mu v + \partial C/\partial p$ and $p := p - \eta v$. This **momentum**
# cancels what goes to and fro, and adds up what goes on. Right, each step looks at four of the points only, and still
# gets there; that is the next idea.
#
# ## Minibatches
#
# The gradient over all samples is exact, and dear: a million samples for one step. A few samples, drawn at random, give
# the same gradient *on average*, with some noise. These few are a **minibatch**. How much noise? Take a network for
# digits, the exact gradient over all 1,293, and that of 200 minibatches of each size:

# %%
data = gn.load_data("digits")
inputs, labels = data.train.inputs / 16, data.train.targets
loss = gn.SoftmaxCrossEntropy()


def make_network():
    return gn.Sequential([gn.Flatten(), gn.Dense(30), gn.Tanh(), gn.Dense(10)])


model = make_network().build((8, 8, 1), batch_size=len(inputs), device="cpu", dtype="float64", seed=0)


def gradient_of(at):
    """Return all derivatives of the mean cost of some samples, as one vector."""
    loss.forward(model.forward(inputs[at], training=True), labels[at])
    model.backward(loss.backward())
    return np.concatenate([parameter.grad.ravel() for parameter in model.parameters])


# %% alt="The error of a minibatch's gradient falls with the root of its size, a straight line on logarithmic axes"
exact = gradient_of(np.arange(len(inputs)))
sizes = [1, 4, 16, 64, 256]
errors = []
for size in sizes:
    drawn = [gradient_of(rng.choice(len(inputs), size)) for _ in range(200)]
    errors.append(np.mean([np.linalg.norm(g - exact) for g in drawn]) / np.linalg.norm(exact))
figure, axis = plt.subplots(figsize=(6, 3.2))
axis.loglog(sizes, errors, "o-", label="measured")
axis.loglog(sizes, errors[0] / np.sqrt(sizes), "--", color="#8A8A8A", label=r"$1/\sqrt{B}$")
axis.set(xlabel="samples in the minibatch, B", ylabel="error / length of the gradient", title="Noise of a minibatch")
axis.set_xticks(sizes, labels=sizes)
axis.set_yticks([0.25, 0.5, 1, 2, 4], labels=[0.25, 0.5, 1, 2, 4])
axis.minorticks_off()
axis.legend()
plt.show()

# %% [markdown]
# The error falls as $1/\sqrt{B}$: **four times the work halves the noise**. That is a bad bargain. With one sample the
# noise is several times the signal; with 16 it is about as large, and with 64 half of it, and steps point downhill on
# the whole. So one takes many cheap, noisy steps rather than few exact ones. Common sizes are 16 to 256: enough columns
# to keep a processor busy.
#
# An **epoch** is one pass over the training set, minibatch after minibatch. Before each the samples are shuffled, so
# that no step sees the same company twice:
# [this line](../gpunn/train/orders.py "return epoch_order(self._size") of gpunn. With 1,293 samples and
# minibatches of 32 an epoch is 41 steps; the last has the 13 samples that are left.
#
# ## The whole loop, twice
#
# Now train. Below is the loop that you would write on a blackboard. `backward` computes all gradients at once; how, is
# the next chapter. The order of the samples is the one that gpunn takes, so that both see the same.


# %%
def train_by_hand(epochs, rate, batch_size=32):
    model = make_network().build((8, 8, 1), batch_size=batch_size, device="cpu", dtype="float64", seed=0)
    for epoch in range(epochs):
        order = epoch_order(len(inputs), seed=0, epoch=epoch)
        for start in range(0, len(inputs), batch_size):
            at = order[start : start + batch_size]
            z = model.forward(inputs[at], training=True)
            loss.forward(z, labels[at])
            model.backward(loss.backward())
            for p in model.parameters:
                p.value -= rate * p.grad  # (4)
    return model


# %%
by_hand = train_by_hand(epochs=3, rate=0.1)
by_fit = make_network()
by_fit.fit(data, optimizer=gn.SGD(0.1), epochs=3, batch_size=32, seed=0, dtype="float64", device="cpu", progress=False)
for mine, its in zip(by_hand.parameters, by_fit.parameters, strict=True):
    print(f"{mine.name}: the same to 12 digits: {np.abs(mine.value - its.value).max() < 1e-12}")

# %% [markdown]
# The same weights after 123 steps. What `fit` adds is around the loop: speed, records, the validation samples, checks
# that the cost is still a number, checkpoints.
#
# ## Choosing the rate
#
# Nobody knows the best $\eta$ beforehand, but everybody can see a wrong one. Train three times:

# %% alt="Training loss over 20 epochs: one hardly falls, one falls fast, one stays high above where it began"
rates = {0.001: "too small", 0.3: "good", 3: "too large"}
figure, axis = plt.subplots(figsize=(8.5, 3.6))
for rate, verdict in rates.items():
    options = {"epochs": 20, "batch_size": 32, "seed": 0, "device": "cpu", "progress": False}
    history = make_network().fit(data, optimizer=gn.SGD(rate), **options)
    axis.semilogy(history["epoch"], history["train_loss"], label=f"η = {rate}: {verdict}")
axis.axhline(np.log(10), color="#8A8A8A", linestyle=":", label="no idea: ln 10")
axis.set(xlabel="epoch", ylabel="training loss", title="The same network, three learning rates")
figure.legend(loc="outside right center")
plt.show()

# %% [markdown]
# Too small: the curve hardly falls in twenty epochs. Too large: it jumps far above where it began, and stays. Begin
# with 0.1, and go up or down by factors of 3 until you know both borders; then take a rate a little below the upper
# one. `gpunn lr-find` does it for you: [docs/learning-rate.md](../docs/learning-rate.md).

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. Where is the border?** For $C = \frac{k}{2} w^2$ find the largest $\eta$ that still converges. Now two
# parameters, $C = \frac12 w_1^2 + 50\, w_2^2$, both begin at 1. Which $\eta$ brings the slower of the two down fastest,
# and about how many steps does it then take to 0.001? What has this to do with the zigzag above?

# %% [markdown] tags=["solution"]
# A step multiplies $w$ by $1 - \eta k$, so $|1 - \eta k| < 1$, which is $\eta < 2/k$. With $k = 1$ and $k = 100$ the
# factors are $1 - \eta$ and $1 - 100\eta$. The larger of their sizes is least where $1 - \eta = 100\eta - 1$:
# $\eta = 2/101$, with a factor of $99/101 \approx 0.98$, which takes about $\ln 1000 / \ln(101/99) \approx 345$ steps.
# The steep direction sets the border, and the flat one must creep: a valley 100 times as curved across as along it
# needs hundreds of steps. Momentum is the cure, and in chapter 12 normalization, which makes valleys rounder.


# %% tags=["solution"]
def steps_to(rate):
    curvatures, w, steps = np.array([1.0, 100.0]), np.ones(2), 0
    while np.abs(w).max() > 0.001 and steps < 10_000:
        w, steps = w - rate * curvatures * w, steps + 1
    return steps


print({rate: steps_to(rate) for rate in (0.005, 0.01, 2 / 101, 0.0199, 0.02)})
assert 340 <= steps_to(2 / 101) <= 350
assert all(steps_to(rate) > steps_to(2 / 101) for rate in (0.01, 0.0195, 0.0199, 0.02))

# %% [markdown] tags=["exercise"]
# **2. Do minibatches add up?** Split the 1,293 samples into 41 minibatches of 32 (the last has 13). Is the mean of
# their gradients, all taken at the same weights, the exact gradient? Which mean is? What does that say about the
# samples of the last minibatch, and does it matter?

# %% [markdown] tags=["solution"]
# Each minibatch gradient is a mean over its samples. Only the mean *weighted by the numbers of samples* is the mean
# over all. In the plain one, and in training, each of the last 13 samples counts $32/13 \approx 2.5$ times as much as
# others. It does not matter, since the samples are shuffled again for each epoch: every sample has the same chance to
# be among the last.

# %% tags=["solution"]
parts = [np.arange(start, min(start + 32, len(inputs))) for start in range(0, len(inputs), 32)]
gradients = np.array([gradient_of(at) for at in parts])
plain = gradients.mean(axis=0)
weighted = np.average(gradients, axis=0, weights=[len(at) for at in parts])
print(len(parts), len(parts[-1]), np.abs(plain - exact).max(), np.abs(weighted - exact).max() < 1e-12)
assert np.allclose(weighted, exact, atol=1e-12)
assert not np.allclose(plain, exact, atol=1e-6)

# %% [markdown] tags=["exercise"]
# **3. Add momentum.** Change the loop by hand so that each parameter has a velocity,
# $v := \mu v + \partial C/\partial p$ and $p := p - \eta v$. Compare three epochs with `gn.SGD(0.1, momentum=0.9)`. If
# the gradient stays the same for many steps, how long does a step become? So what do you do with $\eta$ when you turn
# momentum on?

# %% [markdown] tags=["solution"]
# With a constant gradient $g$ the velocity becomes $g (1 + \mu + \mu^2 + \dots) = g/(1 - \mu)$, ten times $g$ for
# $\mu = 0.9$. So a good rate with momentum is several times smaller than without.

# %% tags=["solution"]
model = make_network().build((8, 8, 1), batch_size=32, device="cpu", dtype="float64", seed=0)
velocity = {p.name: np.zeros(p.shape) for p in model.parameters}
for epoch in range(3):
    order = epoch_order(len(inputs), seed=0, epoch=epoch)
    for start in range(0, len(inputs), 32):
        at = order[start : start + 32]
        loss.forward(model.forward(inputs[at], training=True), labels[at])
        model.backward(loss.backward())
        for p in model.parameters:
            velocity[p.name] = 0.9 * velocity[p.name] + p.grad
            p.value -= 0.1 * velocity[p.name]

its = make_network()
optimizer = gn.SGD(0.1, momentum=0.9)
its.fit(data, optimizer=optimizer, epochs=3, batch_size=32, seed=0, dtype="float64", device="cpu", progress=False)
for p, q in zip(model.parameters, its.parameters, strict=True):
    assert np.allclose(p.value, q.value, atol=1e-12)
