# %% [markdown]
# # 11. The complete architecture, and what its filters see
#
# You put convolution, activation, pooling and fully-connected layers together, count every shape and every parameter by
# hand, train the network in seconds, and open it: what do its filters look for, and which images do they answer to? At
# the end a network of 25 convolutions learns only after a detour is built into it.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn
from gpunn.data.download import user_cache

plt.style.use("gpunn.display.lecture")
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
data = gn.load_data("digits")
print(data)

# %% [markdown]
# ## The plan
#
# Nearly every network that looks at images is built like this:
#
# 1. **convolution – activation – pooling**, repeated: maps become smaller and more numerous. Early filters see edges,
#    later ones see arrangements of edges.
# 2. **fully-connected layers**: the maps, laid flat, are features like any others.
# 3. **softmax**: probabilities of the classes.
#
# Here it is for the digits of 8×8.

# %%
layers = [
    gn.Conv2D(8, 3, padding="same"), gn.ReLU(), gn.MaxPool2D(2),
    gn.Conv2D(16, 3, padding="same"), gn.ReLU(), gn.MaxPool2D(2),
    gn.Flatten(), gn.Dense(32), gn.ReLU(), gn.Dense(10),
]  # fmt: skip
model = gn.Sequential(layers).build((8, 8, 1), batch_size=32, device="cpu", seed=0)

# %% [markdown]
# Each block below is what lies between two layers: squares are maps, drawn to scale, bars are columns of numbers.

# %% alt="Maps become smaller and more numerous, then columns of 64, 32 and 10 numbers"
blocks = [("image", 8, 1), ("conv, ReLU", 8, 8), ("pool", 4, 8), ("conv, ReLU", 4, 16), ("pool", 2, 16)]
figure, axes = plt.subplots(figsize=(10, 2.9))
at = 0.0
for name, size, channels in blocks:
    for c in reversed(range(channels)):
        corner = (at + 0.28 * c, -size / 2 + 0.16 * c)
        axes.add_patch(plt.Rectangle(corner, size, size, facecolor="#DCEAF5", edgecolor=BLUE, linewidth=0.8))
    axes.text(at + size / 2, -5.2, f"\n{name}\n{size} × {size} × {channels}", ha="center", va="top")
    at += size + 0.28 * channels + 2.6
for name, count in (("\nflat", 64), ("dense,\nReLU", 32), ("dense,\nsoftmax", 10)):
    high = count / 64 * 9 + 0.6
    axes.add_patch(plt.Rectangle((at, -high / 2), 0.9, high, facecolor="#FBE3D0", edgecolor=ORANGE, linewidth=0.8))
    axes.text(at + 0.45, -5.2, f"{name}\n{count}", ha="center", va="top")
    at += 6.6
axes.set(xlim=(-0.5, at - 2.5), ylim=(-8.4, 5.2), aspect="equal")
axes.axis("off")
plt.show()

# %% [markdown]
# ## Count by hand
#
# For each layer: what comes out (chapter 10), how many parameters that takes, and how many multiplications one image
# costs.
#
# - a convolution of $F \times F$ from $C$ to $K$ channels: $K C F^2$ weights and $K$ biases, each weight used at every
#   place;
# - pooling, ReLU, Flatten: no parameters;
# - a fully-connected layer from $m$ to $k$: $k m$ weights and $k$ biases, each weight used once.

# %%
by_hand = [  # layer, shape that comes out, parameters, multiplications for one image
    ("conv1", (8, 8, 8), 8 * 1 * 3 * 3 + 8, 8 * 8 * (8 * 1 * 3 * 3)),
    ("pool1", (4, 4, 8), 0, 0),
    ("conv2", (4, 4, 16), 16 * 8 * 3 * 3 + 16, 4 * 4 * (16 * 8 * 3 * 3)),
    ("pool2", (2, 2, 16), 0, 0),
    ("dense1", (32,), 32 * 64 + 32, 32 * 64),
    ("dense2", (10,), 10 * 32 + 10, 10 * 32),
]
for name, shape, parameters, products in by_hand:
    print(f"{name:7} {' × '.join(map(str, shape)):12} {parameters:6,} parameters {products:8,} multiplications")
total = sum(parameters for _, _, parameters, _ in by_hand)
print("together", f"{total:,}")
assert total == model.parameters.values.size

# %%
print(model.summary())

# %% [markdown]
# Where the parameters are is not where the work is: the convolutions are cheap to store and dear to compute.

# %% alt="Bars: most parameters are in a dense layer, most multiplications in a convolution"
kept = [row for row in by_hand if row[2]]
names = [row[0] for row in kept]
figure, axes = plt.subplots(1, 2, figsize=(8, 2), sharey=True)
for place, column, title in ((axes[0], 2, "parameters"), (axes[1], 3, "multiplications for an image")):
    values = [row[column] for row in kept]
    bars = place.barh(names, values, color=[BLUE, BLUE, ORANGE, ORANGE])
    place.bar_label(bars, [f"{value:,}" for value in values], padding=3)
    place.set(title=title, xticks=[], xlim=(0, 1.25 * max(values)))
    place.spines[["top", "right", "bottom"]].set_visible(False)
axes[0].invert_yaxis()
plt.show()

# %% [markdown]
# ## Train
#
# Forward is a loop over the layers, [one line](../gpunn/nn/layout.py "x = stage.forward(x, training)"), and backward is
# [the same loop from the end](../gpunn/nn/layout.py "dy = stage.backward(dy)"): (8) for each layer in turn. A network
# of another shape needs no other equations.

# %% alt="Loss and accuracy over 25 epochs"
options = {"epochs": 25, "batch_size": 32, "device": "cpu", "seed": 0, "progress": False}
history = model.fit(data, optimizer=gn.SGD(gn.OneCycle(0.03), momentum=0.9, nesterov=True), **options)
history.plot(title="A convolutional network on the digits")

# %%
print(f"validation: {model.evaluate(data.validation).accuracy:.1%} of {len(data.validation)} images")

# %% [markdown]
# ## What the architecture is good for
#
# A fully-connected network with as many parameters is as good on these digits, since all of them are well centred. So
# let us be unkind: train both on the centred digits, and test them on digits moved by one or two pixels, which neither
# has ever seen.

# %%
dense = gn.Sequential([gn.Flatten(), gn.Dense(50), gn.ReLU(), gn.Dense(10)])
dense.fit(data, optimizer=gn.SGD(gn.OneCycle(0.03), momentum=0.9, nesterov=True), **options)
print(f"parameters: convolutional {model.parameters.values.size:,}, fully-connected {dense.parameters.values.size:,}")


def moved(images, down, across):
    """Move images; what leaves on one side comes in as ground on the other."""
    wide = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return wide[:, 2 - down : 10 - down, 2 - across : 10 - across]


# %% alt="Accuracy falls with the move, less for the convolutional network"
watched, steps = data.validation, [-2, -1, 0, 1, 2]
accuracy = {}
for name, network in (("convolutional", model), ("fully-connected", dense)):
    tried = [[moved(watched.inputs, step, 0), moved(watched.inputs, 0, step)] for step in steps]
    accuracy[name] = [np.mean([network.predict(x) == watched.targets for x in pair]) for pair in tried]
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(steps, accuracy["convolutional"], "o-", color=BLUE, label="convolutional")
axes.plot(steps, accuracy["fully-connected"], "s--", color=ORANGE, label="fully-connected")
axes.axhline(0.1, color=GREY, linewidth=0.8)
axes.text(0, 0.12, "guessing", color=GREY, fontsize=8, ha="center")
axes.set(xticks=steps, xlabel="moved by so many pixels, down or across", ylabel="right answers", ylim=(0, 1.03))
axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.95))
plt.show()
assert accuracy["convolutional"][1] > accuracy["fully-connected"][1]

# %% [markdown]
# The same filter at every place, and pooling that forgets exact places: that is where the difference comes from. It is
# no proof against every move, as the far ends show. For that one also trains on moved digits (chapter 8).
#
# ## What do the filters look for?
#
# On 8×8 pixels there is little to see, so for the pictures a larger brother is trained on larger digits: 6,000 images
# of MNIST where it is on this machine (chapter 9), else the bundled digits, enlarged three times. The plan is
# the same, without a hidden layer at the end.

# %%
places = [Path(os.environ.get("GPUNN_DATA", "data")), user_cache()]
if any((place / "mnist" / "train-images-idx3-ubyte.gz").is_file() for place in places):
    large = gn.load_data("mnist", limit=6000)
else:
    print("MNIST is not on this machine: the pictures below are of the bundled digits, enlarged")
    enlarged = data.train.inputs.repeat(3, axis=1).repeat(3, axis=2)
    large = gn.Data.from_arrays(enlarged, data.train.targets, scale=1 / 16)
brother = gn.Sequential([
    gn.Conv2D(12, 5), gn.ReLU(), gn.MaxPool2D(2), gn.Conv2D(24, 5), gn.ReLU(), gn.MaxPool2D(2),
    gn.Flatten(), gn.Dense(10),
])  # fmt: skip
brother.fit(large, optimizer=gn.SGD(gn.OneCycle(0.05), momentum=0.9, nesterov=True), epochs=5, batch_size=64,
            device="cpu", seed=0, progress=False)  # fmt: skip
print(f"validation: {brother.evaluate(large.validation).accuracy:.1%} of {len(large.validation)} images")

# %% [markdown]
# Filters of the first layer are small images of weights. Red is above 0: there the filter wants ink. Blue is below 0:
# there ink counts against it. Where red lies beside blue, the filter answers to an edge.

# %% alt="Twelve filters of 5 × 5, red and blue"
gn.plot_filters(brother, title="The filters of the first convolution")

# %% [markdown]
# And this is what the network answers to one digit, after ReLU and pooling. In both pictures red is above 0, and the
# stronger the colour, the larger the number. A *feature map* says *where* its filter has found what it looks for:
# compare map and filter of the same number. The maps of the second convolution are coarser, and each has looked at all
# maps of the first.

# %% alt="A nine, and the maps of both convolutions"
nine = large.validation.inputs[np.flatnonzero(large.validation.targets == 9)[0]]
gn.plot_activations(brother, nine, title="What the convolutions answer to a nine")

# %% [markdown]
# ## Which images does a filter answer to most?
#
# Filters of deeper layers cannot be drawn as images: they look at maps, not at pixels. But one can ask the data: send
# all images through the front of the network, and keep the places with the largest answers. A network that is made of
# the layers of another begins with its weights.

# %%
front = gn.Sequential(brother.layers[:5])  # up to the ReLU of the second convolution
x = large.train.inputs[:1000] * np.float32(large.train.scale)
front.build(x.shape[1:], batch_size=len(x), device="cpu")
maps = np.asarray(front.forward(x))  # (images, rows, columns, filters)
print("maps", maps.shape)

# %% [markdown]
# How much of the image does one number of these maps see? A filter of 5×5 sees 5 pixels across. After pooling, two such
# places lie side by side: 6 pixels. The second filter sees five of these, each 2 pixels further: $6 + 4 \cdot 2 = 14$.
# Number $(i, j)$ has seen the 14×14 pixels from $(2i, 2j)$ on, its *receptive field*. Here they are cut out: a row for
# each of eight filters, the ten patches of ten different images that it answered to most.

# %% alt="Eight rows of patches: each shows one kind of stroke"
chosen = maps.max(axis=(0, 1, 2)).argsort(kind="stable")[::-1][:8]
figure, axes = plt.subplots(8, 10, figsize=(8, 6.4))
figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
for row, number in zip(axes, chosen, strict=True):
    best = maps[..., number].max(axis=(1, 2)).argsort(kind="stable")[::-1][:10]
    for place, image in zip(row, best, strict=True):
        i, j = np.unravel_index(maps[image, :, :, number].argmax(), maps.shape[1:3])
        place.imshow(x[image, 2 * i : 2 * i + 14, 2 * j : 2 * j + 14, 0], vmin=0, vmax=1)
        place.set(xticks=[], yticks=[])
        place.spines[:].set(visible=True, color="#BBBBBB")
    row[0].set_ylabel(f"filter {number}", rotation=0, ha="right", va="center")
plt.show()

# %% [markdown]
# Each row shows one detail again and again: a bend, an end, a stroke in one direction. Nobody asked for these details.
# They are what helped to tell digits apart.
#
# ## Deeper: a residual network in one picture
#
# If two pairs of convolutions are good, are twelve better? As the network grows deeper, the gradient has to pass
# through every layer (8), and each one bends it a little. A *residual block* gives it a road around: the layers learn
# only what is to be **added** to their input,
#
# $$ y = x + f(x) \qquad \frac{\partial C}{\partial x} = \frac{\partial C}{\partial y} +
# \left(\frac{\partial f}{\partial x}\right)^T \frac{\partial C}{\partial y} $$
#
# Whatever $f$ does, $\partial C / \partial y$ arrives unchanged as well. In gpunn
# [that is the sum](../gpunn/nn/layers/branches.py "self._run(kernels.add, f, shortcut, y)"), and
# [that is the sum on the way back](../gpunn/nn/layers/branches.py "self._run(kernels.add, df, shortcut, dx)").
#
# Two networks of 25 convolutions, with the same number of parameters. The second one's blocks begin as $y = x$, since
# their last weights begin with 0.


# %%
def deep(residual):
    """Make a network of 1 + 12 · 2 convolutions, plain or with residual blocks."""
    start = {"weights": gn.Normal(0.0)} if residual else {}
    made = [gn.Conv2D(8, 3, padding="same"), gn.ReLU(), gn.MaxPool2D(2)]
    for _ in range(12):
        f = [gn.Conv2D(8, 3, padding="same"), gn.ReLU(), gn.Conv2D(8, 3, padding="same", **start)]
        made += [gn.Residual(f), gn.ReLU()] if residual else [*f, gn.ReLU()]
    return gn.Sequential([*made, gn.Flatten(), gn.Dense(10)])


options = {"optimizer": gn.SGD(0.02, momentum=0.9), "epochs": 6, "batch_size": 64, "device": "cpu", "seed": 0}
curves = {kind: deep(kind == "residual").fit(data, **options, progress=False) for kind in ("plain", "residual")}


# %%
def draw_block(axes):
    """Draw a residual block: three layers, and the road around them."""
    box = {"boxstyle": "round,pad=0.4", "facecolor": "#DCEAF5", "edgecolor": BLUE}
    arrow = {"arrowstyle": "-|>", "color": "#222222", "shrinkA": 0, "shrinkB": 0}
    for height, words in ((3, "convolution 3 × 3"), (2, "ReLU"), (1, "convolution 3 × 3")):
        axes.text(0, height, words, ha="center", va="center", bbox=box)
    for top, bottom in ((4.3, 3.28), (2.72, 2.28), (1.72, 1.28), (0.72, 0.22), (-0.22, -0.9)):
        axes.annotate("", (0, bottom), (0, top), arrowprops=arrow)
    axes.add_patch(plt.Rectangle((-1.25, 0.5), 2.5, 3, fill=False, edgecolor=BLUE, linestyle=":", linewidth=1.5))
    axes.plot([0, 1.6, 1.6], [3.85, 3.85, 0], color=ORANGE, linewidth=2.5)
    axes.annotate("", (0.16, 0), (1.65, 0), arrowprops={**arrow, "color": ORANGE, "linewidth": 2.5})
    ring = {"boxstyle": "circle,pad=0.15", "facecolor": "white"}
    axes.text(0, 0, "+", ha="center", va="center", fontsize=14, bbox=ring)
    axes.text(-0.12, 4.05, "x", ha="right", va="center")
    axes.text(-1.35, 2, "f", ha="right", va="center", color=BLUE, fontsize=12)
    axes.text(1.75, 2, "x, unchanged", va="center", color=ORANGE)
    axes.text(-0.15, -0.7, "y = x + f(x)", ha="right", va="center")
    axes.set(xlim=(-1.8, 3.2), ylim=(-1, 4.4))
    axes.axis("off")


# %% alt="A residual block, and the losses of a plain and a residual network"
figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.6), width_ratios=[1, 1.5])
draw_block(left)
for kind, colour, line in (("plain", GREY, "--"), ("residual", ORANGE, "-")):
    right.plot(curves[kind]["epoch"], curves[kind]["train_loss"], line, color=colour, label=f"{kind}, 25 convolutions")
right.axhline(np.log(10), color="#DDDDDD", zorder=0)
right.text(6, np.log(10) + 0.05, "ln 10: knows nothing", color=GREY, fontsize=8, ha="right")
right.set(xlabel="epoch", ylabel="training loss", ylim=(0, 2.7))
right.legend(loc="center right")
plt.show()
assert curves["plain"][-1].train_loss > 2 > 0.5 > curves["residual"][-1].train_loss

# %% [markdown]
# The plain network gives each class a tenth, and has hardly moved after six epochs. Chapter 12 shows two other cures, a better start and
# BatchNorm; the recipe `resnet` of gpunn has all three.
#
# ## The test set, once

# %% alt="Eight digits that were answered wrong"
report = model.evaluate(data.test)
print(f"test accuracy {report.accuracy:.1%} of {len(data.test)} images")
gn.plot_mistakes(model, data.test, count=8, title="What it still gets wrong")

# %% [markdown]
# ## What to remember
#
# - conv – activation – pool, repeated; then fully-connected; then softmax. Maps become smaller and more numerous.
# - Shapes and parameters can be counted before anything runs.
# - Convolution and pooling make a network less sensitive to where a thing is.
# - To see what a unit does, ask the data which images it answers to.
#
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. Count a larger one.** The recipe `lenet` for MNIST: 28×28×1, 20 filters of 5×5 without padding, ReLU, pooling of
# 2×2, 40 filters of 5×5, ReLU, pooling, 100 units, ReLU, 10 outputs. Write down the shapes and the parameters of each
# layer, then let gpunn check you.

# %% tags=["solution"]
shapes = [(24, 24, 20), (12, 12, 20), (8, 8, 40), (4, 4, 40), (640,), (100,), (10,)]
parameters = [20 * 25 + 20, 40 * 20 * 25 + 40, 100 * 640 + 100, 10 * 100 + 10]
lenet = gn.Sequential([
    gn.Conv2D(20, 5), gn.ReLU(), gn.MaxPool2D(2), gn.Conv2D(40, 5), gn.ReLU(), gn.MaxPool2D(2),
    gn.Flatten(), gn.Dense(100), gn.ReLU(), gn.Dense(10),
]).build((28, 28, 1), device="cpu")  # fmt: skip
shape, found = (28, 28, 1), []
for layer in lenet.layers:
    shape = layer.output_shape(shape)
    found += [] if isinstance(layer, gn.ReLU) else [shape]
print(f"{sum(parameters):,} parameters, three quarters of them in the first fully-connected layer")
assert found == shapes
assert sum(parameters) == lenet.parameters.values.size == 85_670

# %% [markdown] tags=["exercise"]
# **2. Where does it look?** Lay a square of ground, a quarter of the image wide, on the nine from above, at every
# second place, and note the probability that the larger network gives to "9". Draw it as a map: where does it need the
# ink?

# %% tags=["solution"]
side, half = len(nine), len(nine) // 8
centres = list(range(0, side, 2))
covered = np.stack([nine] * len(centres) ** 2)
for number, (row, column) in enumerate(np.ndindex(len(centres), len(centres))):
    i, j = centres[row], centres[column]
    covered[number, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1] = 0
needed = brother.predict_proba(covered)[:, 9].reshape(len(centres), -1)
whole = brother.predict_proba(nine[None])[0, 9]
print(f"P(9) of the whole digit {whole:.2f}, at the worst place {needed.min():.2f}")

# %% alt="A nine, and a map of where covering it hurts" tags=["solution"]
figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.8))
left.imshow(nine[:, :, 0])
left.set(title="the nine", xticks=[], yticks=[])
left.spines[:].set_visible(True)
picture = right.imshow(needed, cmap="cividis", vmin=0, vmax=1)
right.set(title="P(9) with a square around each place", xticks=[], yticks=[])
figure.colorbar(picture)
plt.show()
assert needed.min() < 0.5 < whole

# %% [markdown] tags=["exercise"]
# **3. The mean of each map.** Take the two convolutions of the first network, put `GlobalAveragePool2D` in the place of
# the second pooling, `Flatten` and the hidden layer, and let one `Dense(10)` follow. How many parameters are left? Is
# it as good on the validation digits, and on those moved by one pixel? Why?

# %% tags=["solution"]
small = gn.Sequential([
    gn.Conv2D(8, 3, padding="same"), gn.ReLU(), gn.MaxPool2D(2),
    gn.Conv2D(16, 3, padding="same"), gn.ReLU(), gn.GlobalAveragePool2D(), gn.Dense(10),
])  # fmt: skip
small.fit(data, optimizer=gn.SGD(gn.OneCycle(0.1), momentum=0.9), epochs=40, batch_size=32, device="cpu", seed=0,
          progress=False)  # fmt: skip
aside = [moved(watched.inputs, 0, 1), moved(watched.inputs, 0, -1)]
moves = {name: np.mean([network.predict(x) == watched.targets for x in aside])
         for name, network in (("Flatten", model), ("mean of maps", small))}  # fmt: skip
print(f"{small.parameters.values.size:,} parameters, {small.evaluate(watched).accuracy:.1%} right")
print("moved by one pixel:", {name: f"{share:.1%}" for name, share in moves.items()})
assert small.parameters.values.size == 80 + 1168 + 10 * 16 + 10
assert small.evaluate(watched).accuracy > 0.9
assert moves["mean of maps"] > moves["Flatten"]

# %% [markdown] tags=["solution"]
# The mean of a map says *whether* something was found and not *where*. So it hardly matters where the digit lies. After
# `Flatten` each place of each map has weights of its own, and a digit that has moved meets the weights of other places.
