"""Which samples are watched and which are learned from: a pure function of the labels and the seed."""

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
    """How many of `total` samples are set apart for validation.

    Args:
        validation: a fraction below 1 (float) or a count (int); 0 for none.
        total: number of samples there are.
        most: what a fraction takes at most, where each class has to keep a sample.

    Returns:
        The count, below `total`. A fraction above 0 gives at least 1, or none where that would be a single one of fewer
        than `FEW`.

    Raises:
        OptionError: neither a fraction nor a count, or nothing would be left to train on.
    """
    if isinstance(validation, numbers.Integral) and not isinstance(validation, bool):
        count = int(validation)
        if count < 0:
            raise OptionError(f"validation is a fraction, a count or 0 for none, got {count}: give 0 or more")
    elif isinstance(validation, numbers.Real) and not isinstance(validation, bool):
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
    else:
        raise OptionError(f'validation is a fraction (0.1), a count (5000), "test" or 0 for none, got {validation!r}')
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

    Args:
        labels: (n,) integers from 0.
        count: samples of the second part, below n.
        seed: whole number from 0.

    Returns:
        (training indices, validation indices), each ascending.

    Raises:
        OptionError: `count` is so large that a class would have no sample to train on; a seed below 0.
    """
    total = len(labels)
    sizes = np.bincount(labels)
    most = total - int(np.count_nonzero(sizes))
    if count > most:
        raise OptionError(
            f"validation takes {count:,} of {total:,} samples and leaves some class without one to train on: "
            f"give at most {most:,}"
        )
    quota, remainder = np.divmod(sizes.astype(np.int64) * count, total)
    by_remainder = np.argsort(-remainder, kind="stable")
    missing = count - int(quota.sum())
    # More than one pass is only needed where classes are so small that they may not give another sample.
    while missing:
        for k in by_remainder:
            if missing and quota[k] < sizes[k] - 1:
                quota[k] += 1
                missing -= 1
    shuffled = _order(total, seed)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    chosen = np.zeros(total, dtype=bool)
    for start, taken in zip(starts, quota, strict=True):
        chosen[by_class[start : start + taken]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def plain_split(total: int, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split without regard to the targets, for those that are no classes.

    Args:
        total: number of samples.
        count: samples of the second part, below `total`.
        seed: whole number from 0.

    Returns:
        (training indices, validation indices), each ascending.

    Raises:
        OptionError: a seed below 0.
    """
    return stratified_split(np.zeros(total, dtype=np.int64), count, seed)


def _order(total: int, seed: int) -> NDArray[np.int64]:
    """A permutation that is the same for ever.

    NumPy keeps the raw stream of a bit generator between versions, but not what Generator.permutation makes
    of it (NEP 19); a split that moved with an update would mix validation samples into a resumed training.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise OptionError(f"a seed is a whole number from 0, got {seed!r}")
    keys = np.random.Philox([int(seed), _PURPOSE]).random_raw(total)
    return np.argsort(keys, kind="stable")
