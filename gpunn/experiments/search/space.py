"""Read the search space: an experiment file with ranges, from which each trial chooses its values."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpunn.config import check_names, from_table
from gpunn.config.scalars import checked_seed, positive_whole
from gpunn.errors import OptionError
from gpunn.experiments.experiment import Experiment, errors_of, parse_experiment, read_text, table_of
from gpunn.train.stopping import EarlyStopping

_MOST_RANGES, _MOST_CHOICES = 100, 1000
_FIXED = ("version", "name", "description", "search", "start")  # keys without ranges
Number = int | float


@dataclass(frozen=True)
class Range:
    """Range of numbers from `low` to `high`, whole if both are; `log` samples uniformly in the logarithm.

    With `step`, only low, low + step and so on; `first` is the value of the first trial.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None
    first: Number | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "step", "first"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not math.isfinite(value)):
                raise OptionError(f"{name} must be a number, got {value!r}")
        if not self.low < self.high:
            raise OptionError(f"low must be below high, got {self.low!r} and {self.high!r}")
        if self.log and self.low <= 0:
            raise OptionError(f"low must be above 0 where log = true, got {self.low!r}")
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            raise OptionError(f"step must be above 0, at most high - low, and without log = true, got {self.step!r}")
        if self.first is not None and not self.low <= self.first <= self.high:
            raise OptionError(f"first must be from {self.low!r} to {self.high!r}, got {self.first!r}")

    @property
    def is_whole(self) -> bool:
        """True if the range has whole numbers only."""
        return all(isinstance(x, int) for x in (self.low, self.high, *([] if self.step is None else [self.step])))

    @property
    def ends(self) -> list[Any]:
        """Values to validate: if both ends are valid, so are all between."""
        return [self.low, self.high]

    def suggest(self, trial: Any, name: str) -> Any:
        """Let a trial of Optuna choose."""
        if self.is_whole:
            return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step or 1)
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def wanted_first(self) -> Any:
        """Return the value of the first trial; None leaves it to Optuna."""
        return self.first if self.first is None or self.is_whole else float(self.first)


@dataclass(frozen=True)
class Choice:
    """Choice among values of any type; `first` is the value of the first trial."""

    choices: tuple[Any, ...]
    first: Any = None

    def __post_init__(self) -> None:
        if not 1 < len(self.choices) <= _MOST_CHOICES:
            raise OptionError(f"choices must be 2 to {_MOST_CHOICES:,} values, got {len(self.choices)}")
        if len(set(self.labels)) < len(self.choices):
            raise OptionError("choices must differ from each other")
        if self.first is not None and _label(self.first) not in self.labels:
            raise OptionError(f"first must be one of the choices, got {self.first!r}")

    @property
    def labels(self) -> list[Any]:
        """Values as Optuna stores them: texts, numbers, booleans, and JSON of all others."""
        return [_label(value) for value in self.choices]

    @property
    def ends(self) -> list[Any]:
        """Values to validate: all."""
        return list(self.choices)

    def suggest(self, trial: Any, name: str) -> Any:
        """Let a trial of Optuna choose."""
        label = trial.suggest_categorical(name, self.labels)
        return self.choices[next(i for i, one in enumerate(self.labels) if one == label and type(one) is type(label))]

    def wanted_first(self) -> Any:
        """Return the label of the first trial; None leaves it to Optuna."""
        return None if self.first is None else _label(self.first)


def _label(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)


@dataclass(frozen=True)
class SearchPart:
    """Settings under `[search]`: how many trials, and by which metric.

    Attributes:
        trials: Total number of trials.
        metric: Metric of a record to optimize, minimized or maximized as by `EarlyStopping`: "validation_loss",
            "validation_accuracy", or one of the experiment such as "f1".
        seed: Seed of the choices; the trainings have their own.
        pruning: Whether to end a trial that is worse than the median of earlier ones at the same epoch.
        warmup: Number of records before a trial may be pruned; an epoch usually has four.
    """

    trials: int = 40
    metric: str = "validation_loss"
    seed: int = 0
    pruning: bool = True
    warmup: int = 4

    def __post_init__(self) -> None:
        positive_whole(self.trials, "trials of [search]")
        checked_seed(self.seed)
        positive_whole(self.warmup, "warmup of [search]", least=0)
        EarlyStopping(1, monitor=self.metric)  # refuses a metric without a known direction

    @property
    def is_low_better(self) -> bool:
        """True if lower values of the metric are better."""
        return EarlyStopping(1, monitor=self.metric).mode == "min"


class Space:
    """Search space of an experiment file with ranges.

    Attributes:
        ranges: Each `Range` and `Choice` by its key, such as "optimizer.learning_rate"; layers count from 1.
        search: Settings under `[search]`.
    """

    def __init__(self, text: str, where: str) -> None:
        with errors_of(where):
            table = table_of(text)
            self.search: SearchPart = from_table(SearchPart, table.pop("search", {}), "search")
            self.ranges: dict[str, Range | Choice] = {}
            self._table, self._where = self._read(table, ""), where
        if not self.ranges:
            mend = "write learning_rate = { low = 1e-3, high = 1.0, log = true }, say, or { choices = [...] }"
            raise OptionError(f"{where} leaves nothing to choose: {mend}")
        if len(self.ranges) > _MOST_RANGES:
            raise OptionError(f"{where} has {len(self.ranges)} ranges: at most {_MOST_RANGES} can be searched")
        self._check()

    @classmethod
    def read(cls, path: str) -> "Space":
        """Read a file; raise OptionError if that fails."""
        return cls(read_text(Path(path), path), path)

    def _read(self, value: Any, place: str) -> Any:
        """Return a table with its ranges parsed, and add them to `ranges`."""
        if isinstance(value, list):
            return [self._read(inner, _within(place, str(number))) for number, inner in enumerate(value, 1)]
        if not isinstance(value, dict):
            return value
        if "choices" in value or "low" in value or "high" in value:
            if place.split(".")[0] in _FIXED:
                raise OptionError(f"{place} is the same in all trials: write one value")
            try:
                kind, given = (Choice if "choices" in value else Range), dict(value)
                check_names(given, list(kind.__dataclass_fields__), place)
                if kind is Choice:
                    if not isinstance(given["choices"], list):
                        raise OptionError(f"choices must be a list, got {given['choices']!r:.80}")
                    made: Any = Choice(tuple(given["choices"]), given.get("first"))
                else:
                    for name in ("low", "high"):
                        if name not in given:
                            raise OptionError(f"{name} is missing: write {{ low = ..., high = ... }}")
                    made = from_table(Range, given, place)
            except OptionError as error:
                raise OptionError(f"{place}: {error}" if place not in str(error) else str(error)) from None
            self.ranges[place] = made
            return made
        return {name: self._read(inner, _within(place, name)) for name, inner in value.items()}

    def _check(self) -> None:
        """Raise OptionError if a value at an end of a range makes no valid experiment."""
        middle = {name: part.ends[0] for name, part in self.ranges.items()}
        for name, part in self.ranges.items():
            for value in part.ends:
                self.experiment(middle | {name: value})

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Let a trial of Optuna choose each value."""
        return {name: part.suggest(trial, name) for name, part in self.ranges.items()}

    def first(self) -> dict[str, Any]:
        """Return the values given for the first trial, by name."""
        wanted = {name: part.wanted_first() for name, part in self.ranges.items()}
        return {name: value for name, value in wanted.items() if value is not None}

    def experiment(self, values: Mapping[str, Any]) -> Experiment:
        """Make the experiment of some values; raise OptionError, which shows them, if it is invalid."""
        import tomli_w

        filled = _filled(self._table, lambda name: values[name], "")
        try:
            return parse_experiment(tomli_w.dumps(filled), self._where)
        except OptionError as error:
            raise OptionError(f"{error} (with {self.in_words(values):.200})") from None

    def in_words(self, values: Mapping[str, Any]) -> str:
        """Format values under the shortest names that are unique."""
        shown = ((self._short(name), value) for name, value in values.items())
        return ", ".join(f"{name} {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in shown)

    def _short(self, name: str) -> str:
        parts = name.split(".")
        for count in range(1, len(parts)):
            ending = ".".join(parts[-count:])
            if not parts[-count].isdigit() and sum(f".{other}".endswith(f".{ending}") for other in self.ranges) == 1:
                return ending
        return name

    def fingerprint(self) -> str:
        """Return a text that identifies the search, without its number of trials."""
        described = _filled(self._table, lambda name: repr(self.ranges[name]), "")
        part = self.search
        return json.dumps([described, part.metric, part.seed, part.pruning, part.warmup], sort_keys=True, default=str)


def _filled(value: Any, chosen: Callable[[str], Any], place: str) -> Any:
    if isinstance(value, Range | Choice):
        return copy.deepcopy(chosen(place))
    if isinstance(value, list):
        return [_filled(inner, chosen, _within(place, str(number))) for number, inner in enumerate(value, 1)]
    if isinstance(value, dict):
        return {name: _filled(inner, chosen, _within(place, name)) for name, inner in value.items()}
    return value


def _within(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
