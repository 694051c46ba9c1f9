# %% [markdown]
# # 9. MNIST, from bytes to 98 %
#
# You read the most famous file of machine learning byte by byte, train a network on it, and measure it once on digits
# that it has never seen. At the end you can say how good it is, how sure that number is, and what it gets wrong.
#
# This chapter is the notebook of the first MNIST demonstration of the lecture: the same network and the same training
# as in the script [examples/mnist_dense.py](../examples/mnist_dense.py), which is some thirty lines long. The second
# script, [examples/mnist_convolution.py](../examples/mnist_convolution.py), belongs to chapters 10 and 11.

# %%
import gzip
import os
import struct
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn
from gpunn.data.download import user_cache

plt.style.use("gpunn.display.lecture")

# %% [markdown]
# ## Where the files are
#
# MNIST is four files: images and labels to learn from, images and labels to test with. They are looked for in the
# folder that the environment variable `GPUNN_DATA` names, and where `gpunn train mnist` keeps what it has downloaded.
# Without them the chapter runs on the 8×8 digits that come with gpunn, which have the same format.

# %%
places = [Path(os.environ.get("GPUNN_DATA", "data")), user_cache()]
found = [place / "mnist" for place in places if (place / "mnist" / "train-images-idx3-ubyte.gz").is_file()]
has_mnist = bool(found)
folder = found[0] if has_mnist else Path(gn.__file__).parent / "data" / "digits"
stem = "train" if has_mnist else "digits"
if has_mnist:
    print("data: MNIST, 28×28 pixels")
else:
    print("MNIST is not on this machine: the numbers below are those of the bundled digits, 8×8 pixels.")
    print("`gpunn train mnist` downloads it once; then run this chapter again.")

# %% [markdown]
# ## A file is bytes
#
# Before any mathematics there is a row of numbers from 0 to 255. These are the first 32 of the image file, in
# hexadecimal.

# %%
raw = gzip.decompress((folder / f"{stem}-images-idx3-ubyte.gz").read_bytes())
print(f"{len(raw):,} bytes in all")
print(raw[:16].hex(" "), "  the header")
print(raw[16:32].hex(" "), "  the first pixels")

# %% [markdown]
# The format is called IDX. Its header says what follows:
#
# | bytes | here | meaning |
# |---|---|---|
# | 0, 1 | `00 00` | always zero |
# | 2 | `08` | type of the values: one byte each, 0 to 255 |
# | 3 | `03` | number of dimensions: images, rows, columns |
# | 4–7, 8–11, 12–15 | | the three sizes, four bytes each, the largest byte first ("big-endian") |
# | from 16 | | the pixels, row after row, image after image; 0 is the ground, the largest value is ink |
#
# The first four bytes together are the *magic number*, by which a program knows the format.

# %%
zeros, kind, dimensions = struct.unpack(">HBB", raw[:4])
sizes = struct.unpack(">3I", raw[4:16])
print(f"type {kind:#04x}, {dimensions} dimensions: {sizes[0]:,} images of {sizes[1]} × {sizes[2]} pixels")
wanted = 16 + sizes[0] * sizes[1] * sizes[2]
print(f"16 + {sizes[0]:,} · {sizes[1]} · {sizes[2]} = {wanted:,} bytes, and there are {len(raw):,}")

# %% [markdown]
# That is all there is to it: five lines read every file of the kind. gpunn's own reader does the same and checks more,
# since files come from strangers:
# [the two zeros, the type, the dimensions](../gpunn/data/formats/idx.py "dtype = np.dtype(_DTYPES[code])").


# %%
def read_idx(path):
    """Read an IDX file: two zeros, type, number of dimensions, sizes, values."""
    raw = gzip.decompress(path.read_bytes())
    zeros, kind, dimensions = struct.unpack(">HBB", raw[:4])
    assert (zeros, kind) == (0, 8), f"{path} is no IDX file of bytes"
    sizes = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")
labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz")
if not has_mnist:  # one file for both: every fifth digit is kept for the test, and not looked at
    kept_images, kept_labels = images[::5], labels[::5]
    learn = np.arange(len(images)) % 5 > 0
    images, labels = images[learn], labels[learn]
print("images", images.shape, images.dtype, "  labels", labels.shape, "  the first ten labels", labels[:10])

# %% [markdown]
# ## Look at the data
#
# An image is its numbers. On the left the first one as a picture, on the right the same pixels from its middle as they
# stand in the file.

# %% alt="The first digit, and the numbers of its middle"
first, side = images[0], images.shape[1]
size = min(side, 12)
top = (side - size) // 2
part = first[top : top + size, top : top + size]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), width_ratios=[1, 1.15])
left.imshow(first)
left.add_patch(plt.Rectangle((top - 0.5, top - 0.5), size, size, fill=False, edgecolor="#D55E00", linewidth=2))
left.set_title(f"the first image, labelled {labels[0]}")
right.imshow(part, vmax=1.6 * first.max())
for row, column in np.ndindex(part.shape):
    right.text(column, row, part[row, column], ha="center", va="center", fontsize=8)
right.set_title(f"its middle: {size} × {size} of {side} × {side} numbers")
for axes in (left, right):
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
plt.show()

# %% [markdown]
# People write differently. Eight digits of each class, and below them the mean of all digits of that class: what is
# dark there, nearly everybody writes.

# %% alt="Eight digits of each class, and the mean of each"
figure, axes = plt.subplots(1, 10, figsize=(9, 7))
for digit, place in enumerate(axes):
    of_class = images[labels == digit]
    column = np.concatenate([*of_class[:8], np.zeros((side // 4, side)), of_class.mean(axis=0)])
    place.imshow(column, vmax=images.max())
    place.set(title=f"{digit}", xticks=[], yticks=[])
    place.spines[:].set_visible(False)
figure.supxlabel("last row: the mean of the class")
plt.show()

# %% [markdown]
# Are there as many of each? Nearly. Had one class nine tenths of all samples, then "always that one" would be right
# nine times out of ten, and an accuracy would have to be read with that in mind.

# %% alt="Bars of the ten classes, each near a tenth"
counts = np.bincount(labels)
figure, axes = plt.subplots(figsize=(7, 2.4))
axes.bar(range(10), counts, color="#0072B2")
axes.axhline(len(labels) / 10, color="#D55E00", linestyle="--")
axes.text(9.6, len(labels) / 10, "a tenth", color="#D55E00", va="bottom", ha="left")
axes.set(xticks=range(10), xlabel="digit", ylabel="training images", xlim=(-0.7, 10.6))
plt.show()
print(f"always answering {counts.argmax()} would be right in {counts.max() / counts.sum():.1%}")

# %% [markdown]
# ## What the network sees
#
# Three small steps lead from bytes to equations.
#
# 1. **Scale.** Pixels are divided by the largest value, so inputs lie between 0 and 1 and weights of usual size fit.
# 2. **Flatten.** A fully-connected layer does not know of rows and columns: the image becomes one column $a^0$.
# 3. **One-hot.** The label 5 becomes the vector $y$ of ten numbers with a 1 at place 5, the wanted output.

# %%
scale = 1 / images.max()
a0 = images[0].reshape(-1) * scale
y = np.eye(10)[labels]  # row k of the unit matrix is class k
print("a⁰ has", a0.size, "numbers from", a0.min(), "to", a0.max())
for label, row in zip(labels[:3], y[:3], strict=True):
    print("label", label, "→ y =", row.astype(int))

# %% [markdown]
# gpunn takes the images as bytes and does all three by itself, a batch at a time: bytes take a quarter of the memory of
# float32. Nine tenths of the training images are for learning, one tenth is the *validation set* by which choices are
# made (chapter 6). The test set is a function that nobody has called yet: the files are not even opened.


# %%
def open_test():
    print("… the test set is opened")
    if not has_mnist:
        return kept_images, kept_labels
    return read_idx(folder / "t10k-images-idx3-ubyte.gz"), read_idx(folder / "t10k-labels-idx1-ubyte.gz")


data = gn.Data.from_arrays(images, labels, test=open_test, validation=0.1, scale=scale, name=stem)
print(data.train)
print(data.validation)
print("test set open:", data.test_is_open)

# %% [markdown]
# ## The network and its equations
#
# One hidden layer of 128 units, ten outputs, one for each digit:
#
# $$ a^1 = \max(w^1 a^0 + b^1,\ 0) \qquad z^2 = w^2 a^1 + b^2 \qquad P(k \mid x) = \frac{e^{z^2_k}}{\sum_i e^{z^2_i}} $$
#
# The first two are (2) and (3), with a ReLU and without, the last is the softmax. The cost is the mean surprise at the right
# answers, with $n$ samples in the batch:
#
# $$ C_0 = -\frac{1}{n} \sum_x \ln P(y_x \mid x) \qquad \delta^L = \frac{\operatorname{softmax}(z^L) - y}{n} $$
#
# Gradients go back by (8), (12) and (13); L2 (18) keeps weights small. Each is one place in gpunn:
# [the product $w a$](../gpunn/nn/layers/dense.py "self._forward(1.0, self.w.value, x, 0.0, z)"),
# [the ReLU](../gpunn/kernels/activations.py "np.maximum(z, 0, out=a)"),
# [the softmax](../gpunn/kernels/activations.py "np.divide(a, np.add.reduce(a, axis=0), out=a)").

# %%
model = gn.Sequential([gn.Dense(128), gn.ReLU(), gn.Dense(10)])
model.build((images[0].size,), batch_size=128, device="cpu", seed=0)
print(model.summary())

# %% [markdown]
# **A check before any training.** A network that knows nothing should give each of ten classes about a tenth. Then the
# cost is $-\ln \tfrac{1}{10} = 2.303$. Random weights are a little surer of themselves than that, and wrong: the cost
# begins somewhat above. A first cost of 15, or of 0.1, would mean an error in the data or in the equations.

# %%
x, wanted = data.validation.inputs.reshape(len(data.validation), -1) * scale, data.validation.targets
z = np.concatenate([model.forward(part) for part in np.array_split(x, len(x) // 100)])
p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
print(f"cost before training {-np.log(p[np.arange(len(p)), wanted]).mean():.2f}, ln 10 = {np.log(10):.3f}")
print(f"right by chance      {(p.argmax(axis=1) == wanted).mean():.0%}")

# %% [markdown]
# ## Training
#
# Gradient descent in minibatches (4), with two helpers. *Momentum* adds up gradients like the speed of a ball that
# rolls downhill: $v := 0.9\,v + \partial C/\partial p$; `nesterov=True` looks one step ahead,
# $p := p - \eta\,(\partial C/\partial p + 0.9\,v)$. *One cycle* lets the learning rate η rise at first, then fall
# to nearly 0, so that the last steps are small ones. These values were chosen on the validation set, not on the test
# set. It takes some seconds.

# %% alt="Loss and accuracy over ten epochs, training and validation"
epochs, batch_size, strength = (10, 128, 5.0) if has_mnist else (40, 32, 0.1)
history = model.fit(
    data,
    loss=gn.SoftmaxCrossEntropy(),
    optimizer=gn.SGD(gn.OneCycle(0.2), momentum=0.9, nesterov=True),
    regularizer=gn.L2(strength),
    epochs=epochs,
    batch_size=batch_size,
    device="cpu",
    seed=0,
    progress=False,
)
history.plot(title="Training and validation")

# %% [markdown]
# Read the picture as in chapter 6. The training loss goes on falling after the validation loss has become flat: the
# network begins to learn its images by heart. As long as the validation loss does not rise, that does no harm.

# %%
last = history[-1]
print(f"training   {last.train_accuracy:.2%}")
print(f"validation {last.validation_accuracy:.2%}, of {len(data.validation):,} images that were not learned")
print("test set open:", data.test_is_open)

# %% [markdown]
# ## Look inside
#
# Row $i$ of $w^1$ is as long as an image, so it can be drawn as one. The $z$ of a unit is large if the image has ink at
# the red places and none at the blue ones. Nobody told the units what to look for.

# %% alt="Weights of 25 hidden units as red and blue images"
gn.plot_filters(model, count=25, title="What 25 of the 128 hidden units look for")

# %% [markdown]
# And the whole network fits into three lines of NumPy. The same numbers come out as from gpunn.

# %%
w1, b1, w2, b2 = (np.asarray(parameter) for parameter in model.parameters)
a1 = np.maximum(w1 @ x[:5].T + b1[:, None], 0)  # (2), (3), a column for each image
z2 = w2 @ a1 + b2[:, None]
by_hand = (np.exp(z2) / np.exp(z2).sum(axis=0)).T
by_gpunn = model.predict_proba(data.validation.inputs[:5])
print("answers", by_hand.argmax(axis=1), "  right", wanted[:5])
print("largest difference is below 1e-5:", bool(abs(by_hand - by_gpunn).max() < 1e-5))

# %% [markdown]
# ## The test set, once
#
# All choices are made, so now the sealed envelope may be opened. Doing this twice, and changing something between,
# would turn the test set into a second validation set, and its number into an advertisement.

# %%
test = data.test
accuracy = model.evaluate(test).accuracy
error = (accuracy * (1 - accuracy) / len(test)) ** 0.5
print(f"test accuracy {accuracy:.2%} ± {error:.2%} ({len(test):,} images)")
assert accuracy > (0.98 if has_mnist else 0.95)

# %% [markdown]
# The ± is the standard error $\sqrt{p (1 - p) / n}$ of a share $p$ that was counted on $n$ samples. With the 10,000
# images of MNIST it is some 0.14 %: whoever claims that a network of 98.2 % is better than one of 98.1 % needs more
# images, or several seeds.
#
# ## What was taken for what
#
# The *confusion matrix* counts every pair of right and predicted class. One line of NumPy fills it.

# %% alt="Confusion matrix of the test set, nearly all on the diagonal"
predicted = model.predict(test.inputs)
confusion = np.zeros((10, 10), int)
np.add.at(confusion, (test.targets, predicted), 1)
report = model.report(test)
assert (confusion == report.confusion_matrix).all()
gn.plot_confusion(report, title="The test set")

# %% [markdown]
# The diagonal is right. The rest is not spread evenly: mistakes have a look.

# %%
wrong = confusion * (1 - np.eye(10, dtype=int))
for pair in wrong.reshape(-1).argsort(kind="stable")[:-6:-1]:
    true, answer = divmod(int(pair), 10)
    print(f"{true} was taken for {answer}: {wrong[true, answer]} times of {confusion[true].sum():,}")

# %% [markdown]
# And these are the mistakes of the highest cost: the right digit got the smallest probability. For some you will side
# with the network.

# %% alt="Sixteen digits that were answered wrong"
gn.plot_mistakes(model, test, count=16, title="The worst mistakes")

# %% [markdown]
# ## What to remember
#
# - A data set is bytes with a header. Look at it before you train.
# - The first cost should be near $\ln(\text{classes})$.
# - Choose by the validation set, measure once on the test set, and say how many samples that were.
# - A fully-connected network does not know that two pixels are neighbours: shuffle all pixels in the same way, and it
#   learns as well. The next chapter makes use of the neighbours.
#
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. Write what you have read.** Write the first 100 images as an IDX file of your own, gzipped, into a temporary
# folder, and read it by `read_idx`. What are its first four bytes, and why?

# %% tags=["solution"]
some = images[:100]
with tempfile.TemporaryDirectory() as place:
    path = Path(place) / "some-idx3-ubyte.gz"
    header = struct.pack(">HBB3I", 0, 0x08, 3, *some.shape)  # two zeros, bytes, three dimensions, then the sizes
    path.write_bytes(gzip.compress(header + some.tobytes()))
    again = read_idx(path)
print(header[:4].hex(" "))
assert header[:4] == bytes([0, 0, 8, 3])
assert (again == some).all()

# %% [markdown] tags=["exercise"]
# **2. A rival that does not learn.** Answer each test image by the class whose mean image is nearest to it. How many
# are right? What is the network's share of the credit, and what was easy from the beginning?

# %% tags=["solution"]
flat = images.reshape(len(images), -1).astype(float)
means = np.stack([flat[labels == digit].mean(axis=0) for digit in range(10)])
seen = test.inputs.reshape(len(test), -1).astype(float)
# ‖x − m‖² = ‖x‖² − 2 x·m + ‖m‖², and ‖x‖² is the same for every class.
distance = (means**2).sum(axis=1) - 2 * seen @ means.T
nearest = distance.argmin(axis=1)
share = (nearest == test.targets).mean()
gone = (accuracy - share) / (1 - share)
print(f"nearest mean {share:.1%}, network {accuracy:.1%}: of its mistakes {gone:.0%} are gone")
assert 0.75 < share < accuracy

# %% [markdown] tags=["exercise"]
# **3. Dare to say "I do not know".** Let the network answer only where its largest probability is at least 0.9. What
# share of the test images does it answer, and how many of these answers are right? Draw both over the threshold.
# (We only look: to *choose* a threshold, take the validation set.)

# %% alt="Share answered falls and share right rises with the threshold" tags=["solution"]
probability = model.predict_proba(test.inputs)
sure, right = probability.max(axis=1), probability.argmax(axis=1) == test.targets
thresholds = np.linspace(0.3, 0.99, 70)
answered = [(sure >= t).mean() for t in thresholds]
correct = [right[sure >= t].mean() for t in thresholds]
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(thresholds, correct, color="#0072B2", label="right, of those answered")
axes.plot(thresholds, answered, color="#D55E00", linestyle="--", label="answered")
axes.set(xlabel="least probability", ylabel="share", ylim=(min(answered) - 0.01, 1.003))
axes.legend()
plt.show()
print(f"at 0.9: {(sure >= 0.9).mean():.1%} answered, {right[sure >= 0.9].mean():.2%} of these right")
assert right[sure >= 0.9].mean() > accuracy
