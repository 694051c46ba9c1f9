# %% [markdown]
# # 5. Back-propagation
#
# Chapter 4 went downhill along the gradient, and took the gradient as given. Here you derive it, write it in 25 lines
# of NumPy, and check it in a way that finds every mistake: by differences.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")

# %% [markdown]
# ## The question
#
# A network has many parameters: 784-30-10, small as it is, has 23,860. Gradient descent (4) wants to know of each one how
# the cost changes when it changes a little, $\partial C/\partial w$. You could try it out: change one weight, compute the
# cost again, take the difference. That is two passes through the network for each parameter, for one single step.

# %%
parameters = (784 + 1) * 30 + (30 + 1) * 10  # a weight for each input, and a bias
print(f"{parameters:,} parameters: {2 * parameters:,} passes for one gradient by differences")
print("back-propagation: 2 passes, one forward and one back")

# %% [markdown]
# **Back-propagation** gets all of them by one pass forward and one back, and exactly; the one back costs about as much as two
# forward. Nothing in it is deeper than the chain rule; the trick is only in which order one multiplies.
#
# ## One new letter, δ
#
# Layer $l$ computes (2) and (3) of chapter 1,
#
# $$ z^l = w^l a^{l-1} + b^l, \qquad a^l = f(z^l). $$
#
# Instead of asking for $\partial C/\partial w$ at once, ask how the cost depends on the sums $z$:
#
# $$ \delta^l = \frac{\partial C}{\partial z^l}. \tag{5} $$
#
# Why $z$? Because it is a bottleneck. Whatever the layers before do, they reach the cost only through the numbers $z^l$.
# Know $\delta^l$, and weights and biases of this layer are one short step away, and so is the layer before. $\delta^l_p$ is
# often called the *error* of unit $p$: it says which way its sum should have gone, and how much that matters.
#
# ## The last layer
#
# There the cost is right behind $z^L$. Each output $a^L_p$ depends on its own $z^L_p$ alone, so the chain rule has one term:
# $\delta^L_p = \partial C/\partial a^L_p \cdot f'(z^L_p)$. For the mean squared error of $n$ samples,
#
# $$ C = \frac1n \sum \lVert a^L - y \rVert^2 \quad\Rightarrow\quad
#    \delta^L = \frac2n\,(a^L - y) \odot f'(z^L), \tag{6} $$
#
# with $\odot$ for the product element by element. For sigmoid outputs and the cross-entropy, $\partial C/\partial a$ is
# $\frac1n\,(a-y)/\bigl(a(1-a)\bigr)$, and the derivative of the sigmoid is $a(1-a)$. They cancel:
#
# $$ C = -\frac1n \sum y \ln a^L + (1-y) \ln(1-a^L) \quad\Rightarrow\quad
#    \delta^L = \frac1n\,(a^L - y). \tag{7} $$
#
# Softmax with its cost ends in the same expression. That is no accident: it is why these pairs were made.

# %% alt="The derivative of both costs by z for a wanted output of 1: that of squared errors vanishes on both sides, that of cross-entropy tends to minus one on the left"
z = np.linspace(-8, 8, 201)
a = 1 / (1 + np.exp(-z))
figure, axes = plt.subplots(figsize=(6.5, 3.2))
axes.plot(z, 2 * (a - 1) * a * (1 - a), "C1--", label="(6) squared error: 2 (a − 1) a (1 − a)")
axes.plot(z, a - 1, "C0", label="(7) cross-entropy: a − 1")
axes.axvspan(-8, -4, color="C1", alpha=0.08, lw=0)
axes.text(-7.8, -0.16, "quite wrong, and\nnothing is learned", color="C1", va="top", fontsize=9)
axes.set(xlabel="z of an output that should be 1", ylabel="δ", title="Why the cost belongs to the activation")
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# The step in (4) is proportional to δ. With squared errors an output that is confidently wrong hardly moves, since its
# sigmoid is flat there; with cross-entropy the most wrong ones move fastest.
#
# ## One layer back
#
# Now suppose that $\delta^{l+1}$ is known, and look at one unit $q$ of layer $l$. Its $z^l_q$ reaches the cost through *every*
# unit $p$ of the next layer, so the chain rule has a sum:
#
# $$ \delta^l_q = \frac{\partial C}{\partial z^l_q}
#    = \sum_p \frac{\partial C}{\partial z^{l+1}_p}\,\frac{\partial z^{l+1}_p}{\partial z^l_q}
#    = \sum_p \delta^{l+1}_p\,\frac{\partial z^{l+1}_p}{\partial z^l_q}. \tag{9} $$
#
# The second factor is that of a neuron, written down and differentiated:
#
# $$ z^{l+1}_p = \sum_r w^{l+1}_{pr} f(z^l_r) + b^{l+1}_p
#    \quad\Rightarrow\quad \frac{\partial z^{l+1}_p}{\partial z^l_q} = w^{l+1}_{pq}\,f'(z^l_q), \tag{10} $$
#
# since of the sum only the term with $r = q$ depends on $z^l_q$. Put (10) into (9) and pull out what does not depend on $p$:
#
# $$ \delta^l_q = f'(z^l_q) \sum_p w^{l+1}_{pq}\,\delta^{l+1}_p. \tag{11} $$
#
# The sum runs over the *first* index of $w$, where the forward pass runs over the second. That is the transpose:
#
# $$ \boxed{\;\delta^l = \bigl((w^{l+1})^{\mathsf T} \delta^{l+1}\bigr) \odot f'(z^l)\;} \tag{8} $$
#
# ## Weights and biases
#
# The weight $w^l_{pq}$ and the bias $b^l_p$ enter a single sum, $z^l_p$. So again
#
# $$ \frac{\partial C}{\partial w^l_{pq}} = \sum_r \delta^l_r\,\frac{\partial z^l_r}{\partial w^l_{pq}}, \qquad
#    \frac{\partial C}{\partial b^l_p} = \sum_r \delta^l_r\,\frac{\partial z^l_r}{\partial b^l_p}, \tag{14} $$
#
# $$ \frac{\partial z^l_r}{\partial w^l_{pq}} = a^{l-1}_q \text{ for } r = p \text{, else } 0, \qquad
#    \frac{\partial z^l_r}{\partial b^l_p} = 1 \text{ for } r = p \text{, else } 0, \tag{15} $$
#
# $$ \frac{\partial C}{\partial w^l_{pq}} = \delta^l_p\,a^{l-1}_q, \qquad \frac{\partial C}{\partial b^l_p} = \delta^l_p, \tag{16} $$
#
# which as vectors and matrices is
#
# $$ \boxed{\;\frac{\partial C}{\partial b^l} = \delta^l\;} \tag{12} $$
#
# $$ \boxed{\;\frac{\partial C}{\partial w^l} = \delta^l\,(a^{l-1})^{\mathsf T}\;} \tag{13} $$
#
# Read (13) aloud: *what came in, times what was wrong with what went out.* A weight behind a silent input, $a = 0$, learns
# nothing from this sample.
#
# ## A whole batch
#
# Put samples side by side as columns: $A$ is (units, n), and so is $\Delta$. Equations (2), (3) and (8) then hold as they stand.
# In (13) the product $\Delta A^{\mathsf T}$ sums over the samples by itself, and (12) becomes the sum of each row of $\Delta$.
# The $1/n$ of the mean is already in $\delta^L$. These are the 25 lines:


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(x, weights, biases):
    activations = [x]
    for w, b in zip(weights, biases, strict=True):
        activations.append(sigmoid(w @ activations[-1] + b))  # (2), (3)
    return activations


def cost(x, y, weights, biases):
    a = forward(x, weights, biases)[-1]
    return -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum() / x.shape[1]


# %%
def backward(activations, y, weights):
    delta = (activations[-1] - y) / y.shape[1]  # (7)
    by_weights, by_biases = [], []
    for layer in reversed(range(len(weights))):
        a = activations[layer]  # what came in
        by_weights.insert(0, delta @ a.T)  # (13)
        by_biases.insert(0, delta.sum(axis=1, keepdims=True))  # (12)
        if layer > 0:
            delta = (weights[layer].T @ delta) * a * (1 - a)  # (8), with f' = a (1 - a)
    return by_weights, by_biases


# %% [markdown]
# Look at what `backward` needs: the activations of the forward pass, and the weights as they were. That is why training
# takes more memory than predicting, and why weights are changed only after δ has gone past them.
#
# ## The signal, there and back
#
# A network 3-4-2 and one sample that should give (1, 0), first forward, then back. Lines are red above 0 and blue below
# it, and the thicker the larger.

# %%
rng = np.random.default_rng(52)
small = [rng.normal(0, 1.2, (4, 3)), rng.normal(0, 1.2, (2, 4))], [np.zeros((4, 1)), np.zeros((2, 1))]
x, y = np.array([[1.0], [0.2], [0.7]]), np.array([[1.0], [0.0]])
activations = forward(x, *small)
by_weights, by_biases = backward(activations, y, small[0])
print("x  =", x[:, 0])
for layer in (1, 2):
    print(f"a{layer} = {activations[layer][:, 0].round(2)}   δ{layer} = {by_biases[layer - 1][:, 0].round(2)}")


# %%
def draw_network(axes, title, units, edges, what):
    places = [[(column, (len(each) - 1) / 2 - row) for row in range(len(each))] for column, each in enumerate(units)]
    for layer, matrix in enumerate(edges):
        for (p, q), value in np.ndenumerate(matrix):
            (x0, y0), (x1, y1) = places[layer][q], places[layer + 1][p]
            colour, width = "#B2182B" if value > 0 else "#2166AC", 5 * abs(value) / abs(matrix).max()
            axes.plot([x0, x1], [y0, y1], color=colour, lw=width, alpha=0.55, zorder=1)
    for column, values in enumerate(units):
        is_input = column == 0
        for place, value in zip(places[column], values, strict=True):
            axes.scatter(*place, s=950, color="#EEEEEE" if is_input else "white", edgecolor="C6", lw=1.2, zorder=2)
            axes.text(*place, f"{value:.2f}".replace("-", "−"), ha="center", va="center", fontsize=9, zorder=3)
    axes.set(title=title, xlabel=what, xlim=(-0.3, len(units) - 0.7), ylim=(-2.1, 2.1), xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


# %% alt="A network of 3, 4 and 2 units twice: its activations and weights on the way forward, its deltas and the gradients by weights on the way back"
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
ahead = [each[:, 0] for each in activations]
back = [each[:, 0] for each in (x, *by_biases)]  # (12): of one sample the gradients by biases are the δ
draw_network(left, "forward →   a = f(w a + b)   (2), (3)", ahead, small[0], "units: a.  lines: w")
draw_network(right, "←   back   δ = (wᵀ δ) ⊙ f′(z)   (8)", back, by_weights, "units: δ.  lines: δ aᵀ (13)")
plt.show()

# %% [markdown]
# Follow the top hidden unit. It pushes the first output up, which is too low ($\delta = -0.72$), and the second down, which
# is too high: the cost would fall if it grew, so its own δ is negative, −0.38. Both thick blue lines before it then say
# which weights should grow. The second input is only 0.2, so its four lines are thin: (13) multiplies by it.
#
# ## The same gradients by gpunn
#
# Now on real data: 64-20-10 on the digits, in double precision. We take the weights that gpunn begins with.

# %%
data = gn.load_data("digits")
images, labels = data.train.inputs[:50] / 16, data.train.targets[:50]
onehot = np.eye(10)[labels]
model = gn.Sequential([gn.Flatten(), gn.Dense(20), gn.Sigmoid(), gn.Dense(10)])
model.build((8, 8, 1), batch_size=50, device="cpu", dtype="float64", seed=1)
loss = gn.BinaryCrossEntropy()  # it holds the last sigmoid
print(f"cost by gpunn: {loss.forward(model.forward(images, training=True), onehot):.12f}")
model.backward(loss.backward())

# %%
w1, b1, w2, b2 = (parameter.value for parameter in model.parameters)
weights, biases = [w1, w2], [b1[:, None], b2[:, None]]
x, y = images.reshape(50, 64).T, onehot.T  # samples as columns
print(f"cost by hand:  {cost(x, y, weights, biases):.12f}")
by_weights, by_biases = backward(forward(x, weights, biases), y, weights)
by_hand = by_weights[0], by_biases[0][:, 0], by_weights[1], by_biases[1][:, 0]
for parameter, ours in zip(model.parameters, by_hand, strict=True):
    same = np.abs(parameter.grad - ours).max() < 1e-12
    print(f"{parameter.name:9} {parameter.shape!s:9} differs by less than 1e-12: {same}")

# %% [markdown]
# The same numbers, from the same equations. In gpunn they stand here:
#
# | | in gpunn |
# |---|---|
# | (7) | [`gradient[at] = w * (a - y) / T(of)`](../gpunn/kernels/losses.py "gradient[at] = w * (a - y) / T(of);"), the weight `w` of a sample being 1 |
# | (8), the product | [`da = wᵀ dy`](../gpunn/nn/layers/dense.py "self._backward(1.0, self.w.value, dy, 0.0, da)") |
# | (8), f′ of the sigmoid | [`dz = da * a * (1 - a)`](../gpunn/kernels/activations.py "dz = da * a * (T(1) - a);") |
# | (12) | [the sums of the rows of δ](../gpunn/kernels/bias.py "total[...] = sums_of_rows(x.reshape(len(total), -1))") |
# | (13) | [`grad := δ aᵀ`](../gpunn/nn/parameter.py "self._product(self._alpha, delta, a, self._beta, self._target)") |
#
# ## Trust nobody: differences
#
# A wrong gradient rarely crashes. The network learns, only worse, and you blame the learning rate. So compare each new
# gradient with a **numeric gradient**, by the definition, once, on a small network:
#
# $$ \frac{\partial C}{\partial w} \approx \frac{C(w + h) - C(w - h)}{2h}. $$


# %%
def difference(w, place, h):
    """Central difference of the cost by one number in w."""
    kept = w[place]
    w[place] = kept + h
    above = cost(x, y, weights, biases)
    w[place] = kept - h
    below = cost(x, y, weights, biases)
    w[place] = kept
    return (above - below) / (2 * h)


for place in [(0, 20), (7, 28), (19, 43)]:
    print(f"w1{list(place)}:  {by_weights[0][place]:+.8f}   by differences {difference(w1, place, 1e-5):+.8f}")

# %% [markdown]
# Eight digits agree. Which $h$ should one take? A small one, says the mathematics: the error of the central difference
# falls as $h^2$. Not too small, says the computer: $C$ has 16 digits, and the difference of two nearly equal numbers keeps
# few of them, so rounding adds an error that grows as $10^{-16}/h$.

# %% alt="Error of a difference over h, both logarithmic: it falls as h squared down to about 1e-5 and rises again as 1/h; the one-sided difference falls only as h"
steps, place = np.logspace(-11, -1, 41), (7, 28)
true, at = by_weights[0][place], cost(x, y, weights, biases)
central = [abs(difference(w1, place, h) - true) for h in steps]
one_sided = []
for h in steps:
    w1[place] += h
    one_sided.append(abs((cost(x, y, weights, biases) - at) / h - true))
    w1[place] -= h
figure, axes = plt.subplots(figsize=(6.5, 3.6))
axes.loglog(steps, one_sided, "C1s--", ms=4, lw=1.2, label="(C(w + h) − C(w)) / h")
axes.loglog(steps, central, "C0o-", ms=4, lw=1.2, label="(C(w + h) − C(w − h)) / 2h")
axes.text(3e-11, 1e-8, "rounding,\n∝ 1/h", va="center", ha="left")
axes.text(2e-2, 1e-9, "curvature,\n∝ h²", va="center", ha="center")
axes.set(xlabel="h", ylabel="error of the gradient", title="Neither too large nor too small")
axes.legend(loc="upper center")
plt.show()

# %% [markdown]
# $h = 10^{-5}$ and central differences: nine or ten digits are right, in double precision. gpunn does this for every
# parameter and the input, and says where the worst place is. All its layers and losses are tested in this way, and a layer
# of your own should be.

# %%
check = gn.check_gradients(model, (8, 8, 1), loss=gn.BinaryCrossEntropy(), batch_size=5)
print(f"{len(check.compared)} arrays compared; all errors below 1e-7: {check.worst.error < 1e-7}")
for compared in check.compared:
    print(f"  {compared.name:9} {compared.gradient:+.6f}   by differences {compared.difference:+.6f}")

# %% [markdown]
# ## What the signal suffers on its way
#
# (8) multiplies by $f'$ at each layer. That of the sigmoid is at most ¼. Eight layers back, little is left; ReLU's slope is
# 1 where it is on. This is the *vanishing gradient*, one reason why deep networks were thought untrainable for long.

# %% alt="Mean size of delta in eight hidden layers, logarithmic: with sigmoid it falls by a factor of about twenty thousand from the last to the first, with ReLU it hardly changes"
figure, axes = plt.subplots(figsize=(6.5, 3.2))
for activation, style in [(gn.Sigmoid, "C1s--"), (gn.ReLU, "C0o-")]:
    layers = [part for _ in range(8) for part in (gn.Dense(30), activation())]
    deep = gn.Sequential([gn.Flatten(), *layers, gn.Dense(10)]).build(
        (8, 8, 1), batch_size=50, device="cpu", dtype="float64", seed=1
    )
    last = gn.SoftmaxCrossEntropy()
    last.forward(deep.forward(images, training=True), labels)
    deep.backward(last.backward())
    sizes = [np.abs(p.grad).mean() for p in deep.parameters if p.name.endswith(".b")][:8]  # (12): δ, summed
    axes.semilogy(range(1, 9), sizes, style, label=activation.__name__)
    print(f"{activation.__name__:8} δ of layer 1 is {sizes[0] / sizes[-1]:.0e} of that of layer 8")
axes.set(xlabel="hidden layer", ylabel="mean |∂C/∂b|", title="The gradient eight layers back")
axes.legend(loc="center left")
plt.show()

# %% [markdown]
# Chapter 12 shows what helps: the right size of the first weights, and normalization.
#
# ## In short
#
# - $\delta^l = \partial C/\partial z^l$ (5) is all that must be carried back; it begins with $(a^L - y)/n$ (7).
# - (8) hands it to the layer before: transposed weights, times $f'$. (12) and (13) read the gradients off.
# - One pass back costs about as much as two forward, whatever the number of parameters.
# - Differences cost two passes for each parameter, and are the test.

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. With pencil and paper.** One input $x = 2$, one hidden unit, one output, sigmoids in both, no biases,
# $w^1 = 0.5$, $w^2 = -1$; the wanted output is $y = 1$ and the cost the cross-entropy. Compute $\partial C/\partial w^1$ and
# $\partial C/\partial w^2$ by (7), (8) and (13), to four digits.

# %% tags=["solution"]
a1 = 1 / (1 + np.exp(-0.5 * 2))  # 0.7311
a2 = 1 / (1 + np.exp(a1))  # 0.3250
delta2 = a2 - 1  # (7): -0.6750
delta1 = -1 * delta2 * a1 * (1 - a1)  # (8): 0.1327
print(f"by w2 {delta2 * a1:.4f}, by w1 {delta1 * 2:.4f}")  # (13)
ones = np.ones((1, 1))
found, _ = backward(forward(2 * ones, [0.5 * ones, -ones], [0, 0]), ones, [0.5 * ones, -ones])
assert np.allclose([found[0][0, 0], found[1][0, 0]], [0.2654, -0.4935], atol=1e-4)

# %% [markdown] tags=["exercise"]
# **2. Another network.** Change `forward` and `backward` to hidden layers with ReLU and an output of softmax with its cost,
# $\delta^L = (\mathrm{softmax}(z^L) - y)/n$. Compare with gpunn on the same 50 digits, 64-20-15-10.


# %% tags=["solution"]
def relu_gradients(x, y, weights, biases):
    activations = [x]
    for w, b in zip(weights, biases, strict=True):
        z = w @ activations[-1] + b
        activations.append(np.maximum(z, 0))
    powers = np.exp(z - z.max(axis=0))  # the last layer has no ReLU
    delta, gradients = (powers / powers.sum(axis=0) - y) / y.shape[1], []
    for layer in reversed(range(len(weights))):
        gradients += [delta.sum(axis=1), delta @ activations[layer].T]
        delta = (weights[layer].T @ delta) * (activations[layer] > 0)
    return gradients[::-1]


# %% tags=["solution"]
other = gn.Sequential([gn.Flatten(), gn.Dense(20), gn.ReLU(), gn.Dense(15), gn.ReLU(), gn.Dense(10)])
other.build((8, 8, 1), batch_size=50, device="cpu", dtype="float64", seed=2)
last = gn.SoftmaxCrossEntropy()
last.forward(other.forward(images, training=True), labels)
other.backward(last.backward())
values = [parameter.value for parameter in other.parameters]
ours = relu_gradients(x, y, values[0::2], [b[:, None] for b in values[1::2]])
assert all(np.allclose(p.grad, g, atol=1e-12) for p, g in zip(other.parameters, ours, strict=True))
print("all six gradients agree")

# %% [markdown] tags=["exercise"]
# **3. Find the mistake.** Somebody wrote this activation, $f(z) = z\,\sigma(z)$, called swish. A network with it learns
# nearly as well as with ReLU, and yet its derivative is wrong. Let `gn.check_gradients` say so, and mend it.
#
# ```python
# class Swish(gn.Activation):
#     def function(self, xp, z):
#         return z / (1 + xp.exp(-z))
#
#     def derivative(self, xp, z):
#         return 1 / (1 + xp.exp(-z))
# ```


# %% tags=["solution"]
class Wrong(gn.Activation):
    def function(self, xp, z):
        return z / (1 + xp.exp(-z))

    def derivative(self, xp, z):
        return 1 / (1 + xp.exp(-z))


class Swish(Wrong):
    def derivative(self, xp, z):
        s = 1 / (1 + xp.exp(-z))
        return s + z * s * (1 - s)  # the product rule: z, too, depends on z


# %% tags=["solution"]
try:
    gn.check_gradients(Wrong(), (6,))
except gn.GradientError as error:
    print(error)
    worst = error.check.worst
assert worst.error > 0.01
assert gn.check_gradients(Swish(), (6,)).worst.error < 1e-7
