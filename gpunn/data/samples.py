"""Hold inputs with their targets, checked once when they are made."""

import hashlib
import numbers
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.limits import require
from gpunn.config.scalars import POSITIVE, flag, real
from gpunn.data.checks import MAX_CLASSES, as_array, checked_inputs, checked_targets, checked_weights, described
from gpunn.data.columns import Columns
from gpunn.data.memmap import Inputs, Rows, in_blocks, is_mapped
from gpunn.data.tokens import as_tokens, checked_count
from gpunn.display.html import html_table
from gpunn.errors import DataError, OptionError

ROW = ("", "shape of one", "numbers", "form", "targets", "samples", "")  # column heads of `Samples.row`


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Inputs with their targets, batch first; a network sees `inputs * scale`.

    Args:
        inputs: (n, features), (n, height, width), which gets one channel, or (n, height, width, channels). uint8,
            float32 and float64 are kept, others become float32. A memory map stays in its file, where rows are read in
            use; a CUDA array stays on its device.
        targets: Labels, integers from 0 (n,) or one-hot rows (n, classes), kept as int32 (n,); or float targets
            (n, outputs), or (n,) for one output.
        scale: Factor by which a network multiplies the inputs (1/255 for images of bytes).
        classes: Number of classes; left out, the largest label + 1. 0 for float targets.
        one_hot: Whether the labels were given as one-hot rows, which BinaryCrossEntropy takes as targets.
        weights: Weight of each sample in loss, gradient and metrics, (n,), at least 0 and not all 0, kept as float64: a
            sample of weight 2 counts as two. None where all count alike.
        from_files: Whether the inputs are image files that `load_data` resized; `predict` then resizes later ones.
        columns: Columns of the table behind the inputs and float targets; None without a table.
        tokens: Number of different tokens where the inputs are token ids for an `Embedding`, from 0 to `tokens` − 1,
            kept as bytes or int32 (n, length) and not scaled. 0 for other inputs; `fit` of such a network sets it.

    Raises:
        DataError: Shapes that do not fit, no samples, NaN or Inf, labels that are no whole numbers below `classes`,
            weights that are negative or all 0.
    """

    inputs: Inputs
    targets: NDArray[Any]
    scale: float = 1.0
    classes: int = -1
    one_hot: bool = False
    weights: NDArray[np.float64] | None = None
    from_files: bool = False
    columns: Columns | None = None
    tokens: int = 0

    def __post_init__(self) -> None:
        given = -1 if self.classes is None else self.classes
        if isinstance(given, bool) or not isinstance(given, numbers.Integral) or not -1 <= given <= MAX_CLASSES:
            raise DataError(f"classes are a number from 1, 0 for float targets, or left out, got {given!r}")
        # Rows belong to an array that was checked.
        tokens = checked_count(self.tokens)
        is_checked = isinstance(self.inputs, Rows) and self.inputs.in_file
        inputs = self.inputs if is_checked or tokens else checked_inputs(self.inputs)
        inputs = self._checked_tokens(tokens) if tokens else inputs
        values = as_array(self.targets, "targets")
        targets, classes = checked_targets(values, None if given == -1 else int(given))
        if len(inputs) != len(targets):
            counts = f"{len(inputs):,} inputs, {len(targets):,} targets"
            raise DataError(f"inputs and targets differ in length: {counts}; give one target for each input")
        try:
            scale = real(self.scale, "scale", POSITIVE)
        except OptionError:
            mend = "1/255 suits images of bytes"
            raise DataError(f"scale is a finite number above 0, got {self.scale!r}: {mend}") from None
        is_matrix = values.ndim == 2 and values.shape[1] > 1  # labels in one column are not one-hot
        one_hot = bool(classes) and (flag(self.one_hot, "one_hot") or is_matrix)
        weights = None if self.weights is None else checked_weights(self.weights, len(inputs))
        checked: dict[str, Any] = {"inputs": inputs, "targets": targets, "scale": scale, "classes": int(classes)}
        vars(self).update(checked, one_hot=one_hot, weights=weights, tokens=tokens)

    def _checked_tokens(self, tokens: int) -> Inputs:
        """Return the inputs as token ids; raise DataError if they are none, or scaled."""
        given = self.inputs if is_mapped(self.inputs) else as_array(self.inputs, "inputs")
        if given.ndim not in (2, 3, 4) or not given.size:
            mend = "x.reshape(-1, 1) makes one token of each number" if given.ndim == 1 else "give one sample at least"
            raise DataError(f"tokens are whole numbers (n, length), got shape {tuple(given.shape)}: {mend}")
        if real(self.scale, "scale") != 1:
            raise DataError(f"tokens are not scaled, got scale {self.scale!r}: leave it out")
        return as_tokens(given, tokens)

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        _, shape, dtype, form, kind, count, weighted = self.row("")
        weighted = ", weighted" if weighted else ""
        return f"Samples({count} of {shape.replace(' × ', 'x')} {dtype}, {kind}, {form}{weighted})"

    def row(self, name: str) -> tuple[str, ...]:
        """Describe the samples in a row of cells, under a name; see `ROW`."""
        kind = f"{self.classes} classes" if self.classes else f"{self.targets.shape[1]} float targets"
        shape = " × ".join(map(str, self.shape))
        weighted = "" if self.weights is None else "by weight"
        form = f"{self.tokens:,} tokens" if self.tokens else f"scale {self.scale:.4g}"
        return name, shape, self.inputs.dtype.name, form, kind, f"{len(self):,}", weighted

    def _repr_html_(self) -> str:
        return html_table(ROW, [[self.row("samples")]], texts=5)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return self.inputs.shape[1:]

    @property
    def total_weight(self) -> float:
        """Sum of the weights, or the number of samples where they have none."""
        return len(self) if self.weights is None else float(self.weights.sum())

    def subset(self, indices: ArrayLike) -> Self:
        """Return the samples at `indices` (whole numbers or a boolean mask), copied unless they are a memory map."""
        picked = as_array(indices, "indices")
        if picked.ndim != 1 or picked.dtype.kind not in "iub" or not picked.size:
            raise DataError(f"indices are a list of whole numbers or booleans, not empty; got {described(picked)}")
        try:
            targets = self.targets[picked]
            weights = None if self.weights is None else self.weights[picked]
            if isinstance(self.inputs, Rows) or is_mapped(self.inputs):
                whole = self.inputs if isinstance(self.inputs, Rows) else Rows(self.inputs, np.arange(len(self)))
                return replace(self, inputs=whole.only(picked), targets=targets, weights=weights)
            require(len(targets) * self.inputs[:1].nbytes, "a copy of samples")
            return replace(self, inputs=self.inputs[picked], targets=targets, weights=weights)
        except IndexError:
            raise DataError(f"an index is out of range: there are {len(self):,} samples") from None

    def first(self, count: int) -> Self:
        """Return the first `count` samples (all if there are fewer), not copied; raise DataError below 1."""
        if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < 1:
            raise DataError(f"a set of samples holds at least one, got first({count!r}): give a whole number")
        count = min(int(count), len(self))
        inputs = self.inputs.only(slice(count)) if isinstance(self.inputs, Rows) else self.inputs[:count]
        weights = None if self.weights is None else self.weights[:count]
        return replace(self, inputs=inputs, targets=self.targets[:count], weights=weights)

    def as_tokens(self, tokens: int) -> Self:
        """Return the samples with their inputs as unscaled token ids for an `Embedding`.

        Raises:
            DataError: Inputs other than whole numbers from 0 to `tokens` − 1, such as the scaled columns of a table.
        """
        if tokens == self.tokens:
            return self
        if (columns := self.columns) is not None and not columns.are_as_given:
            mend = 'load_data(..., scaling="none") keeps them, where all of them are numbers'
            raise DataError(f"an Embedding takes whole numbers, and these are scaled columns of a table: {mend}")
        return replace(self, scale=1.0, tokens=tokens)

    def as_floats(self) -> Self:
        """Return the samples with one-hot float targets (n, classes) instead of labels; inputs are not copied."""
        if not self.classes:
            return self
        rows = np.zeros((len(self), self.classes), np.float32)
        rows[np.arange(len(self)), self.targets] = 1
        return replace(self, targets=rows, classes=0, one_hot=False)

    def as_reconstruction(self) -> Self:
        """Return the samples with their scaled inputs as targets, flat in `Flatten`'s order, float32.

        Images (n, height, width, channels) give targets (n, channels · height · width). Columns of a table raise a
        DataError.
        """
        if self.columns is not None or self.tokens:
            got = "tokens" if self.tokens else "the columns of a table"
            raise DataError(f'task "reconstruction" learns images and arrays as they are, got {got}: leave it out')
        count = len(self) * (features := prod(self.shape))
        require(4 * count, "targets as many as the inputs")
        targets = np.empty((len(self), features), np.float32)
        for start, rows in in_blocks(self.inputs):
            values = np.multiply(rows, self.scale, dtype=np.float32)
            flat = values.transpose(0, 3, 1, 2) if values.ndim == 4 else values
            targets[start : start + len(rows)] = flat.reshape(len(rows), features)
        return replace(self, targets=targets, classes=0, one_hot=False)

    def class_counts(self) -> NDArray[np.int64]:
        """Return the number of samples of each class, (classes,); empty for float targets."""
        return np.bincount(self.targets, minlength=self.classes) if self.classes else np.zeros(0, dtype=np.int64)

    def sha256(self) -> str:
        """Return the SHA-256 of inputs, targets, weights, scale and number of classes, the same on every machine."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets, *(() if self.weights is None else (self.weights,))):
            little = array.dtype.newbyteorder("<")
            digest.update(f"{little.str} {array.shape}\n".encode())
            for _, rows in in_blocks(array):
                digest.update(np.ascontiguousarray(rows, little).data)
        digest.update(f"{self.scale.hex()} {self.classes}{f' {self.tokens}' if self.tokens else ''}".encode())
        return digest.hexdigest()
