"""Split samples into those to learn from and those to validate on: a pure function of the labels and the seed."""

import math
import numbers

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import OptionError

FEW = 20
"""Samples below which a fraction that would hold back a single one holds back none: it would say nothing."""

# Set apart from the other uses of a seed, so that a split and, say, the initial weights are independent.
_PURPOSE = 0x5911


def validation_count(validation: object, total: int, most: int | None = None) -> int:
    """Return the number of validation samples among `total`, below it: a count, or a fraction of them up to `most`.

    A fraction above 0 gives at least 1, or none where that would be a single one of fewer than `FEW`.
    """
    if isinstance(validation, bool) or not isinstance(validation, numbers.Real):
        raise OptionError(f'validation is a fraction (0.1), a count (5000), "test" or 0 for none, got {validation!r}')
    if isinstance(validation, numbers.Integral):
        count = int(validation)
        if count < 0:
            raise OptionError(f"validation is a fraction, a count or 0 for none, got {count}: give 0 or more")
    else:
        fraction = float(validation)
        if not 0 <= fraction < 1:
            raise OptionError(
                f"validation as a fraction lies from 0 to below 1, got {fraction:g}: give a fraction such as "
                "0.1, or a whole number for a count"
            )
        count = max(1, math.floor(fraction * total + 0.5)) if fraction > 0 else 0
        if total < FEW and fraction * total < 2:
            count = 0
        elif most is not None and count < total:
            count = min(count, most)
    if count >= total:
        raise OptionError(
            f"validation takes {count:,} of {total:,} training samples and leaves none to train on: give a "
            f"count below {total:,}, a fraction, or 0 for none"
        )
    return count


def stratified_split(labels: NDArray[np.integer], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split so that both parts hold the classes in the proportions of the whole, to one sample a class.

    Class k gives floor(n_k count / n) samples; what is missing to `count` goes to the largest remainders
    (the lower class first among equals). Every class keeps at least one sample to train on.

    Returns:
        (training indices, validation indices), each ascending.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise OptionError(f"a seed is a whole number from 0, got {seed!r}")
    total, sizes = len(labels), np.bincount(labels)
    most = total - int(np.count_nonzero(sizes))
    if count > most:
        raise OptionError(
            f"validation takes {count:,} of {total:,} samples and leaves some class without one to train on: "
            f"give at most {most:,}"
        )
    quota, remainder = np.divmod(sizes.astype(np.int64) * count, total)
    missing = count - int(quota.sum())
    # More than one pass is only needed where classes are so small that they may not give another sample.
    while missing:
        for k in np.argsort(-remainder, kind="stable"):
            if missing and quota[k] < sizes[k] - 1:
                quota[k] += 1
                missing -= 1
    # A permutation that is the same for ever: NumPy keeps the raw stream of a bit generator between versions, but not
    # Generator.permutation (NEP 19), and another split would mix validation samples into a resumed training.
    shuffled = np.argsort(np.random.Philox([int(seed), _PURPOSE]).random_raw(total), kind="stable")
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    chosen = np.zeros(total, dtype=bool)
    for start, taken in zip(np.cumsum(sizes) - sizes, quota, strict=True):
        chosen[by_class[start : start + taken]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
