"""Plot a search: the metric over the trials, the importance of each value, and slices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.display.style import BEST, FAINT, TRAINING, VALIDATION, picture
from gpunn.experiments.search.space import SearchPart

PICTURE = "search.png"
_MOST_SLICES = 6
_LONGEST = 28  # letters of the name of a value


def draw(
    trials: Sequence[Any], best: Any, importances: dict[str, float], names: list[str], part: SearchPart, path: Path
) -> None:
    """Draw the metric of the trials, the importance of the values, and a slice for each of the most important ones."""
    ended = [trial for trial in trials if trial.value is not None]
    shown = sorted(names, key=lambda name: -importances.get(name, 0.0))[:_MOST_SLICES]
    columns = 3
    rows = 1 + -(-len(shown) // columns)
    metric = part.metric.replace("_", " ")
    numbers, values = (np.array([getattr(t, key) for t in ended], float) for key in ("number", "value"))
    is_whole = np.array([trial.state.name == "COMPLETE" for trial in ended])
    log = bool(len(values) and (values > 0).all() and values.max() > 10 * values.min())
    title = f"Search of {len(trials)} trials, best {metric} {best.value:.4g} in trial {best.number}"
    with picture(path, 4.2 * columns, 3.4 * rows, title) as figure:
        grid = figure.add_gridspec(rows, columns)
        history = axes = figure.add_subplot(grid[0, :2] if importances else grid[0, :])
        axes.scatter(numbers[is_whole], values[is_whole], s=22, color=TRAINING, label="trial")
        if not is_whole.all():
            axes.scatter(
                numbers[~is_whole], values[~is_whole], s=22, color=FAINT, marker="x", label="ended early", zorder=1
            )
        order = np.argsort(numbers[is_whole])
        better = np.minimum if part.is_low_better else np.maximum
        axes.step(
            numbers[is_whole][order],
            better.accumulate(values[is_whole][order]),
            where="post",
            color=BEST,
            label="best so far",
        )
        axes.set(xlabel="trial", ylabel=metric)
        _scale(axes, "y", log)
        axes.grid(axis="y")
        axes.legend(loc="upper right" if part.is_low_better else "lower right")
        if importances:
            bars = figure.add_subplot(grid[0, 2])
            ranked = list(importances.items())[:_MOST_SLICES][::-1]
            bars.barh([_short(name) for name, _ in ranked], [100 * share for _, share in ranked], color=TRAINING)
            bars.set(xlabel="importance (%)", xlim=(0, 100))
        for place, name in enumerate(shown):
            axes = figure.add_subplot(grid[1 + place // columns, place % columns], sharey=history)
            _draw_slice(axes, name, ended, values, is_whole, best)
            axes.set(xlabel=_short(name))
            if place % columns == 0:
                axes.set_ylabel(metric)
            else:
                axes.tick_params(labelleft=False)
            axes.grid(axis="y")


def _draw_slice(axes: Any, name: str, ended: list[Any], values: Any, is_whole: Any, best: Any) -> None:
    having = np.array([name in trial.params for trial in ended], bool)
    chosen = [trial.params[name] for trial in ended if name in trial.params]
    spread = ended[0].distributions.get(name) if ended else None
    if labels := getattr(spread, "choices", None):
        texts = [_short(str(label)) for label in labels]
        x = np.array([list(labels).index(value) for value in chosen], float)
        look = {"rotation": 20, "ha": "right"} if sum(map(len, texts)) > 24 else {}
        axes.set_xticks(range(len(texts)), texts, **look)
        axes.set_xlim(-0.6, len(texts) - 0.4)
        at = float(list(labels).index(best.params[name]))
    else:
        x, at = np.array(chosen, float), best.params[name]
        _scale(axes, "x", getattr(spread, "log", False))
    y, whole = values[having], is_whole[having]
    axes.scatter(x[whole], y[whole], s=18, color=TRAINING)
    axes.scatter(x[~whole], y[~whole], s=18, color=FAINT, marker="x", zorder=1)
    axes.scatter([at], [best.value], s=60, facecolors="none", edgecolors=VALIDATION, linewidths=1.6)


def _scale(axes: Any, axis: str, log: bool) -> None:
    """Make an axis logarithmic with plain numbers as labels; the style switches off mathematical text."""
    if not log:
        return
    axes.set(**{f"{axis}scale": "log"})
    of = getattr(axes, f"{axis}axis")
    low, high = getattr(axes, f"get_{axis}lim")()
    of.set_major_formatter(lambda x, _: f"{x:g}")
    # With at most one power of ten on the axis, label numbers between too.
    few = np.floor(np.log10(high)) - np.ceil(np.log10(low)) < 1
    of.set_minor_formatter(lambda x, _: f"{x:g}" if few and str(f"{x:e}")[0] in "25" else "")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
