"""Samples: inputs with their targets, checked once when they are made."""

import hashlib
import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.data.checks import checked_inputs, checked_targets
from gpunn.data.mapped import Inputs, Rows, in_blocks, is_mapped
from gpunn.errors import DataError
from gpunn.limits import require


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Inputs with their targets, batch first; a network sees `inputs * scale`.

    Args:
        inputs: (n, features), (n, height, width) or (n, height, width, channels). uint8, float32 and float64
            are kept, other numbers become float32; (n, height, width) gets one channel. A memory map stays in its
            file: rows are read when they are used.
        targets: labels, integers from 0 of shape (n,), kept as int32; or floats (n, outputs).
        scale: what a network multiplies the inputs with (1/255 for images of bytes).
        classes: number of classes; left out, the largest label + 1. 0 for float targets.

    Raises:
        DataError: shapes that do not fit, no samples, NaN or infinity, labels that are no whole numbers
            from 0 to classes - 1.
    """

    inputs: Inputs
    targets: NDArray[Any]
    scale: float = 1.0
    classes: int = -1

    def __post_init__(self) -> None:
        # Rows are of an array that was checked.
        inputs = self.inputs if isinstance(self.inputs, Rows) else checked_inputs(self.inputs)
        targets, classes = checked_targets(self.targets, None if self.classes == -1 else self.classes)
        if len(inputs) != len(targets):
            raise DataError(
                f"inputs and targets differ in length: {len(inputs):,} inputs, {len(targets):,} targets; "
                "give one target for each input"
            )
        scale = self.scale
        if not isinstance(scale, numbers.Real) or not math.isfinite(scale) or scale <= 0:
            raise DataError(f"scale is a finite number above 0, got {scale!r}: 1/255 suits images of bytes")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "scale", float(scale))
        object.__setattr__(self, "classes", classes)

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
        picked = np.asarray(indices)
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
            return Samples(inputs, targets, self.scale, self.classes)
        except IndexError:
            raise DataError(f"an index is out of range: there are {len(self):,} samples") from None

    def first(self, count: int) -> "Samples":
        """The first `count` samples (all of them where there are fewer), not copied.

        Raises:
            DataError: a count below 1.
        """
        if count < 1:
            raise DataError(f"a set of samples holds at least one, got first({count})")
        inputs = self.inputs.only(slice(count)) if isinstance(self.inputs, Rows) else self.inputs[:count]
        return Samples(inputs, self.targets[:count], self.scale, self.classes)

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
