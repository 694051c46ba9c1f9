"""Samples: inputs with their targets, checked once when they are made."""

import hashlib
import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.limits import require
from gpunn.data.checks import MAX_CLASSES, as_array, checked_inputs, checked_targets
from gpunn.data.memmap import Inputs, Rows, in_blocks, is_mapped
from gpunn.errors import DataError, OptionError
from gpunn.scalars import flag, real


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Inputs with their targets, batch first; a network sees `inputs * scale`.

    Args:
        inputs: (n, features), (n, height, width) or (n, height, width, channels). uint8, float32 and float64
            are kept, other numbers become float32; (n, height, width) gets one channel. A memory map stays in its
            file: rows are read when they are used.
        targets: labels, integers from 0 of shape (n,) or rows of one 1 (n, classes), kept as int32 (n,); or floats
            (n, outputs), or (n,) for one output.
        scale: what a network multiplies the inputs with (1/255 for images of bytes).
        classes: number of classes; left out, the largest label + 1. 0 for float targets.
        one_hot: whether the labels were given as rows of one 1, which BinaryCrossEntropy takes as they are.

    Raises:
        DataError: shapes that do not fit, no samples, NaN or infinity, labels that are no whole numbers
            from 0 to classes - 1.
    """

    inputs: Inputs
    targets: NDArray[Any]
    scale: float = 1.0
    classes: int = -1
    one_hot: bool = False

    def __post_init__(self) -> None:
        given = -1 if self.classes is None else self.classes
        if isinstance(given, bool) or not isinstance(given, numbers.Integral) or not -1 <= given <= MAX_CLASSES:
            raise DataError(f"classes are a number from 1, 0 for float targets, or left out, got {given!r}")
        # Rows are of an array that was checked.
        inputs = self.inputs if isinstance(self.inputs, Rows) else checked_inputs(self.inputs)
        values = as_array(self.targets, "targets")
        targets, classes = checked_targets(values, None if given == -1 else int(given))
        if len(inputs) != len(targets):
            raise DataError(
                f"inputs and targets differ in length: {len(inputs):,} inputs, {len(targets):,} targets; "
                "give one target for each input"
            )
        try:
            scale = real(self.scale, "scale")
        except OptionError:
            scale = math.nan
        if not 0 < scale < math.inf:
            raise DataError(f"scale is a finite number above 0, got {self.scale!r}: 1/255 suits images of bytes")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "classes", int(classes))
        is_matrix = values.ndim == 2 and values.shape[1] > 1  # labels in one column are no rows of one 1
        object.__setattr__(self, "one_hot", bool(classes) and (flag(self.one_hot, "one_hot") or is_matrix))
        object.__setattr__(self, "targets", targets)

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        kind = f"{self.classes} classes" if self.classes else f"{self.targets.shape[1]} float targets"
        shape = "x".join(str(size) for size in self.shape)
        return f"Samples({len(self):,} of {shape} {self.inputs.dtype}, {kind}, scale {self.scale:.4g})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return self.inputs.shape[1:]

    def subset(self, indices: ArrayLike) -> "Samples":
        """The samples at `indices` (whole numbers, or one boolean for each sample), copied but for a memory map.

        Raises:
            DataError: no index, or one that is out of range.
            MemoryShortageError: there is not memory enough for the copy.
        """
        picked = as_array(indices, "indices")
        if picked.ndim != 1 or picked.dtype.kind not in "iub" or not picked.size:
            raise DataError(f"indices are a list of whole numbers or booleans, not empty; got {described(picked)}")
        try:
            targets = self.targets[picked]
            if isinstance(self.inputs, Rows):
                inputs: Inputs = self.inputs.only(picked)
            elif is_mapped(self.inputs):
                inputs = Rows(self.inputs, np.arange(len(self))[picked])
            else:
                require(len(targets) * self.inputs[:1].nbytes, "a copy of samples")
                inputs = self.inputs[picked]
            return Samples(inputs, targets, self.scale, self.classes, self.one_hot)
        except IndexError:
            raise DataError(f"an index is out of range: there are {len(self):,} samples") from None

    def first(self, count: int) -> "Samples":
        """The first `count` samples (all of them where there are fewer), not copied.

        Raises:
            DataError: a count below 1.
        """
        if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < 1:
            raise DataError(f"a set of samples holds at least one, got first({count!r}): give a whole number")
        count = min(int(count), len(self))
        inputs = self.inputs.only(slice(count)) if isinstance(self.inputs, Rows) else self.inputs[:count]
        return Samples(inputs, self.targets[:count], self.scale, self.classes, self.one_hot)

    def as_floats(self) -> "Samples":
        """The samples with labels turned into float targets: rows of one 1, (n, classes); not copied otherwise."""
        if not self.classes:
            return self
        rows = np.zeros((len(self), self.classes), np.float32)
        rows[np.arange(len(self)), self.targets] = 1
        return Samples(self.inputs, rows, self.scale, 0)

    def class_counts(self) -> NDArray[np.int64]:
        """How many samples each class has, (classes,); empty for float targets."""
        if not self.classes:
            return np.zeros(0, dtype=np.int64)
        return np.bincount(self.targets, minlength=self.classes)

    def sha256(self) -> str:
        """Fingerprint of inputs, targets, scale and number of classes; the same on every machine."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets):
            little = array.dtype.newbyteorder("<")
            digest.update(f"{little.str} {array.shape}\n".encode())
            for _, rows in in_blocks(array):
                digest.update(np.ascontiguousarray(rows, little).data)
        digest.update(f"{self.scale.hex()} {self.classes}".encode())
        return digest.hexdigest()


def described(array: NDArray[Any]) -> str:
    """Type and shape of an array, for messages."""
    return f"{array.dtype} of shape {array.shape}"
