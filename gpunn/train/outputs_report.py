"""Report the metrics of outputs that are each 0 or 1, or numbers."""

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
from gpunn.train.table import HEADS, MOST_IN_FILES, MOST_ROWS, Layout, TableReport, amount, decimal, in_line, own

_ERRORS = ("output", "RMSE", "MAE", "R²")


@dataclass(frozen=True, eq=False, repr=False)
class MultilabelReport(TableReport):
    """Metrics of outputs that are each 0 or 1 by themselves, as scikit-learn defines them, with zero_division=0.

    Targets and outputs of at least ½ count as 1.

    Attributes:
        precision, recall, f1: Metrics of each output, (outputs,).
        support: Number of samples with target 1, for each output, or sum of their weights.
        auc: Area under the ROC curve of each output; NaN if all its targets are equal.
        accuracy: Share of right answers over all outputs.
        exact: Share of samples with every output right (scikit-learn's accuracy of several labels).
        micro: Precision, recall and F1 of all outputs counted together.
        macro, weighted: Mean precision, recall and F1 over the outputs, plain and weighted by support.
        total: Number of samples.
        names: Name of each output, such as the column of a table; empty without names.
        answered: Number of samples predicted as 1, for each output, or sum of their weights.
        weight: Sum of the weights of all samples; `total` without weights.
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
        """Compute the metrics from targets and outputs, probabilities (n, outputs)."""
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
        """Micro, macro and weighted average, by name."""
        return {"micro average": self.micro, "macro average": self.macro, "weighted average": self.weighted}

    def figures(self) -> dict[str, float]:
        """Return the metrics over all outputs, by their usual names."""
        several = {"all outputs right": self.exact, "mean AUC": float(self.auc.mean())}
        return {"accuracy": self.accuracy, **(several if len(self.f1) > 1 else {"AUC": float(self.auc[0])})}

    def notes(self) -> list[str]:
        """Return remarks on the metrics, a line each."""
        return [*_left_out(len(self.f1), "F1"), *own(self.metrics)]

    def rows(self, most: int = MOST_ROWS) -> list[tuple[str, ...]]:
        """Return the cells of each output; if there are more than `most`, of those with the lowest F1."""
        chosen = np.sort(np.argsort(self.f1, kind="stable")[:most])
        numbers = (self.precision, self.recall, self.f1, self.auc)
        return [(_name(self.names, k), *(decimal(v[k]) for v in numbers), amount(self.support[k])) for k in chosen]

    def _layout(self) -> Layout:
        heads = ("output", *HEADS[:3], "AUC", HEADS[3])
        total = amount(self.support.sum())
        averages = [(name, *map(decimal, vars(each).values()), "", total) for name, each in self.averages.items()]
        lines = [f"{in_line(self.figures())}; {_samples(self.total)}", *self.notes()]
        return heads, [self.rows(), averages if len(self.f1) > 1 else []], lines

    def __repr__(self) -> str:
        told = f"accuracy={self.accuracy:.4f}, macro F1={self.macro.f1:.4f}"
        return f"MultilabelReport({len(self.f1)} outputs, {self.total:,} samples, {told})"

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain values for JSON; up to 1,000 outputs."""
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
class RegressionReport(TableReport):
    """Errors of predicted numbers, as scikit-learn defines them, for each output, and their means.

    R² of an output with equal targets is 1 if the predictions equal them and else 0; of a single sample it is NaN.

    Attributes:
        rmse, mae, r2: Means over the outputs (multioutput="uniform_average").
        outputs: Errors of each output.
        together: Errors over all outputs at once, in which a large output weighs more: the RMSE and R² of `evaluate`.
        total: Number of samples.
        names: Name of each output, such as the column of a table; empty without names.
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
        """Compute the errors from targets and outputs (n, outputs)."""
        each, together = errors_of(targets, outputs, weights)
        rmse, mae, r2 = (float(np.mean([getattr(one, name) for one in each])) for name in ("rmse", "mae", "r2"))
        return cls(rmse, mae, r2, tuple(each), together, len(targets), names)

    def figures(self) -> dict[str, float]:
        """Return the means, by their usual names, without NaN."""
        told = {"RMSE": self.rmse, "MAE": self.mae, "R²": self.r2}
        return {name: value for name, value in told.items() if not math.isnan(value)}

    def notes(self) -> list[str]:
        """Return remarks on the errors, a line each."""
        return [*_left_out(len(self.outputs), "R²"), *own(self.metrics)]

    def rows(self, most: int = MOST_ROWS) -> list[tuple[str, ...]]:
        """Return the cells of each output; if there are more than `most`, of those with the lowest R²."""
        chosen = np.sort(np.argsort([each.r2 for each in self.outputs], kind="stable")[:most])
        return [_errors(_name(self.names, k), self.outputs[k]) for k in chosen]

    @property
    def averages(self) -> list[tuple[str, ...]]:
        """Cells of the mean and of all outputs together; none for one output."""
        means = Errors(self.rmse, self.mae, self.r2)
        several = [_errors("mean", means), _errors("all together", self.together)]
        return several if len(self.outputs) > 1 else []

    def _layout(self) -> Layout:
        return _ERRORS, [self.rows(), self.averages], [_samples(self.total), *self.notes()]

    def _repr_html_(self) -> str:  # its title has the number of samples
        return html_table(_ERRORS, [self.rows(), self.averages], title=repr(self), notes=self.notes())

    def __repr__(self) -> str:
        told = f"RMSE={self.rmse:.4g}, MAE={self.mae:.4g}, R²={self.r2:.4g}"
        return f"RegressionReport({len(self.outputs)} outputs, {self.total:,} samples, {told})"

    def to_dict(self) -> dict[str, Any]:
        """Return the errors as plain values for JSON; up to 1,000 outputs."""
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
