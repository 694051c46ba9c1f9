"""Compare rules that suggest learning rates: accuracy at their rates, below the best of a sweep, as a table.

python benchmarks/learning_rates.py [TASK...] [--seeds 0,1]

For each task the rates 10^-3.75 to 10, four a decade, are trained with; between these the accuracy of a suggestion is
interpolated. The table shows the suggested rates of the seeds, and after them the mean loss of points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.errors import DivergenceError
from gpunn.experiments.experiment import read_experiment
from gpunn.train import lr_finder
from gpunn.train.arguments import TrainOptions
from gpunn.train.lr_finder import Losses, Rising, smoothed, try_rates

RATES = 10.0 ** np.arange(-3.75, 1.01, 0.25)
Task = Callable[[int, "float | None"], Any]  # of a seed: the losses at rising rates, or accuracy (R²) at one rate


def recipe(name: str, source: str, limit: int | None, epochs: int) -> Task:
    """Make a task of a recipe, on the first `limit` samples of which at most 1,000 validate."""

    def task(seed: int, rate: float | None) -> Any:
        experiment = read_experiment(name).with_options(data=source, epochs=epochs, seed=seed, device="cpu")
        part = replace(experiment.data, limit=limit, validation=0.1 if limit is None else 1000)
        experiment = replace(experiment, data=part)
        data = experiment.load_data()
        if rate is None:
            return try_rates(experiment.model(data), experiment.options(data, progress=False), data, None, RISE)
        return reached(experiment.with_options(learning_rate=rate).trainer(data, progress=False).run)

    return task


def fit(layers: Callable[[], Any], optimizer: Callable[[float], Any], data: Callable[[int], Any], epochs: int) -> Task:
    """Make a task of a call of `fit` at a constant rate."""

    def task(seed: int, rate: float | None) -> Any:
        model, given, options = gn.Sequential(layers()), data(seed), {"seed": seed, "device": "cpu", "progress": False}
        if rate is None:
            return try_rates(model, TrainOptions(optimizer=optimizer(1.0), **options), given, None, RISE)
        return reached(lambda: model.fit(given, optimizer=optimizer(rate), epochs=epochs, **options))

    return task


def reached(training: Callable[[], gn.History]) -> float:
    """Return the accuracy, or R², on the validation set at the end; that of chance where it diverged."""
    try:
        last = training()[-1]
    except DivergenceError:
        return 0.1
    return last.validation_r2 if np.isnan(last.validation_accuracy) else last.validation_accuracy


def regression(seed: int) -> gn.Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1500, 8))
    y = np.tanh(x @ rng.normal(size=(8, 3))) @ rng.normal(size=(3, 1)) + 0.1 * rng.normal(size=(1500, 1))
    return gn.Data.from_arrays(x, y, seed=seed)


RISE = Rising(lr_finder.LOWEST, lr_finder.HIGHEST, lr_finder.STEPS)
OPTIMIZERS = {"SGD": gn.SGD, "momentum": lambda rate: gn.SGD(rate, 0.9), "Adam": gn.Adam, "AdamW": gn.AdamW}
DENSE = lambda: [gn.Dense(128), gn.ReLU(), gn.Dense(10)]  # noqa: E731
NUMBERS = lambda: [gn.Dense(64), gn.Tanh(), gn.Dense(1)]  # noqa: E731
DIGITS = lambda seed: gn.load_data("digits", seed=seed)  # noqa: E731
MNIST = lambda seed: gn.load_data("mnist", limit=6000, validation=1000, seed=seed)  # noqa: E731
FEW = lambda seed: gn.load_data("digits", limit=100, validation=40, seed=seed)  # noqa: E731
TASKS: dict[str, Task] = {
    "mlp digits": recipe("mlp", "digits", None, 12),
    "mlp mnist": recipe("mlp", "mnist", 6000, 6),
    "lenet-digits": recipe("lenet-digits", "digits", None, 6),
    "lenet mnist": recipe("lenet", "mnist", 3000, 4),
    "lenet-bn mnist": recipe("lenet-bn", "mnist", 3000, 3),
    "fast99 mnist": recipe("fast99", "mnist", 3000, 2),
    "nielsen-100 mnist": recipe("nielsen-100", "mnist", 3000, 5),
    "nielsen-overfitting": recipe("nielsen-overfitting", "mnist", 2000, 10),
    **{f"128 digits {name}": fit(DENSE, make, DIGITS, 10) for name, make in OPTIMIZERS.items()},
    **{f"128 mnist {name}": fit(DENSE, make, MNIST, 4) for name, make in OPTIMIZERS.items()},
    **{f"numbers {name}": fit(NUMBERS, OPTIMIZERS[name], regression, 20) for name in ("momentum", "Adam")},
    "60 digits Adam": fit(DENSE, gn.Adam, FEW, 60),
}


def means_of(seen: Losses) -> Any:
    return smoothed(np.minimum(seen.losses, seen.losses[: max(1, len(seen.losses) // 10)].max()), seen.sizes)


def end_of_fall(share: float) -> Callable[[Losses], float]:
    def rule(seen: Losses) -> float:
        means, start = means_of(seen), seen.losses[: max(1, len(seen.losses) // 10)].mean()
        return float(seen.rates[np.argmax(means <= start - share * (start - means.min()))])

    return rule


def steepest(seen: Losses) -> float:
    means = means_of(seen)
    return float(seen.rates[np.gradient(means, np.log(seen.rates))[: max(2, int(means.argmin()) + 1)].argmin()])


def valley(seen: Losses) -> float:
    """Return the rate in the middle third of the longest falling subsequence, as fastai's `valley` does."""
    means, lengths = means_of(seen), np.ones(len(seen.losses), int)
    for i in range(1, len(means)):
        lengths[i] += max((lengths[j] for j in range(i) if means[j] > means[i]), default=0)
    end = int(lengths.argmax())
    return float(seen.rates[max(0, end - lengths[end] + lengths[end] // 3 + lengths[end] // 6)])


RULES: dict[str, Callable[[Losses], float]] = {
    "97 % of the fall": end_of_fall(lr_finder.SHARE),
    "90 %": end_of_fall(0.9),
    "lowest / 10": lambda seen: float(seen.rates[means_of(seen).argmin()]) / 10,
    "steepest": steepest,
    "valley": valley,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"left out, all of {', '.join(TASKS)}")
    parser.add_argument("--seeds", default="0,1")
    options = parser.parse_args()
    seeds, lost = list(map(int, options.seeds.split(","))), {name: [] for name in RULES}
    print(f"| task | best, at | within 1 point | {' | '.join(RULES)} |\n|{'---|' * (3 + len(RULES))}", flush=True)
    for name in options.tasks or TASKS:
        accuracy = np.mean([[TASKS[name](seed, rate) for rate in RATES] for seed in seeds], axis=0)
        curves, good = [TASKS[name](seed, None) for seed in seeds], RATES[accuracy >= accuracy.max() - 0.01]
        cells = [f"{100 * accuracy.max():.1f} %, {RATES[accuracy.argmax()]:.2g}", f"{good[0]:.2g} to {good[-1]:.2g}"]
        for rule, suggest in RULES.items():
            rates = [suggest(curve) for curve in curves]
            points = 100 * (accuracy.max() - np.interp(np.log(rates), np.log(RATES), accuracy))
            lost[rule] += list(points)
            cells.append(f"{', '.join(f'{rate:.2g}' for rate in rates)}: {points.mean():.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for words, figure in (("mean", np.mean), ("worst", np.max)):
        print(f"| points lost, {words} | | | {' | '.join(f'{figure(points):.1f}' for points in lost.values())} |")


if __name__ == "__main__":
    main()
