"""The data of one training: what is learned from, what is watched, and the test set apart."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.data.checks import as_array
from gpunn.data.samples import Samples, described
from gpunn.data.split import plain_split, stratified_split, validation_count
from gpunn.errors import DataError, OptionError, in_one_line


class Data:
    """Training, validation and test samples under one name, made by `load_data` or one's own arrays.

    Attributes:
        name: of the data set.
        train: what is learned from.
        validation: what is watched while training, or None.
        validation_is_test: the published test set is watched as validation.
        class_names: one for each class; empty for float targets.
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
        self.name = in_one_line(name)  # a file's perhaps, and so of any bytes
        self.train = train
        self.validation = validation
        self.class_names = class_names
        self.validation_is_test = validation_is_test
        self._open_test = open_test
        self._test = validation if validation_is_test else None

    def __repr__(self) -> str:
        validation = f"{len(self.validation):,}" if self.validation else "none"
        test = "none" if not self.has_test else f"{len(self._test):,}" if self._test else "not opened"
        watched = " (the test set)" if self.validation_is_test else ""
        return f"Data({self.name}: train {self.train!r}, validation {validation}{watched}, test {test})"

    @property
    def has_test(self) -> bool:
        """Whether there is a test set; asking does not open it."""
        return self._open_test is not None

    @property
    def test_is_open(self) -> bool:
        """Whether the test set has been read."""
        return self._test is not None

    @property
    def test(self) -> Samples | None:
        """The test set, opened by the first access and by nothing else; None if there is none.

        Raises:
            DataError: the test set is damaged or does not fit the training set.
        """
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
        validation: float | str = 0.1,
        limit: int | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        name: str = "arrays",
        scale: float | None = None,
    ) -> "Data":
        """Data from one's own arrays.

        Args:
            x: (n, features), (n, height, width) or (n, height, width, channels); a memory map, as np.load gives it with
                mmap_mode="r", stays in its file.
            y: labels, integers from 0 of shape (n,); or floats (n, outputs).
            test: (x, y), Samples, or a function that gives either; looked at on the first access to `.test`.
            validation: as for `load_data`.
            limit: as for `load_data`.
            seed: of the split.
            class_names: one for each class.
            name: what reports call the data.
            scale: what a network multiplies x with; left out, 1/255 for bytes and 1 for everything else.

        Raises:
            DataError: values or shapes that cannot be trained on.
            OptionError: validation, limit or seed out of range.
        """
        array = as_array(x, "inputs")
        factor = scale if scale is not None else 1 / 255 if array.dtype == np.uint8 else 1.0
        train = Samples(array, np.asarray(y), factor, -1 if class_names is None else _count(class_names, y))

        classes = train.classes

        def open_test() -> Samples:
            given = test() if callable(test) else test
            if isinstance(given, Samples):
                return given
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise DataError(f"test is (x, y) or Samples, got {type(given).__name__}")
            return Samples(given[0], np.asarray(given[1]), factor, classes)

        return cls.from_samples(
            train,
            test=None if test is None else open_test,
            validation=validation,
            limit=limit,
            seed=seed,
            class_names=class_names,
            name=name,
        )

    @classmethod
    def from_samples(
        cls,
        samples: Samples,
        *,
        test: Callable[[], Samples] | None = None,
        validation: float | str = 0.1,
        limit: int | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        name: str = "samples",
    ) -> "Data":
        """Data from samples: the first `limit` of them, split by the seed into training and validation.

        Args:
            samples: all that may be learned from or watched.
            test: a function that opens the test set; called on the first access to `.test`.
            validation: as for `load_data`.
            limit: as for `load_data`.
            seed: of the split.
            class_names: one for each class; left out, the labels themselves.
            name: what reports call the data.

        Raises:
            DataError: class names that do not fit the classes.
            OptionError: validation, limit or seed out of range; validation="test" without a test set.
        """
        names = _names(class_names, samples.classes)
        if limit is not None:
            if not isinstance(limit, numbers.Integral) or isinstance(limit, bool) or limit < 1:
                raise OptionError(f"limit is a number of training samples from 1, got {limit!r}: leave it out for all")
            if limit < len(samples):
                samples = samples.first(int(limit))
        if isinstance(validation, str):
            if validation != "test":
                validation_count(validation, len(samples))
            if test is None:
                raise OptionError(
                    f'validation="test" watches the test set, and {name} has none: give a fraction such as 0.1'
                )
            watched = _fitting(test, samples, name)
            return cls(name, samples, watched, names, test, validation_is_test=True)
        count = validation_count(validation, len(samples))
        if samples.classes:
            train, held = stratified_split(samples.targets, count, seed)
        else:
            train, held = plain_split(len(samples), count, seed)
        if not count:
            return cls(name, samples, None, names, test)
        return cls(name, samples.subset(train), samples.subset(held), names, test)


def _fitting(open_test: Callable[[], Samples], train: Samples, name: str) -> Samples:
    """The test set, if it is of the same kind as the training set."""
    try:
        test = open_test()
    except DataError as error:
        raise DataError(f"test set of {name}: {error}") from None
    if test.shape != train.shape:
        raise DataError(
            f"test set of {name}: expected inputs of shape {train.shape} as in training, got {test.shape}; "
            "prepare both in the same way"
        )
    if bool(test.classes) != bool(train.classes) or test.targets.shape[1:] != train.targets.shape[1:]:
        raise DataError(
            f"test set of {name}: expected targets like those of training ({described(train.targets[:1])} "
            f"each), got {described(test.targets[:1])}"
        )
    if test.classes > train.classes:
        raise DataError(
            f"test set of {name}: holds labels up to {test.classes - 1}, training has {train.classes} "
            "classes; give class_names that cover both"
        )
    if test.scale != train.scale:
        raise DataError(f"test set of {name}: expected scale {train.scale:g} as in training, got {test.scale:g}")
    if test.classes < train.classes:
        return Samples(test.inputs, test.targets, test.scale, train.classes)
    return test


def _count(class_names: Sequence[str], y: ArrayLike) -> int:
    """The number of classes that the names stand for; a string is no list of names."""
    if isinstance(class_names, str):
        raise DataError(f"class_names is a list of names, got the text {class_names!r}: write [{class_names!r}, ...]")
    return len(class_names) if len(class_names) or np.asarray(y).dtype.kind in "iub" else -1


def _names(class_names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    if class_names is None:
        return tuple(str(k) for k in range(classes))
    names = tuple(str(name) for name in class_names)
    if len(names) != classes:
        raise DataError(f"expected {classes} class names, one for each class, got {len(names)}")
    if not all(name.isprintable() for name in names):
        raise DataError("class names are texts of one line that can be printed: give others")
    if len(set(names)) != len(names):
        raise DataError("two classes have the same name: give each class a name of its own")
    return names
