# %% [markdown]
# # 10. Convolution, drawn
#
# You slide one small filter over an image by hand, with stride and padding, know without counting how large the result
# is, and see that a convolution is the fully-connected layer of chapter 1 in disguise. At the end a filter is learned
# from examples.
#
# A fully-connected layer has a weight for every pair of pixel and unit, and does not know that two pixels are
# neighbours. A convolution has a handful of weights, which look at a few neighbours, and uses the *same* handful
# everywhere: an edge is an edge wherever it is.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")
BLUE, ORANGE = "#0072B2", "#D55E00"


# %%
def show(axes, values, title, *, signed=False, numbers=True, spot=None, form="{:g}"):
    """Draw a matrix with its numbers; `spot` is (row, column, height, width, colour) of a frame."""
    values, most = np.asarray(values), abs(np.asarray(values)).max() or 1
    limits = {"cmap": "RdBu_r", "vmin": -1.4 * most, "vmax": 1.4 * most} if signed else {"vmin": 0, "vmax": 1.9 * most}
    axes.imshow(values, **limits)
    for (row, column), value in np.ndenumerate(values if numbers else np.empty((0, 0))):
        axes.text(column, row, form.format(value), ha="center", va="center", fontsize=8)
    for row, column, height, width, colour in [spot] if spot else []:
        place = (column - 0.5, row - 0.5)
        axes.add_patch(plt.Rectangle(place, width, height, fill=False, edgecolor=colour, linewidth=2.5, clip_on=False))
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


# %% [markdown]
# ## One filter at one place
#
# A filter of 3×3 has nine weights $w_{uv}$ and a bias $b$. Laid on the image at place $(i, j)$, it multiplies each
# weight with the pixel below it and adds up:
#
# $$ z_{ij} = \sum_{u=0}^{F-1} \sum_{v=0}^{F-1} w_{uv}\, a_{i+u,\,j+v} + b $$
#
# This filter subtracts what is on the right from what is on the left. Where both are alike it answers 0, at an edge it
# answers loudly.

# %% alt="A patch of a digit times a filter, added up to one number"
digits = gn.load_data("digits").train
digit = digits.inputs[digits.targets == 5][0, :, :, 0].astype(float)
w = np.array([[1.0, 0.0, -1.0], [1.0, 0.0, -1.0], [1.0, 0.0, -1.0]])
i, j = 2, 1
patch = digit[i : i + 3, j : j + 3]
z = (w * patch).sum()
figure, axes = plt.subplots(1, 4, figsize=(9.4, 3.1), width_ratios=[8, 3, 3, 3])
show(axes[0], digit, "image a, 8 × 8", spot=(i, j, 3, 3, ORANGE))
show(axes[1], patch, f"the patch at ({i}, {j})", spot=(0, 0, 3, 3, ORANGE))
show(axes[2], w, "times the filter w", signed=True)
show(axes[3], w * patch, f"adds up to z = {z:g}", signed=True)
plt.show()

# %% [markdown]
# ## All places
#
# The filter goes over the image, row by row, and each place gives one number: the *feature map*. Two loops are the
# whole of it. (In mathematics a convolution turns the filter round first, and this is a cross-correlation. Since weights
# are learned, it makes no difference, and everybody in the field says convolution.)


# %%
def convolve(a, w, b=0.0, stride=1, padding=0):
    """Slide the filter w over the image a; `padding` zeros are laid around the image first."""
    a = np.pad(a, padding)
    size = len(w)
    rows, columns = ((length - size) // stride + 1 for length in a.shape)
    z = np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            z[i, j] = (w * a[top : top + size, left : left + size]).sum() + b
    return z


# %% alt="A digit of 8 × 8 and its map of 6 × 6 numbers"
answer = convolve(digit, w)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.5), width_ratios=[8, 6])
show(left, digit, "image, 8 × 8", spot=(i, j, 3, 3, ORANGE))
show(right, answer, "its map, 6 × 6", signed=True, spot=(i, j, 1, 1, ORANGE))
plt.show()

# %% [markdown]
# Red is where ink is on the left and ground on the right, blue is the other way round. Other weights look for other
# things. To see it well, here is a larger picture.

# %% alt="A square, a disc and a line, and what four filters answer to them"
y, x = np.mgrid[:48, :64]
scene = np.zeros((48, 64))
scene[8:30, 6:24] = 1
scene[(x - 42) ** 2 + (y - 18) ** 2 < 121] = 0.6
scene[abs(y - 36 - (x - 6) * 0.15) < 1.5] = 1
filters = {
    "left − right": w,
    "top − bottom": w.T,
    "mean of 9": np.full((3, 3), 1 / 9),
    "centre − around": np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]]),
}
figure, axes = plt.subplots(1, 5, figsize=(10, 1.9))
show(axes[0], scene, "image", numbers=False)
for place, (name, weights) in zip(axes[1:], filters.items(), strict=True):
    show(place, convolve(scene, weights), name, numbers=False, signed=True)
plt.show()

# %% [markdown]
# ## The same in gpunn, to the last digits
#
# `gn.Conv2D(1, 3)` is a layer with one filter of 3×3. It gets our weights, and float64, so that nothing is lost to
# rounding. Images are (batch, height, width, channels), weights (filters, channels, height, width).

# %%
layer = gn.Sequential([gn.Conv2D(1, 3)]).build((8, 8, 1), batch_size=1, device="cpu", dtype="float64")
layer.parameters["conv1.w"].value[...] = w
layer.parameters["conv1.b"].value[...] = 0.5
by_gpunn = layer.forward(digit[None, :, :, None])[0, :, :, 0]
difference = abs(by_gpunn - convolve(digit, w, b=0.5)).max()
print("shapes", by_gpunn.shape, answer.shape, "  largest difference", f"{difference:.0e}")
assert difference < 1e-12

# %% [markdown]
# ## Stride and padding
#
# - **Stride** $S$: the filter takes $S$ steps at once. The map becomes about $S$ times shorter each way.
# - **Padding** $P$: so many zeros are laid around the image. The filter can then look at the very edge, and the map
#   need not shrink.
#
# Below, each dot is a place of the filter's centre, on an image of 7×7; the first place is drawn as a frame.

# %% alt="Places of a filter for five choices of size, stride and padding"
cases = [(3, 1, 0), (3, 2, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2)]
figure, axes = plt.subplots(1, 5, figsize=(10, 2.6))
for place, (size, stride, padding) in zip(axes, cases, strict=True):
    whole = 7 + 2 * padding
    ground = np.pad(np.full((7, 7), 0.35), padding, constant_values=0.08)
    place.imshow(ground, vmin=0, vmax=1)
    places = np.arange((whole - size) // stride + 1) * stride + (size - 1) / 2
    place.scatter(*np.meshgrid(places, places), s=18, color=BLUE, zorder=3)
    place.add_patch(plt.Rectangle((-0.5, -0.5), size, size, fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False))
    place.set_xticks(np.arange(whole + 1) - 0.5, labels=[])
    place.set_yticks(np.arange(whole + 1) - 0.5, labels=[])
    place.grid(color="white", linewidth=0.7)
    place.tick_params(length=0)
    place.set_title(f"F = {size}, S = {stride}, P = {padding}\n→ {len(places)} × {len(places)}")
plt.show()

# %% [markdown]
# **How large is the map?** The padded image is $N + 2P$ long. The filter takes $F$ of it at the first place, and each
# further place takes $S$ more. So the number of places is
#
# $$ N_\text{out} = \left\lfloor \frac{N_\text{in} - F + 2P}{S} \right\rfloor + 1 $$
#
# What is left over at the end is not looked at: hence the floor. In gpunn this is
# [one line](../gpunn/nn/layers/windows.py "return (length + sum(padded) - size) // stride + 1").

# %%
tried = 0
for n in range(3, 12):
    for size, stride, padding in np.ndindex(6, 4, 3):
        if 1 <= size <= n + 2 * padding and stride >= 1:
            formula = (n - size + 2 * padding) // stride + 1
            counted = convolve(np.zeros((n, n)), np.ones((size, size)), stride=stride, padding=padding)
            shape = gn.Conv2D(1, size, stride, padding).output_shape((n, n, 1))
            assert counted.shape == (formula, formula) == shape[:2]
            tried += 1
print(tried, "combinations of N, F, S and P: formula, loops and gpunn agree")

# %% [markdown]
# Two cases to know by heart: $F = 3, S = 1, P = 1$ keeps the size (`padding="same"`), and a window of 2 with stride 2
# halves it.
#
# ## Channels: an image has depth
#
# A colour image has three **channels**, and the maps of 20 filters are an image of 20 channels. A filter always reaches
# through **all** channels of its input, and sums over them:
#
# $$ z_{fij} = \sum_c \sum_u \sum_v w_{fcuv}\; a_{c,\; iS + u - P,\; jS + v - P} + b_f $$
#
# So 16 filters of 3×3 on 8 channels have $16 \cdot 8 \cdot 3 \cdot 3$ weights and 16 biases, whatever the size of the
# image. A fully-connected layer between the same two images would have one weight for every pair of numbers.

# %%
model = gn.Sequential([gn.Conv2D(16, 3, padding="same")]).build((28, 28, 8), batch_size=1, device="cpu")
weights = model.parameters["conv1.w"].value
print("weights of the convolution", weights.shape, "=", f"{weights.size:,}")
print("of a fully-connected layer ", f"{(28 * 28 * 8) * (28 * 28 * 16):,}")

# %% [markdown]
# ## 1×1: a filter of one pixel
#
# It looks at no neighbours at all, so what is it good for? It mixes channels. At each pixel it is a small
# fully-connected layer from the channels of that pixel to new ones, mostly fewer: that saves work for what follows.
# Making a colour picture grey is such a filter: three channels in, one out.

# %% alt="A colour picture, and the same in grey"
colours = np.stack([scene, np.roll(scene, 7, axis=1), scene[::-1]], axis=2)  # red, green, blue
grey = gn.Sequential([gn.Conv2D(1, 1, bias=False)]).build(colours.shape, batch_size=1, device="cpu", dtype="float64")
grey.parameters["conv1.w"].value[...] = np.array([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
seen = grey.forward(colours[None])[0, :, :, 0]
assert np.allclose(seen, colours @ [0.299, 0.587, 0.114])  # a product at each pixel
figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.5))
left.imshow(colours)
left.set(title="48 × 64 × 3", xticks=[], yticks=[])
right.imshow(seen, cmap="gray")
right.set(title="after a 1×1 filter: 48 × 64 × 1", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Pooling
#
# Is there an edge *somewhere around here*? Pooling answers that: of each window of 2×2 it keeps the largest number, or
# the mean. It has no weights. The map becomes half as high and half as wide, and what it says depends less on the exact
# place.


# %%
def pool(a, size, keep):
    """Keep one number of each window of size × size, side by side."""
    rows, columns = len(a) // size, a.shape[1] // size
    return np.array([[keep(a[i * size : (i + 1) * size, j * size : (j + 1) * size]) for j in range(columns)]
                     for i in range(rows)])  # fmt: skip


# %% alt="A map of 6 × 6, and its largest and mean numbers in windows of 2 × 2"
loud = np.maximum(answer, 0)  # the map above after a ReLU
largest, mean = pool(loud, 2, np.max), pool(loud, 2, np.mean)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), width_ratios=[6, 4, 4])
show(axes[0], loud, "map after the ReLU, 6 × 6", signed=True)
axes[0].set_xticks([-0.5, 1.5, 3.5, 5.5], labels=[])
axes[0].set_yticks([-0.5, 1.5, 3.5, 5.5], labels=[])
axes[0].grid(color="black", linewidth=1.5)
axes[0].tick_params(length=0)
show(axes[1], largest, "largest of each 2 × 2", signed=True)
show(axes[2], mean, "mean of each 2 × 2", signed=True, form="{:.3g}")
plt.show()

# %% [markdown]
# gpunn's layers give the same. On the way back a maximum hands its gradient to the one place that won, a mean shares it
# out evenly. This [line keeps the larger](../gpunn/kernels/pooling.py "np.maximum(value, best, out=best)").

# %%
for layer, expected in ((gn.MaxPool2D(2), largest), (gn.AveragePool2D(2), mean)):
    pooling = gn.Sequential([layer]).build((6, 6, 1), batch_size=1, device="cpu", dtype="float64")
    assert np.allclose(pooling.forward(loud[None, :, :, None])[0, :, :, 0], expected)
    print(layer, "agrees")

# %% [markdown]
# ## A convolution is a product of matrices
#
# Two loops over places are slow, and products of matrices are fast. So every patch that the filter sees is written down as one
# column of a matrix $A$. The filters are the rows of $W$, and the whole convolution is (2), the fully-connected layer:
#
# $$ Z = W A + b $$
#
# Programs call the making of $A$ *im2col*. In gpunn
# [these are its copies](../gpunn/kernels/convolution.py "block[:, i, j] = x[:, y, x_at]"), and
# [this is the product](../gpunn/backend/convolution.py "self._backend.gemm(1.0, w, columns, 0.0, z[:, span])").

# %%
rows = columns = 6
A = np.stack([digit[i : i + 3, j : j + 3].reshape(-1) for i in range(rows) for j in range(columns)], axis=1)
W = np.stack([f.reshape(-1) for f in filters.values()])
Z = W @ A
print("W", W.shape, " A", A.shape, " Z", Z.shape)
assert np.allclose(Z[0].reshape(6, 6), answer)

# %% alt="The matrices W, A and Z, one column of A and Z marked"
figure, axes = plt.subplots(2, 2, figsize=(9.4, 3.6), width_ratios=[9, 36], height_ratios=[9, 4])
axes[0, 0].axis("off")
axes[0, 0].text(0.5, 0.45, "Z = W A", ha="center", fontsize=15)
show(axes[0, 1], A, "A: each column is a patch of 3 × 3, one for each of the 6 × 6 places", numbers=False)
show(axes[1, 0], W / abs(W).max(axis=1, keepdims=True), "W: four filters", numbers=False, signed=True)
show(
    axes[1, 1], Z / abs(Z).max(axis=1, keepdims=True), "Z: four maps, each scaled by itself", numbers=False, signed=True
)
number = i * columns + j  # of the place (i, j) in the first picture
axes[0, 1].add_patch(plt.Rectangle((number - 0.5, -0.5), 1, 9, fill=False, edgecolor=ORANGE, linewidth=2))
axes[1, 1].add_patch(plt.Rectangle((number - 0.5, -0.5), 1, 4, fill=False, edgecolor=ORANGE, linewidth=2))
plt.show()
print(f"A holds {A.size} numbers, the image {digit.size}: each pixel is copied up to 9 times")

# %% [markdown]
# ## Back-propagation comes for free
#
# Since it is a product, (8) and (13) hold as they stand, with $\Delta$ for the δ of all places:
#
# $$ \frac{\partial C}{\partial W} = \Delta A^T \qquad \frac{\partial C}{\partial A} = W^T \Delta $$
#
# Then each column of $\partial C / \partial A$ is added back to the pixels that it came from. A weight that is used at
# 36 places gets the sum of 36 gradients. Here they are against numeric gradients (chapter 5), with stride and padding.
# An error of 0.0 means no more than rounding. The last three lines repeat it with a layer behind that overwrites its
# input, which some layers do to save memory.

# %%
print(gn.check_gradients(gn.Conv2D(2, 3, stride=2, padding=1), (7, 6, 2)))

# %% [markdown]
# ## A filter that is learned
#
# Nobody writes filters by hand any more. Show a convolution with random weights what should come out, and gradient
# descent (4) finds the filter. Here it sees patches of noise, and is told what "left − right" answers to them.

# %%
noise = np.random.default_rng(0).normal(size=(500, 8, 8, 1)).astype("float32")
wanted = np.stack([convolve(image, w).reshape(-1) for image in noise[..., 0]]).astype("float32")
learner = gn.Sequential([gn.Conv2D(1, 3, bias=False), gn.Flatten()])
learner.build((8, 8, 1), batch_size=50, device="cpu", seed=3)
steps = [0, 1, 2, 4, 8, 30]
snapshots, cost = {}, gn.MeanSquaredError()
for step in range(steps[-1] + 1):
    filter_now = learner.parameters["conv1.w"]
    snapshots[step] = np.array(filter_now.value[0, 0])
    batch = slice(step * 50 % 500, step * 50 % 500 + 50)
    cost.forward(learner.forward(noise[batch], training=True), wanted[batch])
    learner.backward(cost.backward())
    filter_now.value -= 0.004 * filter_now.grad  # (4)

# %% alt="A random filter turns into the wanted one within 30 steps"
figure, axes = plt.subplots(1, 7, figsize=(10, 1.9))
for place, step in zip(axes, steps, strict=False):
    show(place, snapshots[step], f"step {step}" if step else "random", signed=True, form="{:.1f}")
show(axes[-1], w, "wanted", signed=True)
plt.show()
assert abs(snapshots[30] - w).max() < 0.05

# %% [markdown]
# ## What to remember
#
# - A filter is a few weights, used at every place. It reaches through all channels.
# - $N_\text{out} = \lfloor (N_\text{in} - F + 2P)/S \rfloor + 1$, for convolution and pooling alike.
# - 1×1 mixes channels, pooling forgets exact places.
# - Written as $Z = W A$, everything from chapters 1 and 5 holds.
#
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. How far does it see?** Two convolutions of 3×3, one after the other, both without padding, on an image of 9×9.
# Which pixels can change the number in the middle of the second map? Find out by changing each pixel in turn. Which
# single filter would see as much, and how many weights would it have?

# %% tags=["solution"]
once = np.ones((3, 3))
blank = convolve(convolve(np.zeros((9, 9)), once), once)
reach = np.zeros((9, 9))
for pixel in np.ndindex(9, 9):
    poked = np.zeros((9, 9))
    poked[pixel] = 1
    reach[pixel] = convolve(convolve(poked, once), once)[2, 2] != blank[2, 2]
print(reach.astype(int))
print("two of 3×3 have 18 weights, one of 5×5 has 25")
assert reach.sum() == 25
assert reach[2:7, 2:7].all()

# %% [markdown] tags=["exercise"]
# **2. The way back through max pooling.** Let ∂C/∂y be 1 for all nine windows of the map `loud` above. Write down ∂C/∂a
# by hand. Then let gpunn say it: a 1×1 filter with one weight of 1 for each pixel, fed with an image of 36 channels,
# each of which holds one pixel, gives the map `loud`, and its gradient (13) is ∂C/∂a times that pixel.

# %% tags=["solution"]
da = np.zeros((6, 6))
for i in range(3):
    for j in range(3):
        window = loud[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        u, v = np.unravel_index(window.argmax(), (2, 2))  # the first of equals
        da[2 * i + u, 2 * j + v] = 1
print(da.astype(int))

# %% tags=["solution"]
spread = np.eye(36).reshape(1, 6, 6, 36) * loud.reshape(1, 6, 6, 1)
chain = gn.Sequential([gn.Conv2D(1, 1, bias=False), gn.MaxPool2D(2)])
chain.build((6, 6, 36), batch_size=1, device="cpu", dtype="float64")
chain.parameters["conv1.w"].value[...] = 1.0
assert np.allclose(chain.forward(spread, training=True)[0, :, :, 0], largest)
chain.backward(np.ones((1, 3, 3, 1)))
assert np.allclose(chain.parameters["conv1.w"].grad.reshape(6, 6), da * loud)

# %% [markdown] tags=["exercise"]
# **3. Blur without loops.** A blur of 5×5 is the product of a column and a row: $w = k\,k^T$ with
# $k = (1, 4, 6, 4, 1)/16$. Show that convolving with the column and then with the row gives the same, and count the
# multiplications for an image of 1000×1000 done both ways.

# %% tags=["solution"]
k = np.array([1, 4, 6, 4, 1]) / 16
at_once = convolve(scene, np.outer(k, k))
down = gn.Sequential([gn.Conv2D(1, (5, 1), bias=False), gn.Conv2D(1, (1, 5), bias=False)])
down.build((48, 64, 1), batch_size=1, device="cpu", dtype="float64")
down.parameters["conv1.w"].value[...] = k.reshape(1, 1, 5, 1)
down.parameters["conv2.w"].value[...] = k.reshape(1, 1, 1, 5)
in_two = down.forward(scene[None, :, :, None])[0, :, :, 0]
print(f"at once {25 * 996 * 996:,} multiplications, in two {5 * 996 * 1000 + 5 * 996 * 996:,}")
assert np.allclose(at_once, in_two)
