# %% [markdown]
# # 7. Regularization
#
# Chapter 6 saw a network learn by heart, and stopped it in time. Here you hold it back while it learns: by a price on large
# weights, L2 and L1, and by switching units off at random, dropout. You will see in the weights what each of them does.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")
data = gn.load_data("digits", validation=400)
few = data.train.first(200)


def network(*between):
    return gn.Sequential([gn.Flatten(), gn.Dense(100), gn.ReLU(), *between, gn.Dense(10)])


# %% [markdown]
# ## A price on large weights
#
# To learn a single odd sample by heart, a network has to react strongly to small differences, and that takes large weights.
# So let large weights cost something: to the cost $C_0$ of the data comes a price $R$ of the parameters,
#
# $$ C = C_0 + \lambda R. \tag{17} $$
#
# $\lambda$ says how much simplicity is worth; it is a hyper-parameter. **L2** takes the squares of all weights,
#
# $$ R = \frac{1}{2n} \sum w^2 \qquad\text{and so} \tag{18} $$
#
# $$ \frac{\partial C}{\partial w} = \frac{\partial C_0}{\partial w} + \frac{\lambda}{n}\,w, \tag{19} $$
#
# where $n$ is the size of the training set, not of a batch. Put that into a step of gradient descent (4),
#
# $$ w := w - \eta\,\frac{\partial C_0}{\partial w} - \frac{\eta\lambda}{n}\,w \tag{20} $$
#
# $$ \boxed{\;w := \Bigl(1 - \frac{\eta\lambda}{n}\Bigr)\,w - \eta\,\frac{\partial C_0}{\partial w}\;} \tag{21} $$
#
# and you see what it does: in each step, every weight first loses the same small *share* of itself. Hence its other name,
# **weight decay**. Only what the data ask for again and again survives. Biases are left alone,
#
# $$ b := b - \eta\,\frac{\partial C_0}{\partial b}. \tag{22} $$
#
# A bias multiplies no input. It makes no unit sensitive, it only shifts where the unit switches.
#
# Let us see (21) and (22) in gpunn: the same first step with and without λ.

# %%
eta, strength, n = 0.5, 10.0, len(few)
step = {"optimizer": gn.SGD(eta), "epochs": 1, "batch_size": n, "dtype": "float64", "progress": False, "device": "cpu"}
# Biases begin with ½ here, so that one can see whether they decay.
layers = [gn.Flatten(), gn.Dense(100, bias=0.5), gn.ReLU(), gn.Dense(10)]
start, plain, decayed = (gn.Sequential(layers) for _ in range(3))
start.build((8, 8, 1), batch_size=n, device="cpu", dtype="float64", seed=0)
plain.fit(few, validation_data=data.validation, **step)
decayed.fit(few, validation_data=data.validation, regularizer=gn.L2(strength), **step)
for name in ("dense1.w", "dense1.b"):
    before, without, having = (np.asarray(each.parameters[name]) for each in (start, plain, decayed))
    share = (without - having) / before  # what λ has taken away
    print(f"{name}: λ takes away {share.min():.4f} to {share.max():.4f} of each; η λ/n = {eta * strength / n:.4f}")

# %% [markdown]
# Each weight loses $\eta\lambda/n = 2.5\,\%$ of itself, and no bias loses anything.
# In gpunn (21) is [the factor before w](../gpunn/train/optimizers.py "w.fold_update(-eta, 1 - eta * self.l2)") of the very product that
# computes the gradient, λ/n is [here](../gpunn/train/optimizers.py "return 0.0, self.strength / n"), and (22) is [a loop over two ranges of
# one array](../gpunn/kernels/updates.py "for begin, end, decays in ((0, decayed, True), (decayed, value.size, False)):"): weights that decay, then all others.
#
# ## L1: a constant pull
#
# **L1** takes sizes in place of squares, $R = \frac1n\sum|w|$, so that $\partial C/\partial w$ gains
# $\frac{\lambda}{n}\,\mathrm{sign}\,w$, with sign 0 = 0. Its pull is as strong on small weights as on large ones. L2 grows tired near zero and never
# gets there; L1 arrives.

# %% alt="Four weights that no data ask for: under L2 they fall exponentially, under L1 straight down to 0, where they stay"
figure, axes = plt.subplots(figsize=(6.5, 3.2))
steps = np.arange(120)
for w in (0.9, 0.6, 0.3, -0.4):
    labels = ("L2: a share of w", "L1: always the same") if w == 0.9 else (None, None)
    axes.plot(steps, w * 0.975**steps, "C0", label=labels[0])
    axes.plot(steps, np.sign(w) * np.maximum(abs(w) - 0.01 * steps, 0), "C1--", label=labels[1])
axes.set(xlabel="step", ylabel="w", title="Four weights that no data ask for")
axes.legend()
plt.show()

# %% [markdown]
# Where the data *do* ask for weights, they settle where both pulls balance. Take a cost $C_0$ of two weights, and follow the
# minimum of (17) while λ grows from 0:


# %%
def minimum(strength, kind, best=np.array([1.0, 0.55]), A=np.array([[1.0, 0.6], [0.6, 1.6]])):  # noqa: B008
    w = best.copy()
    for _ in range(400):
        w -= 0.3 * A @ (w - best)  # downhill in C0
        pull = 0.3 * strength
        w = w / (1 + pull) if kind == "L2" else np.sign(w) * np.maximum(np.abs(w) - pull, 0)
    return w


# %% alt="Contours of a cost of two weights, and the minimum with growing lambda: with L2 it moves on a bend into 0, with L1 it meets the axis of one weight and follows it"
figure, axes = plt.subplots(figsize=(5.4, 4))
w1, w2 = np.meshgrid(np.linspace(-0.15, 1.4, 120), np.linspace(-0.15, 0.95, 120))
d1, d2 = w1 - 1, w2 - 0.55
axes.contour(
    w1, w2, d1**2 + 1.2 * d1 * d2 + 1.6 * d2**2, levels=np.linspace(0.02, 1.6, 9), colors="#BBBBBB", linewidths=1
)
for kind, style in [("L2", "C0o-"), ("L1", "C1s-")]:
    path = np.array([minimum(strength, kind) for strength in np.linspace(0, 1.5, 31)])
    axes.plot(*path.T, style, ms=4, lw=1.2, label=f"{kind}, λ from 0 to 1.5")
axes.plot(1, 0.55, "*", ms=14, color="C6", label="minimum without λ")
axes.set(xlabel="first weight", ylabel="second weight", title="Where the minimum goes", aspect="equal")
axes.legend(loc="lower right", frameon=True, framealpha=0.95, edgecolor="none")
plt.show()

# %% [markdown]
# With L2 both weights shrink together. With L1 the less useful one becomes exactly 0, and the other carries on alone, until λ is
# too large for it as well: L1 makes networks **sparse**, and so says which inputs matter.
#
# ## What it does to the weights
#
# Now real ones: 200 digits, 100 hidden units, 100 epochs. All four begin with the same weights.

# %%
options = {"optimizer": gn.SGD(0.05, momentum=0.9), "batch_size": 20, "epochs": 100, "validate_every": 10}
options |= {"device": "cpu", "progress": False}
kinds = {
    "nothing": {},
    "L2, λ = 0.6": {"regularizer": gn.L2(0.6)},
    "L1, λ = 0.1": {"regularizer": gn.L1(0.1)},
    "dropout, p = 0.2": {"dropout": 0.2},
}


def trained(dropout=0.0, seed=0, **more):
    model = network(gn.Dropout(dropout)) if dropout else network()
    history = model.fit(few, validation_data=data.validation, seed=seed, **options, **more)
    return model, history


models = {kind: trained(**more)[0] for kind, more in kinds.items()}

# %% alt="Histograms of the 6,400 weights of the first layer: wide without regularization, narrow with L2, a needle at 0 with L1, slightly wider than the first with dropout"
figure, axes = plt.subplots(1, 4, figsize=(10.5, 2.9), sharex=True, sharey=True)
for axis, (kind, model) in zip(axes, models.items(), strict=True):
    w = np.asarray(model.parameters["dense1.w"]).ravel()
    zero = (np.abs(w) < 0.001).mean()
    axis.hist(w, bins=np.linspace(-0.8, 0.8, 65), color="C0")
    axis.set(title=kind, xlabel="w", yscale="log")
    axis.text(
        0.02, 0.97, f"deviation {w.std():.2f}\n{zero:.0%} below 0.001", transform=axis.transAxes, va="top", fontsize=8
    )
axes[0].set(ylabel="weights (log scale)", ylim=(1, 2e4))
plt.show()

# %% [markdown]
# L2 draws all weights together. L1 presses most of them below a thousandth, too small to matter, and leaves some large ones. (The
# small ones are not exactly 0: a step of constant length jumps over 0 and back.) Dropout changes their sizes little. Draw the weights of single units as pictures, red above 0 and blue below:

# %% alt="The weights of the eight strongest units of each network as pictures of 8 by 8: noisy without regularization, smoother with L2, a few single pixels with L1"
figure, axes = plt.subplots(3, 8, figsize=(8.5, 3.3))
for row, kind in zip(axes, list(kinds)[:3], strict=True):
    w = np.asarray(models[kind].parameters["dense1.w"])
    strongest = np.argsort(-np.square(w).sum(axis=1))[:8]
    limit = np.abs(w[strongest]).max()
    for axis, unit in zip(row, strongest, strict=True):
        axis.imshow(w[unit].reshape(8, 8), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    row[0].set_ylabel(kind, rotation=0, ha="right", va="center")
plt.show()

# %% [markdown]
# Without a price there is a trace of the random start in every pixel, even in those that are always empty: no gradient ever
# reached them. With L2 that noise has decayed. With L1 a unit looks at a few pixels.
#
# ## How much?
#
# λ is chosen on the validation set, like every hyper-parameter. Try powers of about 3, each with three seeds.

# %%
strengths, seeds = (0.0, 0.02, 0.06, 0.2, 0.6, 2.0, 6.0, 20.0), (0, 1, 2)
losses = []
for strength in strengths:
    runs = [trained(regularizer=gn.L2(strength), seed=seed)[1][-1] for seed in seeds]
    losses.append([np.mean([run.train_loss for run in runs]), np.mean([run.validation_loss for run in runs])])
    print(f"λ {strength:5}: training loss {losses[-1][0]:.3f}, validation loss {losses[-1][1]:.3f}")

# %% alt="Loss over lambda, logarithmic: in training it rises all the way from 0, in validation it falls at first, is lowest near 0.2, and rises steeply above 2"
figure, axes = plt.subplots(figsize=(6.5, 3.4))
places = [0.006, *strengths[1:]]
for values, style, label in zip(np.transpose(losses), ("C0o-", "C1s-"), ("training", "validation"), strict=True):
    axes.semilogx(places, values, style, label=label)
axes.set_xticks(places, [f"{strength:g}" for strength in strengths])
axes.minorticks_off()
axes.text(0.006, 0.2, "overfits: the gap", va="center")
axes.text(7, 0.2, "underfits:\nboth are high", va="center")
axes.set(xlabel="λ", ylabel="loss, without λR", ylim=(0, 0.8), title="L2 on 200 digits, mean of 3 seeds")
axes.legend(loc="upper left")
plt.show()

# %% [markdown]
# Left the network is free and overfits; right it is not allowed to learn anything. The training loss rises all the way: that is
# the price, and it is meant. (gpunn reports $C_0$; $\lambda R$ stands beside it as `penalty`.)
#
# The published training of chapter 6 with λ = 0.1, and gpunn's beside it:

# %%
here = Path.cwd()
folders = [each for each in (here, *here.parents) if (each / "benchmarks" / "results").is_dir()]
assert folders, "start this chapter within gpunn's repository, which holds the curves"
curves = np.genfromtxt(folders[0] / "benchmarks/results/nielsen-curves.csv", delimiter=",", names=True)

# %% alt="Accuracy on test images over 400 epochs: without regularization it stays at 82 %, with lambda 0.1 it reaches 87 %, in the published and in gpunn's training"
figure, axes = plt.subplots(figsize=(6.5, 3.4))
for name, colour, words in [("regularized", "C0", "λ = 0.1"), ("overfitting", "C1", "without")]:
    for whose, line in [("published", (0, (4, 2))), ("gpunn", "-")]:
        values = curves[f"{name}_{whose}_validation_accuracy"]
        axes.plot(curves["epoch"], 100 * values, color=colour, ls=line, lw=1.6, label=f"{words}, {whose}")
        print(f"{name:11} {whose:9} {values[-1]:.1%}")
axes.set(xlabel="epoch", ylabel="right answers (%)", ylim=(70, 90), title="784-30-10 on 1,000 images of MNIST")
axes.legend(loc="lower right", ncols=2)
plt.show()

# %% [markdown]
# Five to six percentage points more, with one number. There the weights began with N(0, 1), far too large, so that decay had much to mend.
#
# ## Dropout
#
# Another idea altogether: in each step of training, switch off every hidden unit with probability $p$, each time others. No
# unit can rely on a certain other one being there; each must be useful by itself.

# %% alt="Dropout on 30 units that all give 1, for 6 samples: about half of the squares are white, for 0, the others dark, for 2"
only = gn.Sequential([gn.Dropout(0.5)]).build((30,), batch_size=6, device="cpu", seed=4)
masked = only.forward(np.ones((6, 30), np.float32), training=True)
figure, axes = plt.subplots(figsize=(7.5, 1.9))
axes.imshow(masked, cmap="Blues", vmin=0, vmax=3)
axes.set(xlabel="unit", ylabel="sample", title="1, after dropout with p = ½: white is 0, blue is 2")
axes.grid(False)
plt.show()
print("in training:", np.unique(masked), "with a mean of", masked.mean().round(2))
print("afterwards: ", np.unique(only.forward(np.ones((6, 30)))))

# %% [markdown]
# Why 2? When the network is used, *all* units are on, and the next layer would get twice of what it was trained with. There are
# two remedies. The original one multiplies the outgoing weights by $1-p$ after training. gpunn divides what is kept by $1-p$
# [in training](../gpunn/kernels/dropout.py "= seen[k] * (bits >= threshold ? scale : T(0));"), so that nothing needs to be done afterwards. For a unit
# with activation $a$,
#
# $$ \underbrace{(1-p) \cdot \frac{a}{1-p} + p \cdot 0}_{\text{mean in training}} = a = \text{what is given when not training}. $$
#
# What follows linearly keeps its mean, too. Take a network with dropout, one digit, and thousands of random masks:

# %%
half = trained(dropout=0.5)[0]
many = gn.Sequential(half.layers).build(
    (8, 8, 1), batch_size=20_000, device="cpu", seed=9
)  # the same weights, room for a large batch
digit = data.validation.inputs[:1] / np.float32(16)
z = many.forward(np.repeat(digit, 20_000, axis=0), training=True)  # another mask for each
used = many.forward(digit)[0]
w, b = (np.asarray(many.parameters[name]) for name in ("dense2.w", "dense2.b"))
w1, b1 = (np.asarray(many.parameters[name]) for name in ("dense1.w", "dense1.b"))
a = np.maximum(w1 @ digit.ravel() + b1, 0)
masks = np.random.default_rng(0).random((20_000, 100)) >= 0.5
original = (masks * a) @ (2 * w).T + b  # dropout without scaling: it would have learned weights twice as large
print("class               ", *(f"{k:6}" for k in range(5)))
print("gpunn, mean of masks", *(f"{value:6.2f}" for value in z.mean(axis=0)[:5]))
print("gpunn, not training ", *(f"{value:6.2f}" for value in used[:5]))
print("original, mean      ", *(f"{value:6.2f}" for value in original.mean(axis=0)[:5]))
print("original, (1 − p) w ", *(f"{value:6.2f}" for value in (a @ (0.5 * 2 * w).T + b)[:5]))

# %% alt="Running mean of the output for the digit's class over the number of masks, logarithmic: it closes in on the output without dropout as one over the root of the number"
truth = int(data.validation.targets[0])
count = np.arange(1, 20_001)
running, spread = np.cumsum(z[:, truth]) / count, z[:, truth].std() / np.sqrt(count)
low, high = used[truth] - 2 * spread, used[truth] + 2 * spread
figure, axes = plt.subplots(figsize=(6.5, 3.2))
axes.fill_between(count, low, high, color="C0", alpha=0.15, lw=0, label="± 2 deviations, ∝ 1/√N")
axes.semilogx(count, running, "C0", lw=1.5, label="mean over N masks")
axes.axhline(used[truth], color="C1", ls="--", lw=1.5, label="all units on")
axes.set(xlabel="masks N", ylabel=f"output for class {truth}", ylim=(low[2], high[2]), title="The same in expectation")
axes.legend(loc="upper right")
plt.show()

# %% [markdown]
# ## Does it help?
#
# Three seeds each, the loss at the end of the training.

# %%
kinds["L2 and dropout"] = {"regularizer": gn.L2(0.6), "dropout": 0.2}
ends = {kind: [trained(seed=seed, **more)[1][-1] for seed in seeds] for kind, more in kinds.items()}
for kind, runs in ends.items():
    loss, right = (np.mean([getattr(run, f"validation_{name}") for run in runs]) for name in ("loss", "accuracy"))
    print(f"{kind:17} validation loss {loss:.3f}, right {right:.1%}")

# %% alt="Validation loss of five trainings, three seeds each: highest without regularization, lowest with L2 and dropout together"
figure, axes = plt.subplots(figsize=(6.5, 2.8))
for place, (kind, runs) in enumerate(ends.items()):
    values = [run.validation_loss for run in runs]
    axes.plot(values, [place] * 3, "o", color="C6" if kind == "nothing" else "C0", alpha=0.6)
    axes.plot(np.mean(values), place, "|", ms=22, mew=2, color="C1")
axes.set_yticks(range(len(ends)), list(ends))
axes.invert_yaxis()
axes.set(xlabel="validation loss (dots: seeds, line: mean)", title="200 digits")
plt.show()

# %% [markdown]
# L2 lowers the loss clearly; whether dropout adds something here, three seeds can hardly tell. The number of right answers moves
# by a percent or so, less than its spread on 400 samples, 1.5 %. Be as careful with your own tables. On networks that overfit
# badly, like the published one, the gain is larger.
#
# ## Why biases are left alone
#
# Drive it to the extreme, λ = 10,000: no weight may live. What can a network still learn? Give it three classes that are not
# equally frequent.

# %%
chosen = [np.flatnonzero(data.train.targets == k)[:count] for k, count in enumerate((90, 45, 15))]
rows = np.concatenate(chosen)
uneven = gn.Samples(data.train.inputs[rows], data.train.targets[rows], 1 / 16, 3)
crushed = gn.Sequential([gn.Flatten(), gn.Dense(3)])
full = {"batch_size": len(uneven), "epochs": 2000, "validate_every": 1000, "progress": False, "device": "cpu"}
crushed.fit(uneven, validation_data=uneven, optimizer=gn.SGD(0.01), regularizer=gn.L2(10_000.0), **full)
print("largest weight: ", f"{np.abs(np.asarray(crushed.parameters['dense1.w'])).max():.3f}")
print("P of any picture:", crushed.predict_proba(uneven.inputs[:1])[0].round(2))
print("shares in the data:", np.bincount(uneven.targets) / len(uneven))

# %% [markdown]
# It still knows how frequent the classes are: that is in the biases, $\mathrm{softmax}(b)$. Had these been driven to 0 too, it
# would have answered ⅓, ⅓, ⅓, which is simply wrong. BatchNorm's γ and β are left alone for a like reason.
#
# ## In short
#
# - L2 takes a share of every weight in each step (21), L1 a constant piece; L1 brings weights down to 0.
# - λ/n has the size of the training set in it; λ is chosen on validation data. Biases do not decay (22).
# - Dropout switches units off in training and scales the rest by $1/(1-p)$; afterwards all are on.

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. Half-life.** The top left pixel of all our 200 digits is 0. Which gradient do its weights get? After how many steps with
# η = 0.5 and λ = 10 are they halved by (21)? Check it with full batches in double precision.

# %% tags=["solution"]
assert (few.inputs[:, 0, 0, 0] == 0).all()  # δ aᵀ (13) is 0 where a is 0
half_life = np.log(0.5) / np.log(1 - 0.5 * 10 / 200)
print(f"{half_life:.1f} steps")
model = gn.Sequential(layers)
model.fit(few, validation_data=data.validation, regularizer=gn.L2(10.0), **step | {"epochs": 27})
ratio = np.asarray(model.parameters["dense1.w"])[:, 0] / np.asarray(start.parameters["dense1.w"])[:, 0]
assert np.allclose(ratio, (1 - 0.025) ** 27)
assert 27 < half_life < 28

# %% [markdown] tags=["exercise"]
# **2. Twice the data.** Put every sample into the training set twice. Which λ gives the same weights as before, in full batches?
# And what would happen to the weights if you left λ as it was?

# %% tags=["solution"]
twice = few.subset(np.tile(np.arange(200), 2))
weights = []
for samples, strength in [(few, 10.0), (twice, 20.0), (twice, 10.0)]:
    model = network()
    more = step | {"epochs": 20, "batch_size": len(samples)}
    model.fit(samples, validation_data=data.validation, regularizer=gn.L2(strength), **more)
    weights.append(np.asarray(model.parameters["dense1.w"]).copy())
assert np.allclose(weights[0], weights[1])  # the same λ/n
assert np.square(weights[2]).sum() > np.square(weights[0]).sum()  # half the decay

# %% [markdown] tags=["exercise"]
# **3. A regularizer of your own.** The *elastic net* is half L1 and half L2, $R = \frac1n \sum \frac12|w| + \frac14 w^2$. Write it as a
# `gn.Regularizer` with `gradient(self, xp, weights, n)` and `cost(self, weights, n)`, which return λ ∂R/∂w and λR. Check one step.


# %% tags=["solution"]
class Elastic(gn.Regularizer):
    def gradient(self, xp, weights, n):
        return self.strength / n * (0.5 * xp.sign(weights) + 0.5 * weights)

    def cost(self, weights, n):
        return self.strength / n * float(0.5 * np.abs(weights).sum() + 0.25 * np.square(weights).sum())


model = gn.Sequential(layers)
model.fit(few, validation_data=data.validation, regularizer=Elastic(10.0), **step)
w, without, having = (np.asarray(each.parameters["dense1.w"]) for each in (start, plain, model))
assert np.allclose(without - having, 0.5 * 10 / 200 * (0.5 * np.sign(w) + 0.5 * w))
