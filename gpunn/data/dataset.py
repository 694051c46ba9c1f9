"""Hold the training, validation and test samples of a data set, and split them."""

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.config.scalars import flag
from gpunn.data.checks import as_array, as_inputs, described, scaled_as_pixels
from gpunn.data.labels import checked_names, counted_names, encode_labels
from gpunn.data.samples import ROW, Samples
from gpunn.data.table_samples import like_table, with_columns_of
from gpunn.data.tokens import checked_count
from gpunn.display.html import html_table
from gpunn.errors import DataError, OptionError, in_one_line

FEW = 20  # samples below which a fraction never holds back a single one, whose accuracy would say nothing
_SHOWN = 10  # classes that the HTML table counts
_PURPOSE = 0x5911  # separates the split from other uses of the seed, such as the initial weights


class Data:
    """Training, validation and test samples under one name, from `load_data` or your own arrays.

    Attributes:
        name: Name of the data set.
        train: Samples to learn from.
        validation: Samples to validate on while training, or None.
        validation_is_test: Whether the validation set is the published test set.
        class_names: Name of each class; empty for float targets.
        source_note: Line about the origin of the data, "" for none.
    """

    def __init__(
        self,
        name: str,
        train: Samples,
        validation: Samples | None,
        class_names: tuple[str, ...],
        open_test: Callable[[], Samples] | None = None,
        *,
        validation_is_test: bool = False,
    ) -> None:
        for given in (train, train if validation is None else validation):
            if not isinstance(given, Samples):
                mend = "use Data.from_arrays(x, y) for arrays"
                raise DataError(f"train and validation of Data are Samples, got {type(given).__name__}: {mend}")
        if open_test is not None and not callable(open_test):
            raise DataError(f"open_test of Data is a function that gives Samples, got {type(open_test).__name__}")
        self.name = in_one_line(str(name))  # may come from a file, with any bytes
        self.train, self.validation, self.class_names = train, validation, class_names
        self.validation_is_test = flag(validation_is_test, "validation_is_test")
        self._open_test, self._test = open_test, validation if validation_is_test else None
        self.source_note = ""

    def __repr__(self) -> str:
        validation = f"{len(self.validation):,}" if self.validation else "none"
        test = "none" if not self.has_test else f"{len(self._test):,}" if self._test else "not opened"
        watched = " (the test set)" if self.validation_is_test else ""
        return f"Data({self.name}: train {self.train!r}, validation {validation}{watched}, test {test})"

    def _repr_html_(self) -> str:
        rows = [self.train.row("train")]
        if self.validation is not None:
            rows.append(self.validation.row("validation"))
        if self._test is not None and not self.validation_is_test:
            rows.append(self._test.row("test"))
        elif self.has_test and not self.validation_is_test:
            rows.append(("test", *[""] * 4, "not opened", ""))
        notes = ["the test set is watched as validation set"] * self.validation_is_test
        if names := self.class_names:
            counts = self.train.class_counts()
            told = [f"{name} ({count:,})" for name, count in zip(names[:_SHOWN], counts, strict=False)]
            notes.append(f"classes, by training samples: {', '.join(told)}{', …' if len(names) > _SHOWN else ''}")
        notes += [self.source_note] if self.source_note else []
        return html_table(ROW, [rows], title=self.name, notes=notes, texts=5)

    def as_floats(self) -> "Data":
        """Return the data with one-hot float targets instead of labels; the test set stays closed."""
        return self.mapped(Samples.as_floats, ()) if self.train.classes else self

    def mapped(self, change: Callable[[Samples], Samples], class_names: tuple[str, ...]) -> "Data":
        """Return the data with `change` applied to all samples; the test set stays closed."""
        watched = None if self.validation is None else change(self.validation)
        test = (lambda: change(cast(Samples, self.test))) if self.has_test else None
        changed = (change(self.train), watched, class_names, test)
        data = Data(self.name, *changed, validation_is_test=self.validation_is_test)
        data.source_note = self.source_note
        return data

    def with_test(self, open_test: Callable[[], Samples] | None, name: str) -> "Data":
        """Return the data under another name, with a test set that the first access opens."""
        return Data(name, self.train, self.validation, self.class_names, open_test)

    def with_validation(self, validation: Any) -> "Data":
        """Return the data with other validation samples, (x, y), (x, y, weights) or Samples."""
        names, what = self.class_names or None, "validation_data"
        watched = _fitting(lambda: like(self.train, validation, names, what), self.train, self.name, "validation set")
        return Data(self.name, self.train, watched, self.class_names, self._open_test)

    @property
    def has_test(self) -> bool:
        """Return whether there is a test set, without opening it."""
        return self._open_test is not None

    @property
    def test_is_open(self) -> bool:
        """Return whether the test set has been read."""
        return self._test is not None

    @property
    def test(self) -> Samples | None:
        """Test set, opened on the first access (DataError: damaged, or of another kind); None if there is none."""
        if self._test is None and self._open_test is not None:
            self._test = _fitting(self._open_test, self.train, self.name)
        return self._test

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        *,
        test: Any = None,
        validation: Any = 0.1,
        limit: int | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        name: str = "arrays",
        scale: float | None = None,
        sample_weight: ArrayLike | None = None,
        tokens: int | None = None,
    ) -> "Data":
        """Make data from arrays.

        Args:
            x: (n, features), (n, height, width) or (n, height, width, channels); a memory map (np.load with
                mmap_mode="r") stays in its file, a CUDA array on its device.
            y: Labels, integers from 0 or texts (n,), or one-hot rows (n, classes); or float targets (n, outputs).
            test: (x, y), (x, y, weights), Samples, or a function that returns one of them; read on the first
                access to `.test`.
            validation: As for `load_data`, or your own validation samples, (x, y), (x, y, weights) or Samples.
            limit: Number of training samples to keep, before the split; left out, all.
            seed: Seed of the split.
            class_names: Name of each class; left out, the labels themselves.
            name: Name of the data in reports.
            scale: Factor by which a network multiplies x; left out, 1/255 for bytes and whole numbers from 0 to 255,
                1 / (2^bits − 1) for images of more bits, and 1 for everything else.
            sample_weight: Weight of each sample of x, (n,), at least 0; validation samples keep theirs.
            tokens: Number of different tokens where x holds token ids for an `Embedding`, which are not scaled.

        Raises:
            DataError: Values or shapes that cannot be trained on.
            OptionError: validation, limit or seed out of range.
        """
        array = as_inputs(x)
        counted, factor = checked_count(tokens), 1.0 if scale is None else scale
        inputs, factor = scaled_as_pixels(array) if scale is None and not counted else (array, factor)
        count = -1 if class_names is None else counted_names(class_names)
        y, names = encode_labels(y, class_names)
        weights = cast(Any, sample_weight)
        train = Samples(inputs, as_array(y, "targets"), factor, count, weights=weights, tokens=counted)
        opened = None if test is None else lambda: like(train, test() if callable(test) else test, names, "test")
        if isinstance(validation, tuple | list):
            own = validation
            validation = _fitting(lambda: like(train, own, names, "validation"), train, name, "validation set")
        split: dict[str, Any] = {"validation": validation, "limit": limit, "seed": seed}
        return cls.from_samples(train, test=opened, class_names=names, name=name, **split)

    @classmethod
    def from_samples(
        cls,
        samples: Samples,
        *,
        test: Callable[[], Samples] | None = None,
        validation: float | str | Samples = 0.1,
        limit: int | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        name: str = "samples",
        tokens: int | None = None,
    ) -> "Data":
        """Make data from the first `limit` samples, split by the seed into training and validation.

        Args:
            samples: Samples to split into training and validation.
            test: Function that opens the test set; called on the first access to `.test`.
            validation: As for `load_data`, or your own validation samples.
            limit: Number of samples to keep, before the split; left out, all.
            seed: Seed of the split.
            class_names: Name of each class; left out, the labels themselves.
            name: Name of the data in reports.
            tokens: Number of different tokens where the inputs are token ids for an `Embedding`; see `Samples`.

        Raises:
            DataError: Class names that do not fit the classes.
            OptionError: validation, limit or seed out of range; validation="test" without a test set.
        """
        if not isinstance(samples, Samples):
            got = type(samples).__name__
            raise DataError(f"Data.from_samples takes Samples, got {got}: Data.from_arrays(x, y) takes arrays")
        samples = samples.as_tokens(counted) if (counted := checked_count(tokens)) else samples
        names = checked_names(class_names, samples.classes)
        if limit is not None:
            if not isinstance(limit, numbers.Integral) or isinstance(limit, bool) or limit < 1:
                raise OptionError(f"limit is a number of training samples from 1, got {limit!r}: leave it out for all")
            samples = samples.first(int(limit)) if limit < len(samples) else samples
        if isinstance(validation, str) and validation == "test":
            if test is None:
                wrong = f'validation="test" watches the test set, and {name} has none'
                raise OptionError(f"{wrong}: give a fraction such as 0.1")
            return cls(name, samples, _fitting(test, samples, name), names, test, validation_is_test=True)
        if isinstance(validation, Samples):
            own = validation
            return cls(name, samples, _fitting(lambda: own, samples, name, "validation set"), names, test)
        most = len(samples) - int(np.count_nonzero(samples.class_counts())) if samples.classes else None
        count = validation_count(validation, len(samples), most)
        labels = samples.targets if samples.classes else np.zeros(len(samples), np.int64)
        kept, held = stratified_split(labels, count, seed)
        if not count:
            return cls(name, samples, None, names, test)
        for part, indices in (("training", kept), ("validation", held)):
            if samples.weights is not None and not samples.weights[indices].any():
                mend = "give some a weight above 0, or your own validation set"
                raise DataError(f"all {len(indices):,} samples that the split leaves for {part} have weight 0: {mend}")
        return cls(name, samples.subset(kept), samples.subset(held), names, test)


def like(train: Samples, given: Any, names: Sequence[str] | None, what: str) -> Samples:
    """Make samples like the training set from Samples, (x, y) or (x, y, weights); errors call them `what`."""
    if isinstance(given, Samples):
        return given
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        raise DataError(f"{what} is (x, y) or Samples, got {type(given).__name__}")
    if (samples := like_table(train, *given)) is not None:
        return samples
    targets, _ = encode_labels(given[1], checked_names(names, train.classes))
    weights = given[2] if len(given) == 3 else None
    return Samples(
        given[0], as_array(targets, "targets"), train.scale, train.classes, weights=weights, tokens=train.tokens
    )


def _fitting(open_test: Callable[[], Samples], train: Samples, name: str, what: str = "test set") -> Samples:
    """Open the test or validation set, and check that its inputs and targets match those of training."""
    try:
        test = with_columns_of(open_test(), train)
        test = test.as_tokens(train.tokens) if train.tokens else test
        if test.one_hot and not train.classes:
            test = test.as_floats()
        if test.shape != train.shape:
            got = f"{test.shape}; prepare both in the same way"
            raise DataError(f"expected inputs of shape {train.shape} as in training, got {got}")
        if bool(test.classes) != bool(train.classes) or test.targets.shape[1:] != train.targets.shape[1:]:
            own, got = described(train.targets[:1]), described(test.targets[:1])
            raise DataError(f"expected targets like those of training ({own} each), got {got}")
        if test.classes > train.classes:
            got = f"labels up to {test.classes - 1}; give class_names that cover both"
            raise DataError(f"expected labels of the {train.classes} classes of training, got {got}")
        if test.scale != train.scale:
            raise DataError(f"expected scale {train.scale:g} as in training, got {test.scale:g}")
    except DataError as error:
        raise DataError(f"{what} of {name}: {error}") from None
    return test if test.classes == train.classes else replace(test, classes=train.classes, one_hot=False)


def validation_count(validation: object, total: int, most: int | None = None) -> int:
    """Return the number of validation samples for a count below `total`, or for a fraction (1 to `most`)."""
    if isinstance(validation, bool) or not isinstance(validation, numbers.Real):
        raise OptionError(f'validation is a fraction (0.1), a count (5000), "test" or 0 for none, got {validation!r}')
    if isinstance(validation, numbers.Integral):
        count = int(validation)
        if count < 0:
            raise OptionError(f"validation is a fraction, a count or 0 for none, got {count}: give 0 or more")
    elif not 0 <= (fraction := float(validation)) < 1:
        mend = "give a fraction such as 0.1, or a whole number for a count"
        raise OptionError(f"validation as a fraction lies from 0 to below 1, got {fraction:g}: {mend}")
    elif not fraction or (total < FEW and fraction * total < 2):
        return 0
    else:
        count = max(1, math.floor(fraction * total + 0.5))
        count = count if most is None or count >= total else min(count, most)
    if count >= total:
        mend = f"give a count below {total:,}, a fraction, or 0 for none"
        wrong = f"validation takes {count:,} of {total:,} training samples and leaves none to train on"
        raise OptionError(f"{wrong}: {mend}")
    return count


def stratified_split(labels: NDArray[np.integer], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split samples so that both parts keep the proportions of the classes, to one sample a class.

    Class k gives floor(n_k count / n) samples, and one more where its remainder is among the largest, until `count` are
    reached (the lower class first among equals). Every class keeps a training sample. Returns ascending (training,
    validation) indices.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise OptionError(f"a seed is a whole number from 0, got {seed!r}")
    total, sizes = len(labels), np.bincount(labels)
    if count > (most := total - int(np.count_nonzero(sizes))):
        wrong = f"validation takes {count:,} of {total:,} samples and leaves some class without one to train on"
        raise OptionError(f"{wrong}: give at most {most:,}")
    quota, remainder = np.divmod(sizes.astype(np.int64) * count, total)
    missing = count - int(quota.sum())
    # A second pass is needed only where classes are too small to give another sample.
    while missing:
        for k in np.argsort(-remainder, kind="stable"):
            if missing and quota[k] < sizes[k] - 1:
                quota[k] += 1
                missing -= 1
    # A permutation that never changes: NumPy keeps the raw stream of a bit generator between versions, but not
    # Generator.permutation (NEP 19), and another split would mix validation samples into a resumed training.
    shuffled = np.argsort(np.random.Philox([int(seed), _PURPOSE]).random_raw(total), kind="stable")
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    chosen = np.zeros(total, dtype=bool)
    for start, taken in zip(np.cumsum(sizes) - sizes, quota, strict=True):
        chosen[by_class[start : start + taken]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
