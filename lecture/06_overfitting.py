# %% [markdown]
# # 6. Validation and overfitting
#
# A network can know every answer of its training data and still have understood nothing. You will see that happen within
# seconds, read it off two curves, stop it in time, and choose hyper-parameters without fooling yourself.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn

plt.style.use("gpunn.display.lecture")

# %% [markdown]
# ## Learned by heart
#
# Take the first 100 digits of the training set, and give their labels away at random: a picture of a 3 may be called 7.
# There is nothing to understand. Can a network of 100 hidden units learn it? (Adam is gradient descent with a step size of
# its own for each weight. It learns by heart faster than plain (4), which suits us here.)

# %%
data = gn.load_data("digits", validation=400)
few = data.train.first(100)


def network(units=100):
    return gn.Sequential([gn.Flatten(), gn.Dense(units), gn.ReLU(), gn.Dense(10)])


options = {"optimizer": gn.Adam(0.01), "batch_size": 10, "epochs": 150, "validate_every": 10}
options |= {"validation_data": data.validation, "device": "cpu", "progress": False}
nonsense = gn.Samples(few.inputs, np.random.default_rng(0).permutation(few.targets), few.scale)
history = network().fit(nonsense, **options)
print(f"right in training:  {history[-1].train_accuracy:.0%}")
print(f"right on new ones:  {history[-1].validation_accuracy:.0%}")

# %% [markdown]
# It can, all of it, and on new pictures it is little better than guessing, which gives 10 %. Low training cost therefore
# proves nothing: 7,510 parameters are room enough for 100 labels. What we want is the cost on data that the network has
# *not* seen, and there is only one way to know that: keep some back.
#
# ## Three sets
#
# | set | used for | how often |
# |---|---|---|
# | **training** | gradients, and nothing else | in each step |
# | **validation** | watching, stopping, choosing hyper-parameters | as often as you like |
# | **test** | saying how good the result is | once, at the very end |
#
# gpunn splits for you, and keeps the test set closed until you ask for it.

# %%
print(f"{len(data.train):,} to train on, {len(data.validation)} to validate on")
print("the test set is open:", data.test_is_open)

# %% [markdown]
# ## Two curves
#
# Now the true labels, still 100 of them. Each record holds the cost on the training samples and on the 400 that were held
# back.

# %%
model = network()
history = model.fit(few, **options)
best, last = history.best, history[-1]
print(
    f"validation loss: lowest {best.validation_loss:.2f}, at epoch {best.epoch:.0f}; at the end {last.validation_loss:.2f}"
)
print(f"right at the end: {last.train_accuracy:.0%} in training, {last.validation_accuracy:.0%} in validation")

# %% alt="Loss over 150 epochs: in training it falls to nothing, in validation it is lowest at epoch 10 and rises by a third from then on"
figure, axes = plt.subplots(figsize=(6.5, 3.4))
axes.plot(history["epoch"], history["train_loss"], label="training")
axes.plot(history["epoch"], history["validation_loss"], label="validation")
axes.plot(best.epoch, best.validation_loss, "o", ms=10, mfc="white", mew=2, color="C2", label="lowest validation loss")
axes.set(xlabel="epoch", ylabel="loss", ylim=(0, 1.2), title="100 digits, 100 hidden units")
axes.legend()
plt.show()

# %% [markdown]
# The training loss falls from beginning to end. The validation loss falls with it at first: what is learned there holds
# for all digits. Then it turns. From the ring on the network learns what is true of these 100 pictures only. This is
# **overfitting**, or *high variance*: other 100 pictures would have given quite another network.
#
# The accuracy hardly moves meanwhile, in either direction. Is there no harm then? Look at how sure the network is.

# %%
early = network()
early.fit(few, **options, patience=15)  # puts the weights of the ring back; see below
x, y = data.validation.inputs, data.validation.targets
for name, trained in [("at the ring:     ", early), ("after 150 epochs:", model)]:
    p = trained.predict_proba(x)
    sure = p.max(axis=1)[p.argmax(axis=1) != y]
    print(f"{name} {len(sure)} mistakes, mean P {sure.mean():.0%}, more than 95 % in {(sure > 0.95).sum()} of them")

# %% [markdown]
# About as many mistakes, but made with more confidence. The cost $-\ln P$ of the true class sees that; counting right answers does
# not. If anything is to be decided by these probabilities, the second network is the worse one.
#
# ## When did it begin?
#
# A curve of real data is noisy, and a single rise means nothing. gpunn compares means over windows: it speaks of
# overfitting when the validation loss has risen by more than its noise while the training loss has fallen, [both at
# once](../gpunn/train/history.py "and rise * fall >= product * best.validation * best.training"). It only says so, and tints
# the field in `history.plot()`; a callback makes it stop.

# %%
since = history.overfitting_since
print(f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.0f}")
stopped = network().fit(few, **options, callbacks=[gn.OverfittingDetector(stop=True)])
print(f"with stop=True the training ends at epoch {stopped[-1].epoch:.0f}: {stopped.stopped}")

# %% alt="Loss on a logarithmic scale, and accuracy, as gpunn draws them: the field from epoch 10 on is tinted"
history.plot()

# %% [markdown]
# ## Early stopping
#
# Better than stopping late: go back. `EarlyStopping` waits for some epochs without a better validation loss, its
# *patience*, stops, and puts the best weights back. `fit(patience=15)` is short for it.

# %%
patient = network()
found = patient.fit(few, **options, callbacks=[gn.EarlyStopping(patience=15)])
loss = patient.evaluate(data.validation).loss
print(f"stopped at epoch {found[-1].epoch:.0f}, with the weights of epoch {found.best.epoch:.0f}")
print(f"validation loss of these weights: {loss:.2f}; after 150 epochs it was {last.validation_loss:.2f}")

# %% [markdown]
# ## The published curves
#
# M. Nielsen's book shows the same with 784-30-10 on the first 1,000 images of MNIST, for 400 epochs. His curves are
# published; gpunn's are those of `gpunn train --recipe nielsen-overfitting`, the same training from other random weights.

# %%
here = Path.cwd()
folders = [each for each in (here, *here.parents) if (each / "benchmarks" / "results").is_dir()]
assert folders, "start this chapter within gpunn's repository, which holds the curves"
curves = np.genfromtxt(folders[0] / "benchmarks/results/nielsen-curves.csv", delimiter=",", names=True)

# %% alt="Cost and accuracy of both trainings over 400 epochs: published and measured curves lie near each other; the cost on test images is lowest near epoch 15 and rises by half, the accuracy stays at 82 %"
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
for axes, measure in [(left, "loss"), (right, "accuracy")]:
    for part, colour, words in [("train", "C0", "training"), ("validation", "C1", "test images")]:
        for whose, line in [("published", (0, (4, 2))), ("gpunn", "-")]:
            values = curves[f"overfitting_{whose}_{part}_{measure}"]
            axes.plot(curves["epoch"], values, color=colour, ls=line, lw=1.6, label=f"{words}, {whose}")
    axes.set(xlabel="epoch", ylabel="cost" if measure == "loss" else "share of right answers")
left.set(title="Cost", ylim=(0, 2.5))
right.set(title="Accuracy", ylim=(0.6, 1.01))
left.legend(loc="upper right", bbox_to_anchor=(1.0, 0.62))
plt.show()

# %%
for whose in ("published", "gpunn"):
    cost = curves[f"overfitting_{whose}_validation_loss"]
    print(f"{whose:9}  lowest cost {cost.min():.2f} at epoch {cost.argmin() + 1:2}, last {cost[-1]:.2f}")

# %% [markdown]
# Two programs, two random starts, one story: the cost on images that were not seen is lowest after some 15 epochs, and
# half as high again at the end. Note what is watched here: the *test* images. The book does so, and so do the recipes that
# repeat it; their 82 % is then no honest measure, and gpunn says so when it trains them.
#
# ## Two diseases, and more data
#
# | | training | validation | name | remedy |
# |---|---|---|---|---|
# | too simple a network | bad | as bad | **high bias**, underfitting | more units, longer training |
# | too few data for the network | good | much worse | **high variance**, overfitting | more data, or chapters 7 and 8 |
#
# The gap between the curves tells which one it is. The best remedy for the second is more data:

# %%
counts, seeds = (50, 100, 200, 400, 1000), (0, 1, 2)
accuracy = {"training": [], "validation": []}
short = options | {"epochs": 30, "validate_every": 10_000}
for count in counts:
    some, results = data.train.first(count), []
    for seed in seeds:
        trained = network()
        trained.fit(some, **short, seed=seed)
        results.append([trained.evaluate(some).accuracy, trained.evaluate(data.validation).accuracy])
    for part, values in zip(accuracy, np.transpose(results), strict=True):
        accuracy[part].append(values.mean())
    print(f"{count:5} samples: {accuracy['validation'][-1]:.1%} of the validation samples, mean of 3 seeds")

# %% alt="Accuracy over the number of training samples, logarithmic: 100 % in training throughout, in validation it rises from below 80 to 98 %"
figure, axes = plt.subplots(figsize=(6.5, 3.4))
for (part, values), style in zip(accuracy.items(), ("C0o-", "C1s-"), strict=True):
    axes.semilogx(counts, values, style, label=part)
axes.fill_between(counts, *accuracy.values(), color="C1", alpha=0.08, lw=0)
axes.text(110, 0.925, "the gap: variance", color="C1")
axes.set(xlabel="training samples", ylabel="share of right answers", title="More data closes the gap", xticks=counts)
axes.set_xticks(counts, counts)
axes.minorticks_off()
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## Choosing hyper-parameters
#
# Weights are learned from the training data. What is *not* learned by gradient descent, the number of units, η, the batch
# size, when to stop, are **hyper-parameters**. Train with several, and choose on the validation set. Never by training
# cost, which would always ask for more units; never on the test set.

# %%
choices, measured = (2, 4, 8, 16, 32, 64, 128), []
short = options | {"epochs": 15, "validate_every": 40}
for units in choices:
    runs = [network(units).fit(data.train.first(400), **short, seed=seed) for seed in seeds]
    measured.append(np.mean([run.best.validation_loss for run in runs]))
    in_training = np.mean([run[-1].train_loss for run in runs])
    print(f"{units:3} units: validation loss {measured[-1]:.3f}, training loss {in_training:.3f}")
chosen = choices[int(np.argmin(measured))]
print("chosen:", chosen, "units")

# %% [markdown]
# One warning. *The best of many is luckier than it is good.* Imagine 300 networks, all of which are right in exactly 90 %
# of all cases, each measured on 144 validation samples:

# %% alt="Histogram of the accuracy of 300 equally good networks on 144 samples: it spreads from 82 to 97 %, and the best lies far above the true 90 %"
lucky = np.random.default_rng(0).binomial(144, 0.9, size=300) / 144
figure, axes = plt.subplots(figsize=(6.5, 2.8))
axes.hist(lucky, bins=np.arange(0.8, 0.985, 1 / 144) + 0.5 / 144, color="C0", alpha=0.6)
axes.axvline(0.9, color="C6", ls="--", lw=1.5, label="the truth, 90 %")
axes.axvline(lucky.max(), color="C1", lw=1.5, label=f"“our best network”, {lucky.max():.1%}")
axes.set(xlabel="share of right answers in validation", ylabel="networks", title="300 equally good networks")
axes.legend(loc="upper left")
plt.show()

# %% [markdown]
# The spread is $\sqrt{p(1-p)/n}$, here 2.5 %. Whoever chooses among many must expect the winner to be worse than it looked.
# That is why there is a third set, and why it is opened once: when everything is decided.

# %%
final = network(chosen)
final.fit(data.train, **options | {"epochs": 30, "validate_every": 26}, patience=5)
print("the test set is open:", data.test_is_open)
result = final.evaluate(data.test)
spread = np.sqrt(result.accuracy * (1 - result.accuracy) / len(data.test))
print(f"test accuracy {result.accuracy:.1%} ± {spread:.1%}, on {len(data.test)} digits; open now: {data.test_is_open}")

# %% [markdown]
# If you now go back and change something because of this number, the test set has become a validation set. In gpunn no
# training and no tuning can see it: [the test set is opened by the first access
# alone](../gpunn/data/dataset.py "if self._test is None and self._open_test is not None:").
#
# ## In short
#
# - Training cost measures memory. Validation cost measures understanding.
# - It overfits where the first still falls and the second no longer does; stop there, or go back to there.
# - Choose hyper-parameters on validation data. Open the test set once, and say how uncertain the result is.

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. How many are enough?** You want to tell a network of 98.0 % from one of 98.5 %, and want the spread of a measured
# accuracy to be at most a quarter of the difference. How many validation samples does that take? Check it by drawing.

# %% tags=["solution"]
wanted = 0.005 / 4
count = int(np.ceil(0.98 * 0.02 / wanted**2))  # from sqrt(p (1 - p) / n) = wanted
drawn = np.random.default_rng(1).binomial(count, 0.98, size=10_000) / count
print(f"{count:,} samples; spread of 10,000 drawn measurements {drawn.std():.5f}, wanted {wanted}")
assert abs(drawn.std() / wanted - 1) < 0.05

# %% [markdown] tags=["exercise"]
# **2. A leak.** Somebody joins two files, and 100 of the 400 validation samples stand in the training set too. What does the
# validation accuracy say then? Train on the 100 `few` and the first 100 validation samples, and compare the accuracy on
# these with that on the other 300.

# %% tags=["solution"]
leaky = gn.Samples(np.concatenate([few.inputs, x[:100]]), np.concatenate([few.targets, y[:100]]), few.scale)
model = network()
model.fit(leaky, **options | {"epochs": 40})
seen, new = model.evaluate(x[:100], y[:100]).accuracy, model.evaluate(x[100:], y[100:]).accuracy
print(f"leaked {seen:.0%}, new {new:.0%}, reported {model.evaluate(data.validation).accuracy:.0%}")
assert seen == 1.0
assert new < model.evaluate(data.validation).accuracy < seen

# %% [markdown] tags=["exercise"]
# **3. Loss or accuracy?** Let `EarlyStopping` watch `monitor="validation_accuracy"` in place of the loss, with a patience of
# 40 epochs. Which epoch do the weights come from, and what is their validation loss beside that of `patient`?

# %% tags=["solution"]
other = network()
stopping = gn.EarlyStopping(patience=40, monitor="validation_accuracy")
other.fit(few, **options, callbacks=[stopping])
by_accuracy, by_loss = other.evaluate(data.validation), patient.evaluate(data.validation)
print(f"by accuracy: {by_accuracy.accuracy:.1%}, loss {by_accuracy.loss:.3f}, epoch {stopping.best.epoch:.0f}")
print(f"by loss:     {by_loss.accuracy:.1%}, loss {by_loss.loss:.3f}, epoch {found.best.epoch:.0f}")
assert by_accuracy.accuracy >= by_loss.accuracy  # each is best
assert by_accuracy.loss >= by_loss.loss  # by its own measure
