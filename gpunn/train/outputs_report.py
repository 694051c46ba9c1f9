"""Reports on outputs that are answers by themselves: 0 or 1, or numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.display.html import html_table
from gpunn.errors import in_one_line
from gpunn.nn.tasks import shown
from gpunn.train.metrics import Average, Counts, Errors, Weights, errors_of, mean, roc_auc
from gpunn.train.table import HEADS, MOST_IN_FILES, MOST_ROWS, amount, decimal, in_line, own, table, with_notes

_ERRORS = ("output", "RMSE", "MAE", "R²")


@dataclass(frozen=True, eq=False, repr=False)
class MultilabelReport:
    """Metrics of outputs that are each 0 or 1 by themselves, as scikit-learn defines them, with zero_division=0.

    A target counts as 1 from ½ on, and so does an output.

    Attributes:
        precision, recall, f1: Of each output, (outputs,).
        support: Number of samples whose target is 1, of each output, or the sum of their weights.
        auc: Area under the ROC curve of each output; NaN where all targets are equal.
        accuracy: Share of right answers over all outputs.
        exact: Share of samples with every output right (scikit-learn's accuracy of several labels).
        micro: Precision, recall and F1 of all outputs counted together.
        macro, weighted: Their means over the outputs, and weighted by support.
        total: Number of samples.
        names: Name of each output, such as the column of a table; empty where they have none.
        answered: Number of samples whose output is 1, of each output, or the sum of their weights.
        weight: Sum of the weights of all samples, `total` where they have none.
        metrics: Metrics of your own, by name.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[Any]
    auc: NDArray[np.float64]
    accuracy: float
    exact: float
    micro: Average
    macro: Average
    weighted: Average
    total: int
    names: tuple[str, ...] = ()
    answered: NDArray[Any] | None = None
    weight: float = math.nan
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, targets: NDArray[Any], outputs: NDArray[Any], weights: Weights = None, names: tuple[str, ...] = ()
    ) -> "MultilabelReport":
        """Compute the metrics of outputs, probabilities (n, outputs)."""
        counts, columns = Counts.of_outputs(targets, outputs, weights), range(targets.shape[1])
        right = (targets >= 0.5) == (outputs >= 0.5)
        areas = [roc_auc(targets[:, k] >= 0.5, outputs[:, k], weights) for k in columns]
        return cls(
            *(counts.precision, counts.recall, counts.f1, counts.support),
            auc=np.array(areas),
            accuracy=mean(right.mean(axis=1), weights),
            exact=mean(right.all(axis=1), weights),
            micro=counts.micro(),
            macro=counts.average(np.ones(len(columns))),
            weighted=counts.average(counts.support),
            total=len(targets),
            names=names,
            answered=counts.predicted,
            weight=len(targets) if weights is None else float(weights.sum()),
        )

    @property
    def averages(self) -> Mapping[str, Average]:
        """The averages by name."""
        return {"micro average": self.micro, "macro average": self.macro, "weighted average": self.weighted}

    def figures(self) -> dict[str, float]:
        """Return the figures over all outputs, by their names for people."""
        several = {"all outputs right": self.exact, "mean AUC": float(self.auc.mean())}
        return {"accuracy": self.accuracy, **(several if len(self.f1) > 1 else {"AUC": float(self.auc[0])})}

    def notes(self) -> list[str]:
        """Return what is to be known of the numbers, a line each."""
        return [*_left_out(len(self.f1), "F1"), *own(self.metrics)]

    def rows(self, most: int = MOST_ROWS) -> list[tuple[str, ...]]:
        """Return the cells of each output, those of lowest F1 where there are more than `most`."""
        chosen = np.sort(np.argsort(self.f1, kind="stable")[:most])
        numbers = (self.precision, self.recall, self.f1, self.auc)
        return [(_name(self.names, k), *(decimal(v[k]) for v in numbers), amount(self.support[k])) for k in chosen]

    def _laid_out(self) -> tuple[tuple[str, ...], list[list[tuple[str, ...]]], list[str]]:
        """Return heads, groups of rows, and the lines below them."""
        heads = ("output", *HEADS[:3], "AUC", HEADS[3])
        total = amount(self.support.sum())
        averages = [(name, *map(decimal, vars(each).values()), "", total) for name, each in self.averages.items()]
        lines = [f"{in_line(self.figures())}; {_samples(self.total)}", *self.notes()]
        return heads, [self.rows(), averages if len(self.f1) > 1 else []], lines

    def table(self, width: int = 80) -> str:
        """Write the metrics of each output, by name or counted from 1, and averages, in at most so many columns."""
        heads, groups, lines = self._laid_out()
        return with_notes(table(heads, groups, width), lines, width)

    def _repr_html_(self) -> str:
        heads, groups, lines = self._laid_out()
        return html_table(heads, groups, title=repr(self), notes=lines)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        told = f"accuracy={self.accuracy:.4f}, macro F1={self.macro.f1:.4f}"
        return f"MultilabelReport({len(self.f1)} outputs, {self.total:,} samples, {told})"

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as what JSON takes; each output up to 1,000."""
        names = ("precision", "recall", "f1", "support", "auc")
        each = [{name: getattr(self, name)[k].item() for name in names} for k in range(len(self.f1))]
        each = _named(self.names, each)
        return {
            "samples": self.total,
            "accuracy": self.accuracy,
            "exact": self.exact,
            **{name: asdict(getattr(self, name)) for name in ("micro", "macro", "weighted")},
            "outputs": each if len(each) <= MOST_IN_FILES else None,
            **({"metrics": dict(self.metrics)} if self.metrics else {}),
        }


@dataclass(frozen=True, eq=False, repr=False)
class RegressionReport:
    """Errors of numbers, as scikit-learn defines them: each output's, and their means.

    R² is 0 where all targets of an output are equal, or 1 if the answers are too, and NaN for a single sample.

    Attributes:
        rmse, mae, r2: Means over the outputs (multioutput="uniform_average"); of one output, its own.
        outputs: Errors of each output.
        together: Errors over all outputs at once, in which a large output weighs more: the RMSE and R² of `evaluate`.
        total: Number of samples.
        names: Name of each output, such as the column of a table; empty where they have none.
        metrics: Metrics of your own, by name.
    """

    rmse: float
    mae: float
    r2: float
    outputs: tuple[Errors, ...]
    together: Errors
    total: int
    names: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, targets: NDArray[Any], outputs: NDArray[Any], weights: Weights = None, names: tuple[str, ...] = ()
    ) -> "RegressionReport":
        """Compute the errors of outputs (n, outputs)."""
        each, together = errors_of(targets, outputs, weights)
        rmse, mae, r2 = (float(np.mean([getattr(one, name) for one in each])) for name in ("rmse", "mae", "r2"))
        return cls(rmse, mae, r2, tuple(each), together, len(targets), names)

    def figures(self) -> dict[str, float]:
        """Return the means that apply, by their names for people."""
        told = {"RMSE": self.rmse, "MAE": self.mae, "R²": self.r2}
        return {name: value for name, value in told.items() if not math.isnan(value)}

    def notes(self) -> list[str]:
        """Return what is to be known of the numbers, a line each."""
        return [*_left_out(len(self.outputs), "R²"), *own(self.metrics)]

    def rows(self, most: int = MOST_ROWS) -> list[tuple[str, ...]]:
        """Return the cells of each output, those of lowest R² where there are more than `most`."""
        chosen = np.sort(np.argsort([each.r2 for each in self.outputs], kind="stable")[:most])
        return [_errors(_name(self.names, k), self.outputs[k]) for k in chosen]

    @property
    def averages(self) -> list[tuple[str, ...]]:
        """The cells of what is over several outputs."""
        means = Errors(self.rmse, self.mae, self.r2)
        several = [_errors("mean", means), _errors("all together", self.together)]
        return several if len(self.outputs) > 1 else []

    def table(self, width: int = 80) -> str:
        """Write the errors of each output, by name or counted from 1, and over all, in at most so many columns."""
        lines = [_samples(self.total), *self.notes()]
        return with_notes(table(_ERRORS, [self.rows(), self.averages], width), lines, width)

    def _repr_html_(self) -> str:
        return html_table(_ERRORS, [self.rows(), self.averages], title=repr(self), notes=self.notes())

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        told = f"RMSE={self.rmse:.4g}, MAE={self.mae:.4g}, R²={self.r2:.4g}"
        return f"RegressionReport({len(self.outputs)} outputs, {self.total:,} samples, {told})"

    def to_dict(self) -> dict[str, Any]:
        """Return the errors as what JSON takes; each output up to 1,000."""
        each = _named(self.names, [asdict(one) for one in self.outputs])
        errors = {"rmse": self.rmse, "mae": self.mae, "r2": self.r2}
        listed = each if len(each) <= MOST_IN_FILES else None
        more = {"metrics": dict(self.metrics)} if self.metrics else {}
        return {"samples": self.total, **errors, "together": asdict(self.together), "outputs": listed, **more}


def _name(names: Sequence[str], output: int) -> str:
    return names[output] if names else str(output + 1)


def _named(names: Sequence[str], each: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": in_one_line(name), **one} for name, one in zip(names, each, strict=True)] if names else each


def _errors(name: str, errors: Errors) -> tuple[str, ...]:
    return name, *(_number(value) for value in (errors.rmse, errors.mae, errors.r2))


def _number(value: float) -> str:
    return "–" if math.isnan(value) else shown("error", value)


def _samples(count: int) -> str:
    return f"{count:,} sample{'s' if count != 1 else ''}"


def _left_out(count: int, by: str) -> list[str]:
    return [f"the table shows the {MOST_ROWS} outputs of lowest {by} of {count:,}"] if count > MOST_ROWS else []
