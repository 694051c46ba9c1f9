"""The options of a training, written once: `Sequential.fit` documents them, experiment files hold the plain ones."""

from dataclasses import dataclass, fields
from typing import Any, Self

from gpunn.backend.base import Backend
from gpunn.config import as_part
from gpunn.data.augmentation import Augmentation
from gpunn.data.loader import checked_place
from gpunn.errors import OptionError
from gpunn.nn.arguments import checked_dtype
from gpunn.nn.losses import Loss
from gpunn.scalars import checked_seed, flag, positive_whole, real
from gpunn.train.optimizers import SGD, Optimizer, Regularizer


@dataclass(frozen=True)
class PlainOptions:
    """Numbers, texts and flags; not checked, so that a file may be read whatever it holds."""

    epochs: int = 10
    batch_size: int | None = None
    seed: int = 0
    device: str | Backend = "auto"
    dtype: str = "float32"
    precision: str = "float32"
    recompute_statistics: bool = False
    validate_every: int | None = None
    patience: float | None = None
    skip_bad_batches: bool = False
    data_on: str = "auto"


@dataclass(frozen=True)
class TrainOptions(PlainOptions):
    """All options of `Sequential.fit`, checked; parts given by class, name or table are made.

    Raises:
        OptionError: a value that cannot be.
    """

    loss: Loss | None = None
    optimizer: Optimizer = None  # type: ignore[assignment]  # SGD(0.1, momentum=0.9)
    regularizer: Regularizer | None = None
    augmentation: Augmentation | None = None
    capture: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "epochs": positive_whole(self.epochs, "epochs"),
            "seed": checked_seed(self.seed),
            "dtype": checked_dtype(self.dtype),
            "data_on": checked_place(self.data_on),
            "optimizer": _made(self.optimizer),
        }
        for name in ("recompute_statistics", "skip_bad_batches", "capture", "progress"):
            checked[name] = flag(getattr(self, name), name)
        for name in ("loss", "regularizer", "augmentation"):
            if (part := getattr(self, name)) is not None:
                checked[name] = as_part(name, part)
        for name, word in (("batch_size", "batch size"), ("validate_every", "validate_every")):
            if (number := getattr(self, name)) is not None:
                checked[name] = positive_whole(number, word)
        if self.patience is not None and not real(self.patience, "patience") > 0:
            raise OptionError(f"patience must be above 0 epochs, got {self.patience!r}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def among(cls, arguments: dict[str, Any]) -> Self:
        """Make the options from those of some arguments that are options."""
        return cls(**{each.name: arguments[each.name] for each in fields(cls) if each.name in arguments})


def _made(optimizer: Any) -> Optimizer:
    """Make the optimizer; one given by name, or not at all, is the same in every call of `fit`."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    made: Optimizer = SGD(0.1, momentum=0.9) if optimizer is None else as_part("optimizer", optimizer)
    made.identity = repr(optimizer)
    return made
