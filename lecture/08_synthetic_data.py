# %% [markdown]
# # 8. Synthetic data
#
# Against overfitting nothing helps like more data, and data cost money. Here you make new training images out of old ones,
# see what it is worth, and learn when it does harm.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")
data = gn.load_data("digits", validation=400)
x, y = data.validation.inputs, data.validation.targets


# %% [markdown]
# ## A two stays a two
#
# Turn a 2 by ten degrees, and every pixel changes, but not what it is. You know that; the network does not, for it never
# saw such a 2 twice. **Synthetic data** tell it: each training image is changed a little, at random, and keeps its label. This
# is also called *augmentation*. In gpunn `gn.Augmentation` holds the limits, and `apply` shows pictures as `fit` would see them.

# %%
kinds = {
    "shift = 1": gn.Augmentation(shift=1),
    "rotation = 20": gn.Augmentation(rotation=20),
    "scale = 0.2": gn.Augmentation(scale=0.2),
    "shear = 0.3": gn.Augmentation(shear=0.3),
    "flip = 0.5": gn.Augmentation(flip=0.5),
    "cutout = 3": gn.Augmentation(cutout=3),
}
two = data.train.inputs[np.flatnonzero(data.train.targets == 2)[4]]
print("one image:", two.shape, " ten of it:", np.repeat(two[None], 10, axis=0).shape)

# %% alt="A two of 8 by 8 pixels, and nine changed versions of it in each of six rows: shifted, turned, larger and smaller, slanted, some mirrored, with a square cut out"
figure, axes = plt.subplots(6, 10, figsize=(9, 5.8))
for row, (name, augmentation) in zip(axes, kinds.items(), strict=True):
    pictures = augmentation.apply(np.repeat(two[None], 9, axis=0), seed=1)
    for axis, picture in zip(row, [two, *pictures], strict=True):
        axis.imshow(picture[:, :, 0], vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
axes[0, 0].set_title("original")
plt.show()

# %% [markdown]
# The limits are drawn evenly between minus and plus: `rotation=20` turns by anything from −20 to 20 degrees. `flip` is a
# probability, `cutout` the side of a square that becomes 0.
#
# ## How a picture is turned
#
# One does not move pixels, for they would land between places and leave holes. One asks the other way round: *where does each
# pixel of the new picture come from?* With places counted from the middle,
#
# $$ \begin{pmatrix} x' \\ y' \end{pmatrix} = M \begin{pmatrix} x \\ y \end{pmatrix}, \qquad
#    M_{\text{turn}} = \begin{pmatrix} \cos\theta & -\sin\theta \\ \sin\theta & \cos\theta \end{pmatrix}, \qquad
#    M_{\text{mirror}} = \begin{pmatrix} -1 & 0 \\ 0 & 1 \end{pmatrix}, $$
#
# and as $(x', y')$ falls between four pixels, takes their mean, each the more the nearer it is (*bilinear* interpolation).


# %%
def look(image, M):
    """The picture whose pixels come from the places M (x, y) of a square image; 0 outside."""
    size = len(image)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    at_x, at_y = M @ np.stack([columns.ravel(), rows.ravel()]) + (size - 1) / 2
    framed, picture = np.pad(image, 2), np.zeros(size * size)
    for row in (np.floor(at_y), np.floor(at_y) + 1):
        for column in (np.floor(at_x), np.floor(at_x) + 1):
            share = (1 - np.abs(at_x - column)) * (1 - np.abs(at_y - row))
            inside = np.clip([row, column], -2, size + 1).astype(int) + 2
            picture += share * framed[tuple(inside)]
    return picture.reshape(size, size)


def turn(degrees):
    t = np.radians(degrees)
    return np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])


# %% alt="Left the two with the places that are looked up, a grid of dots turned by 20 degrees; right the turned picture that they give"
image = two[:, :, 0].astype(float)
rows, columns = np.mgrid[:8, :8] - 3.5
at_x, at_y = turn(20) @ np.stack([columns.ravel(), rows.ravel()]) + 3.5
figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.8))
left.imshow(image, alpha=0.6)
left.plot(at_x, at_y, "o", ms=4, color="C1")
left.plot(at_x[:8], at_y[:8], "C1", lw=1)
left.set(title="where the new pixels look", xlim=(-2, 9), ylim=(9, -2))
right.imshow(look(image, turn(20)))
right.plot(range(8), [0] * 8, "o-", ms=4, color="C1", lw=1)
right.set(title="what they see", xlim=(-2, 9), ylim=(9, -2))
for axes in (left, right):
    axes.set(xlabel="column", ylabel="row")
    axes.grid(False)
plt.show()

# %% [markdown]
# The dots are turned clockwise, so the two appears turned the other way; the line marks the top row in both. gpunn does the
# same with one random M for each image: [the turn, slant and size of it](../gpunn/kernels/augmentation.py "maps = np.stack([cosine, sheared, unit[0] * shift, sine, cosine, unit[1] * shift])"), [the
# four neighbours](../gpunn/kernels/augmentation.py "above = _between(flat[channel * frame :], corner, part_x)"). A mirror has no randomness, so we can compare:

# %%
mirrored = gn.Augmentation(flip=1.0).apply(two[None])[0, :, :, 0]
print("mirrored by hand and by gpunn alike:", np.allclose(look(image, np.diag([-1, 1])), mirrored))

# %% [markdown]
# ## Another one each time
#
# `fit(augmentation=...)` makes the pictures within the step, from seed, step and place in the batch. Nothing is stored: in 80
# epochs each of 100 digits enters the gradients of (4) in 80 forms, and the same seed gives the same 8,000 pictures again.
# (`OneCycle`, below, lets η rise at first and then fall to nearly 0.)

# %%
augmentation = gn.Augmentation(rotation=15, shear=0.2)
same = [augmentation.apply(two[None], seed=0, step=step).sum() for step in (0, 1, 0)]
print("ink of the two in steps 0, 1, and 0 again:", *(f"{ink:.2f}" for ink in same))


# %%
def trained(samples, augmentation=None, seed=0):
    model = gn.Sequential([gn.Flatten(), gn.Dense(100), gn.ReLU(), gn.Dense(10)])
    options = {
        "batch_size": 20,
        "epochs": max(30, 8000 // len(samples)),
        "validate_every": 20,
        "device": "cpu",
        "progress": False,
        "seed": seed,
    }
    optimizer = gn.SGD(gn.OneCycle(0.1), momentum=0.9)
    history = model.fit(
        samples, validation_data=data.validation, optimizer=optimizer, augmentation=augmentation, **options
    )
    return model, history


# %% alt="Right answers in validation over 80 epochs, three seeds each: as they are the curves end near 82 percent, with synthetic data near 86"
seeds = (0, 1, 2)
figure, axes = plt.subplots(figsize=(6.5, 3.4))
for given, colour, name in [(None, "C6", "as they are"), (augmentation, "C0", "rotation 15, shear 0.2")]:
    histories = [trained(data.train.first(100), given, seed)[1] for seed in seeds]
    for seed, history in enumerate(histories):
        right = 100 * np.array(history["validation_accuracy"])
        axes.plot(history["epoch"], right, colour, lw=1.2, alpha=0.7, label=None if seed else name)
    print(f"{name}: right in training {100 * np.mean([each[-1].train_accuracy for each in histories]):.0f} %")
axes.set(xlabel="epoch", ylabel="right in validation (%)", ylim=(70, 90), title="100 digits, three seeds each")
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# The network knows all its 100 digits either way. But where it knows them from many sides, it knows more of those that it has
# never seen. (On larger sets the training loss with synthetic data is often higher than the validation loss: the training
# pictures are the harder ones. That is no fault.)
#
# ## What is it worth?
#
# One seed proves little. Three seeds for each kind, on 100 digits, measured on the 400 of the validation set, which is never
# changed:

# %%
tried = {
    "nothing": None,
    "rotation 15": gn.Augmentation(rotation=15),
    "shear 0.2": gn.Augmentation(shear=0.2),
    "rotation 15, shear 0.2": augmentation,
    "shift 0.5": gn.Augmentation(shift=0.5),
    "shift 3": gn.Augmentation(shift=3),
    "rotation 80": gn.Augmentation(rotation=80),
    "flip 0.5": gn.Augmentation(flip=0.5),
    "cutout 3": gn.Augmentation(cutout=3),
}
found = {}
for name, given in tried.items():
    ends = [trained(data.train.first(100), given, seed)[1][-1] for seed in seeds]
    found[name] = [100 * end.validation_accuracy for end in ends], np.mean([end.validation_loss for end in ends])
    print(f"{name:23} right {np.mean(found[name][0]):.1f} %, loss {found[name][1]:.2f}")

# %% alt="Right answers by kind of synthetic data, three seeds each: turned and slanted digits gain about three percent, a shift of three pixels loses thirty"
figure, axes = plt.subplots(figsize=(7, 3.6))
for place, (values, _) in enumerate(found.values()):
    axes.plot(values, [place] * 3, "o", color="C6" if place == 0 else "C0", alpha=0.6)
    axes.plot(np.mean(values), place, "|", ms=18, mew=2, color="C1")
axes.axvline(np.mean(found["nothing"][0]), color="C6", lw=0.8, ls=":")
axes.set_yticks(range(len(found)), list(found))
axes.invert_yaxis()
axes.set(xlabel="right answers (%)   dots: seeds, line: mean", title="100 digits")
plt.show()

# %% [markdown]
# Turned and slanted digits help: people write like that. Shifts of three pixels of eight do great harm. Even half a pixel makes
# the *loss* worse, and that has a reason in the data: whoever made this set cut every digit out and centred it, so no digit to
# come will ever be shifted. **Synthetic data must look like data that can occur**, no more and no less. On photographs, where
# things may be anywhere, the same shift is often the best you can do. Mirroring changes the right answers by less than their
# spread on 400 samples, 2 %: it teaches nothing, since mirrored digits never come.
#
# ## The fewer data, the more it helps

# %%
counts, curves = (50, 100, 200, 400, 1000), {"as they are": [], "rotation 15, shear 0.2": []}
for count in counts:
    for name, given in zip(curves, (None, augmentation), strict=True):
        right = [trained(data.train.first(count), given, seed)[1][-1].validation_accuracy for seed in seeds]
        curves[name].append(np.mean(right))
    plain, synthetic = (100 * values[-1] for values in curves.values())
    print(f"{count:5} digits: {plain:.1f} % as they are, {synthetic:.1f} % with synthetic data")

# %% alt="Wrong answers over the number of training digits, both logarithmic: the curve with synthetic data lies below the other, by most where digits are few"
figure, axes = plt.subplots(figsize=(6.5, 3.4))
for (name, values), style in zip(curves.items(), ("C6o--", "C0s-"), strict=True):
    axes.loglog(counts, 100 * (1 - np.array(values)), style, label=name)
axes.set_xticks(counts, counts)
axes.set_yticks([2, 5, 10, 20], [2, 5, 10, 20])
axes.minorticks_off()
axes.set(xlabel="training digits", ylabel="wrong answers (%)", title="Mean of 3 seeds")
axes.legend()
plt.show()

# %% [markdown]
# Both axes are logarithmic: twice the data takes away a share of the mistakes, and synthetic data are worth some fraction of
# a doubling. They are no replacement for real ones. Five ways of writing a 4 teach more than one 4 in a thousand shapes.
#
# ## What must not be done
#
# **Change what the label says.** A mirrored 2 is no digit at all. Does a network that never saw one notice?

# %% alt="Ten mirrored digits, and below each what the network says and how sure it is"
model, _ = trained(data.train)
backwards = gn.Augmentation(flip=1.0).apply(x) / np.float32(16)
p = model.predict_proba(backwards)
examples = [np.flatnonzero(y == k)[3] for k in range(10)]
figure, axes = plt.subplots(1, 10, figsize=(9.5, 1.7))
for k, (axis, example) in enumerate(zip(axes, examples, strict=True)):
    axis.imshow(backwards[example, :, :, 0])
    axis.set(title=f"a mirrored {k}", xlabel=f"{p[example].argmax()}\n{p[example].max():.0%}", xticks=[], yticks=[])
    axis.title.set_fontsize(8)
    axis.grid(False)
plt.show()

# %%
kept = [(p[y == k].argmax(axis=1) == k).mean() for k in range(10)]
print("class:              ", *(f"{k:5}" for k in range(10)))
print("still called so:    ", *(f"{share:5.0%}" for share in kept))
print(f"mean P of the answer: {p.max(axis=1).mean():.0%}")

# %% [markdown]
# 0 and 8 are nearly their own mirror images. Of 3, 5 and 6 hardly one is recognised, and the network is rather sure of what it
# says instead. With `flip=0.5` you would order it to call the 2 and its mirror image, which looks much like a 5 or an S, by one
# name. Likewise a turn by 180° makes 6 and 9 the same.
#
# **Change validation or test data.** They stand for the data to come. gpunn changes [the training samples
# alone](../gpunn/data/loader.py "self._backend.run(gather_augmented, *batch, *drawn, rows, targets)"). Were the validation digits turned too, you would measure something else:

# %%
turned = gn.Augmentation(rotation=40).apply(x) / np.float32(16)
print(f"as they are {model.evaluate(x, y).accuracy:.1%}, turned by up to 40° {model.evaluate(turned, y).accuracy:.1%}")

# %% [markdown]
# **Split afterwards.** Somebody makes ten versions of each of 100 digits, stores all 1,000, and then splits at random. Now each
# validation picture has sisters in the training set. It is the leak of chapter 6 again:

# %%
few = data.train.first(100)
many = np.concatenate([augmentation.apply(few.inputs, step=step) for step in range(10)])
order = np.random.default_rng(0).permutation(1000)
labels = np.tile(few.targets, 10)[order]
stored = many[order]
leaky, _ = trained(gn.Samples(stored[:800], labels[:800], 1 / 16, 10))
own = leaky.evaluate(gn.Samples(stored[800:], labels[800:], 1 / 16, 10))
print(f"on its own “validation” pictures: {own.accuracy:.1%}")
print(f"on digits that are really new:    {leaky.evaluate(data.validation).accuracy:.1%}")

# %% [markdown]
# ## In short
#
# - New training images from old ones, another form each time; labels must stay true.
# - What is drawn must be what can occur: slanted digits yes, mirrored ones no, shifted ones only where data are shifted.
# - It helps most where data are few. Validation and test data stay as they are, and are split off first.

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. A quarter turn.** Which matrix $M$ makes `look` turn an image like `np.rot90`, counterclockwise? And what do four of them give?

# %% tags=["solution"]
quarter = turn(90)  # the places turn clockwise, what is seen there counterclockwise; y points down
assert np.allclose(look(image, quarter), np.rot90(image))
four = image
for _ in range(4):
    four = look(four, quarter)
assert np.allclose(four, image)
print(quarter.round())

# %% [markdown] tags=["exercise"]
# **2. Too much of a good thing.** Measure the mean accuracy of three seeds on 100 digits with `rotation` 0, 15, 30, 60 and 89,
# and draw it. Is the largest the best?

# %% tags=["solution"]
limits, accuracy = (0, 15, 30, 60, 89), []
for limit in limits:
    runs = [trained(data.train.first(100), gn.Augmentation(rotation=limit), seed)[1][-1] for seed in seeds]
    accuracy.append(100 * np.mean([run.validation_accuracy for run in runs]))
figure, axes = plt.subplots(figsize=(5, 2.8))
axes.plot(limits, accuracy, "o-")
axes.set(xlabel="rotation (degrees)", ylabel="right answers (%)")
plt.show()
assert max(accuracy[1], accuracy[2]) > max(accuracy[0], accuracy[4])

# %% [markdown] tags=["exercise"]
# **3. How much is cut out?** The middle of the square of `cutout=3` is drawn evenly from all 64 pixels, and a part of it may lie
# outside. Which share of the pixels becomes 0 on average? Compute it, and check it on 20,000 white images.

# %% tags=["solution"]
along = (6 * 3 + 2 * 2) / 8  # rows that are covered: 3, at both borders 2
share = along**2 / 64
white = gn.Augmentation(cutout=3).apply(np.ones((20_000, 8, 8), np.float32))
print(f"computed {share:.2%}, counted {(white == 0).mean():.2%}")
assert abs((white == 0).mean() - share) < 0.002
