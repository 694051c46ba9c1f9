# %% [markdown]
# # 3. Outputs and costs
#
# After this chapter you can turn the numbers of the last layer into an answer and into probabilities, say by one number
# how wrong a network is, and tell why the choice of that number decides how fast a network learns from its worst
# mistakes.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")

# %% [markdown]
# ## From numbers to an answer
#
# The last layer of a classifier has one output for each class. Its sums $z^L$ are called **logits**; they may be any
# numbers. The best guess is the class of the largest, $k = \operatorname{argmax}\, z^L$. If you also want to know *how
# sure* it is, you need **softmax**, which makes probabilities of them:
#
# $$P(k \mid x) = \frac{e^{z_k}}{\sum_i e^{z_i}}$$
#
# All are positive, they add up to 1, and the largest logit has the largest probability. Look at what changes them and
# what does not:


# %%
def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


logits = np.array([2.0, 1.0, -1.0, 0.5])
for name, z in {"z": logits, "z + 100": logits + 100, "3 z": 3 * logits, "z / 3": logits / 3}.items():
    print(f"softmax({name:<7}) = {np.round(softmax(z), 3)}, best guess {z.argmax()}")

# %% alt="Bars of four logits, and the probabilities of softmax for them, for three times and for a third of them"
figure, axes = plt.subplots(1, 4, figsize=(8, 2.6))
axes[0].bar(range(4), logits, color="C5")
axes[0].set(title="logits z", xlabel="class", xticks=range(4))
for axis, (name, factor) in zip(axes[1:], {"z / 3": 1 / 3, "z": 1, "3 z": 3}.items(), strict=True):
    axis.bar(range(4), softmax(factor * logits))
    axis.set(title=f"softmax({name})", xlabel="class", xticks=range(4), ylim=(0, 1))
plt.show()

# %% [markdown]
# Adding a constant to all logits changes nothing: numerator and denominator get the same factor. Multiplying them by a
# positive number changes how sure the network is, never which class it prefers.
#
# ## Why log-sum-exp
#
# The first of these is what saves us from overflow. $e^{1000}$ is infinite for a computer, so the formula as written
# gives `nan`. Take the largest logit off all of them first: the result is the same, and no exponent is above 0.
#
# Costs need the logarithm of a probability. Do not compute it in two steps either: a probability of $10^{-400}$ is 0 to
# a computer, and $\ln 0$ is $-\infty$. In one step, with $m = \max_i z_i$, the **log-sum-exp** form is right for all
# finite logits:
#
# $$\ln P(k \mid x) = z_k - m - \ln \sum_i e^{z_i - m}$$


# %%
def log_softmax(z):
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


large = np.array([1000.0, 0.0, -1000.0])
with np.errstate(all="ignore"):
    print("as written:      ", np.log(softmax(large)))
print("by log-sum-exp:  ", log_softmax(large))

# %% [markdown]
# ## Three costs
#
# A **cost** (or loss) says by one number how wrong the answers are: 0 if all are right and sure, the larger the worse.
# It is a mean over $n$ samples. The wanted output $y$ is **one-hot**: 1 for the right class, 0 for the others. $L$ is
# the last layer, and $\odot$ multiplies element by element.
#
# | | cost $C$ | outputs | $\delta^L = \partial C / \partial z^L$ |
# |---|---|---|---|
# | mean squared error (MSE) | $\frac1n \sum \lVert a^L - y \rVert^2$ | any; here sigmoids | $\frac2n (a^L - y) \odot f'(z^L)$ (6) |
# | cross-entropy (CE) | $-\frac1n \sum y \ln a^L + (1 - y) \ln (1 - a^L)$ | sigmoids | $\frac1n (a^L - y)$ (7) |
# | softmax with cross-entropy | $-\frac1n \sum \ln P(y \mid x)$ | softmax | $\frac1n (P - y)$ |
#
# MSE is for numbers: prices, temperatures. CE is for questions that are answered yes or no, each for itself. The third
# is for one class out of several. Take one sample, class 1 of 3, and compute each by hand and by gpunn:

# %%
z, y = np.array([[0.5, 1.5, -1.0]]), np.array([[0.0, 1.0, 0.0]])
a = 1 / (1 + np.exp(-z))
squared = ((a - y) ** 2).sum()
crossed = -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum()
classes = -log_softmax(z)[0, 1]

print(f"MSE     {squared:.6f}  gpunn {gn.MeanSquaredError().forward(a, y):.6f}")
print(f"CE      {crossed:.6f}  gpunn {gn.BinaryCrossEntropy().forward(z, y):.6f}")
print(f"softmax {classes:.6f}  gpunn {gn.SoftmaxCrossEntropy().forward(z, [1]):.6f}")

# %% [markdown]
# gpunn's last two take the logits $z$, not the probabilities, so that they can use the stable forms:
# [this line](../gpunn/kernels/losses.py "loss = log(total) - aim;") is log-sum-exp, and
# [this one](../gpunn/kernels/losses.py "loss += (v < T(0) ? T(0) : v) - v * y + log1p(e);") is CE with SoftPlus from
# chapter 2 in it.
#
# A useful number to know: who has no idea of ten classes gives each the probability 1/10, and pays
# $\ln 10 \approx 2.303$. An untrained network should begin near that. If yours begins at 20, its first weights are too
# large.

# %%
data = gn.load_data("digits")
model = gn.Sequential([gn.Flatten(), gn.Dense(30), gn.ReLU(), gn.Dense(10)]).build(
    (8, 8, 1), batch_size=1000, device="cpu"
)
beginning = gn.SoftmaxCrossEntropy().forward(model.forward(data.train.inputs[:1000] / 16), data.train.targets[:1000])
print(f"no idea: ln 10 = {np.log(10):.3f}; an untrained network: {beginning:.1f}")

# %% [markdown]
# ## The slope is what teaches
#
# Training follows the slope of the cost, so let us look at the slopes. One sigmoid output should say $y = 1$. Far left
# it says 0 with great certainty: it could not be more wrong.

# %% alt="Left the costs of one output over z, right their slopes: that of MSE is flat where the answer is most wrong"
z = np.linspace(-8, 8, 400)
a = 1 / (1 + np.exp(-z))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
axes[0].plot(z, (a - 1) ** 2, label="MSE, $(a - 1)^2$")
axes[0].plot(z, -np.log(a), label=r"CE, $-\ln a$")
axes[0].set(title="cost where 1 is wanted", xlabel="z", ylim=(-0.2, 5))
axes[1].plot(z, 2 * (a - 1) * a * (1 - a), label="MSE, $2(a - 1)\\,a(1 - a)$")
axes[1].plot(z, a - 1, label="CE, $a - 1$")
axes[1].axvspan(-8, -4, color="#EEEEEE")
axes[1].text(-6, -0.55, "wrong\nand sure", ha="center")
axes[1].set(title="its slope δ", xlabel="z")
for axis in axes:
    axis.legend()
plt.show()

# %% [markdown]
# In the grey region MSE is flat. Its $\delta$ has the factor $f'(z)$, which is nearly 0 there: the unit is saturated,
# and **learns least where it is most wrong**. With CE that factor is gone. See where it went: for one output,
#
# $$\frac{\partial C}{\partial z} = \frac{\partial C}{\partial a}\, f'(z) = \frac{a - y}{a(1 - a)} \cdot a(1 - a) = a - y, \tag{7}$$
#
# so the slope is just how far the answer is off. For softmax with its cost the same comes out (exercise 1), which is no
# accident: both costs are made to fit their outputs.
#
# ## Are those formulas right?
#
# Central differences decide, and they ask nobody: move each logit by $\pm h$, and see how the cost changes.


# %%
def numeric(cost, z, h=1e-5):
    """Return ∂C/∂z by central differences."""
    slopes = np.zeros_like(z)
    for place in np.ndindex(z.shape):
        move = np.zeros_like(z)
        move[place] = h
        slopes[place] = (cost(z + move) - cost(z - move)) / (2 * h)
    return slopes


# %% [markdown]
# Four samples with three outputs, by the formulas of the table, by gpunn's `backward`, and by differences:

# %%
rng = np.random.default_rng(3)
z, labels = rng.normal(size=(4, 3)), np.array([0, 2, 1, 1])
y = np.eye(3)[labels]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


mse, ce, soft = gn.MeanSquaredError(), gn.BinaryCrossEntropy(), gn.SoftmaxCrossEntropy()
by_table = {
    "MSE": 2 / 4 * (sigmoid(z) - y) * sigmoid(z) * (1 - sigmoid(z)),
    "CE": (sigmoid(z) - y) / 4,
    "softmax": (softmax(z) - y) / 4,
}

# %%
costs = {
    "MSE": lambda z: mse.forward(sigmoid(z), y),
    "CE": lambda z: ce.forward(z, y),
    "softmax": lambda z: soft.forward(z, labels),
}
for name, loss in {"MSE": mse, "CE": ce, "softmax": soft}.items():
    differences = numeric(costs[name], z)
    costs[name](z)  # backward follows forward
    delta = loss.backward() * (sigmoid(z) * (1 - sigmoid(z)) if name == "MSE" else 1)  # MSE gives ∂C/∂a
    print(f"{name:<8} table {np.allclose(by_table[name], differences)}, gpunn {np.allclose(delta, differences)}")

# %% [markdown]
# gpunn computes a cost and its gradient in one pass:
# [here](../gpunn/kernels/losses.py "gradient[at] = w * (a - y) / T(of);") is equation (7), and
# [here](../gpunn/kernels/losses.py "part_of_total - (k == label ? on : off);") is that of softmax. From this $\delta^L$
# back-propagation begins in chapter 5. Together the derivatives of the cost by all parameters are its **gradient**, and
# the next chapter walks against it.

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. Derive it.** For one sample of class $y$, $C = -z_y + \ln \sum_i e^{z_i}$. Derive $\partial C/\partial z_k$ for
# $k = y$ and for $k \ne y$. What do the derivatives of a sample add up to, and what does that mean for the logits in a
# step of training?

# %% [markdown] tags=["solution"]
# The derivative of $\ln \sum_i e^{z_i}$ by $z_k$ is $e^{z_k} / \sum_i e^{z_i} = P(k)$. With $-z_y$ that is $P(k) - 1$
# for $k = y$, and $P(k)$ otherwise. They add up to $1 - 1 = 0$: what the right class gains, the others lose, each in
# proportion to its probability. The mean of the logits stays, as it must, since a constant added to all of them changes
# nothing.

# %% tags=["solution"]
z = np.array([0.5, 1.5, -1.0])
derived = softmax(z) - np.array([0.0, 1.0, 0.0])
print(np.round(derived, 4))
assert np.allclose(derived, numeric(lambda z: -log_softmax(z)[1], z))
assert np.isclose(derived.sum(), 0)

# %% [markdown] tags=["exercise"]
# **2. The price of being sure.** A network of ten classes always gives its favourite the probability 0.99, and shares
# the rest evenly among the nine others. What does it pay when it is right, and when it is wrong? How many of its
# answers may be wrong before it pays more than one that has no idea? What would you expect of a network whose accuracy
# is 80 % and which is always that sure?

# %% tags=["solution"]
right, wrong, no_idea = -np.log(0.99), -np.log(0.01 / 9), np.log(10)
share = (no_idea - right) / (wrong - right)  # (1 − share) · right + share · wrong = no idea
print(f"right {right:.3f}, wrong {wrong:.2f}: worse than no idea if {share:.0%} are wrong")
# With 20 % wrong it pays 1.37; had it said 0.8 instead of 0.99, it would pay far less. Honest probabilities are cheapest.
honest = 0.8 * -np.log(0.8) + 0.2 * -np.log(0.2 / 9)
assert 0.33 < share < 0.34
assert honest < 0.8 * right + 0.2 * wrong

# %% [markdown] tags=["exercise"]
# **3. The slow learner.** One sigmoid unit with one input $x = 1$ should answer 1, and begins with $w = -3, b = -3$.
# Train it by $p := p - \eta\, \partial C/\partial p$ (4) with $\eta = 0.5$, once with MSE and once with CE. Predict
# from the picture of the slopes how the number of steps will differ until it answers above ½. Then count.


# %% tags=["solution"]
def steps_until_half(slope, rate=0.5):
    w, b, steps = -3.0, -3.0, 0
    while sigmoid(w + b) <= 0.5:
        delta = slope(sigmoid(w + b))
        w, b, steps = w - rate * delta, b - rate * delta, steps + 1  # ∂C/∂w = δ x = δ, ∂C/∂b = δ
    return steps


slow = steps_until_half(lambda a: 2 * (a - 1) * a * (1 - a))
fast = steps_until_half(lambda a: a - 1)
print(f"MSE {slow} steps, CE {fast} steps")
assert slow > 20 * fast
