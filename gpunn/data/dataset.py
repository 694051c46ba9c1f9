"""The data of one training: samples to learn from, to validate on, and the test set apart."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.data.checks import as_array, numbered, scaled_as_pixels
from gpunn.data.samples import Samples, described
from gpunn.data.split import stratified_split, validation_count
from gpunn.errors import DataError, OptionError, in_one_line
from gpunn.scalars import flag


class Data:
    """Training, validation and test samples under one name, made by `load_data` or one's own arrays.

    Attributes:
        name: Name of the data set.
        train: Samples to learn from.
        validation: Samples to validate on while training, or None.
        validation_is_test: Whether these are the published test set.
        class_names: Name of each class; empty for float targets.
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
                raise DataError(
                    f"train and validation of Data are Samples, got {type(given).__name__}: use Data.from_arrays(x, y) "
                    "for arrays"
                )
        if open_test is not None and not callable(open_test):
            raise DataError(f"open_test of Data is a function that gives Samples, got {type(open_test).__name__}")
        self.name = in_one_line(str(name))  # a file's perhaps, and so of any bytes
        self.train, self.validation, self.class_names = train, validation, class_names
        self.validation_is_test = flag(validation_is_test, "validation_is_test")
        self._open_test = open_test
        self._test = validation if validation_is_test else None

    def __repr__(self) -> str:
        validation = f"{len(self.validation):,}" if self.validation else "none"
        test = "none" if not self.has_test else f"{len(self._test):,}" if self._test else "not opened"
        watched = " (the test set)" if self.validation_is_test else ""
        return f"Data({self.name}: train {self.train!r}, validation {validation}{watched}, test {test})"

    def as_floats(self) -> "Data":
        """Return the data with labels as float targets, rows of one 1; the test set is opened no sooner."""
        if not self.train.classes:
            return self

        def open_test() -> Samples:
            assert self.test is not None
            return self.test.as_floats()

        watched = None if self.validation is None else self.validation.as_floats()
        test = open_test if self.has_test else None
        return Data(self.name, self.train.as_floats(), watched, (), test, validation_is_test=self.validation_is_test)

    def with_validation(self, validation: Any) -> "Data":
        """Return the data with other validation samples, (x, y) or Samples."""
        names, what = self.class_names or None, "validation_data"
        watched = _fitting(lambda: like(self.train, validation, names, what), self.train, self.name, "validation set")
        return Data(self.name, self.train, watched, self.class_names, self._open_test)

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
        """Test set, opened by the first access and by nothing else; None if there is none.

        Raises:
            DataError: The test set is damaged or does not fit the training set.
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
        """Make data from one's own arrays.

        Args:
            x: (n, features), (n, height, width) or (n, height, width, channels); a memory map, as np.load gives it with
                mmap_mode="r", stays in its file.
            y: Labels, integers from 0 of shape (n,), texts, or rows of one 1 (n, classes); or floats (n, outputs).
            test: (x, y), Samples, or a function that gives either; looked at on the first access to `.test`.
            validation: As for `load_data`.
            limit: As for `load_data`.
            seed: Seed of the split.
            class_names: Name of each class; left out, the labels themselves.
            name: Name of the data in reports.
            scale: Factor by which a network multiplies x; left out, 1/255 for bytes and other whole numbers from 0 to
                255, 1 over the most of their bits for those of images of more, and 1 for everything else.

        Raises:
            DataError: Values or shapes that cannot be trained on.
            OptionError: validation, limit or seed out of range.
        """
        array = as_array(x, "inputs")
        inputs, factor = scaled_as_pixels(array) if scale is None else (array, scale)
        count = -1 if class_names is None else _count(class_names)
        y, names = numbered(y, class_names)
        train = Samples(inputs, as_array(y, "targets"), factor, count)

        def open_test() -> Samples:
            return like(train, test() if callable(test) else test, names, "test")

        return cls.from_samples(
            train,
            test=None if test is None else open_test,
            validation=validation,
            limit=limit,
            seed=seed,
            class_names=names,
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
        """Make data from samples: the first `limit` of them, split by the seed into training and validation.

        Args:
            samples: All samples to learn from or to validate on.
            test: Function that opens the test set; called on the first access to `.test`.
            validation: As for `load_data`.
            limit: As for `load_data`.
            seed: Seed of the split.
            class_names: Name of each class; left out, the labels themselves.
            name: Name of the data in reports.

        Raises:
            DataError: Class names that do not fit the classes.
            OptionError: validation, limit or seed out of range; validation="test" without a test set.
        """
        if not isinstance(samples, Samples):
            raise DataError(
                f"Data.from_samples takes Samples, got {type(samples).__name__}: Data.from_arrays(x, y) takes arrays"
            )
        names = _names(class_names, samples.classes)
        if limit is not None:
            if not isinstance(limit, numbers.Integral) or isinstance(limit, bool) or limit < 1:
                raise OptionError(f"limit is a number of training samples from 1, got {limit!r}: leave it out for all")
            if limit < len(samples):
                samples = samples.first(int(limit))
        if isinstance(validation, str) and validation == "test":
            if test is None:
                raise OptionError(
                    f'validation="test" watches the test set, and {name} has none: give a fraction such as 0.1'
                )
            return cls(name, samples, _fitting(test, samples, name), names, test, validation_is_test=True)
        most = len(samples) - int(np.count_nonzero(samples.class_counts())) if samples.classes else None
        count = validation_count(validation, len(samples), most)
        labels = samples.targets if samples.classes else np.zeros(len(samples), np.int64)
        train, held = stratified_split(labels, count, seed)
        if not count:
            return cls(name, samples, None, names, test)
        return cls(name, samples.subset(train), samples.subset(held), names, test)


def like(train: Samples, given: Any, names: Sequence[str] | None, what: str) -> Samples:
    """Return Samples, or (x, y) as samples of the kind of the training set; messages call them `what`."""
    if isinstance(given, Samples):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"{what} is (x, y) or Samples, got {type(given).__name__}")
    targets, _ = numbered(given[1], _names(names, train.classes))
    return Samples(given[0], as_array(targets, "targets"), train.scale, train.classes)


def _fitting(open_test: Callable[[], Samples], train: Samples, name: str, what: str = "test set") -> Samples:
    """Open the test set, or another, and check that it is of the same kind as the training set."""
    try:
        test = open_test()
        if test.one_hot and not train.classes:
            test = test.as_floats()
        expected = ""
        if test.shape != train.shape:
            expected = f"inputs of shape {train.shape} as in training, got {test.shape}; prepare both in the same way"
        elif bool(test.classes) != bool(train.classes) or test.targets.shape[1:] != train.targets.shape[1:]:
            own, got = described(train.targets[:1]), described(test.targets[:1])
            expected = f"targets like those of training ({own} each), got {got}"
        elif test.classes > train.classes:
            expected = (
                f"labels of the {train.classes} classes of training, got labels up to {test.classes - 1}; "
                "give class_names that cover both"
            )
        elif test.scale != train.scale:
            expected = f"scale {train.scale:g} as in training, got {test.scale:g}"
        if expected:
            raise DataError(f"expected {expected}")
    except DataError as error:
        raise DataError(f"{what} of {name}: {error}") from None
    return test if test.classes == train.classes else Samples(test.inputs, test.targets, test.scale, train.classes)


def _count(class_names: Sequence[str]) -> int:
    """Return the number of classes, -1 where no names are given; a string is no list of names."""
    if isinstance(class_names, str):
        raise DataError(f"class_names is a list of names, got the text {class_names!r}: write [{class_names!r}, ...]")
    is_list = isinstance(class_names, Sequence) or getattr(class_names, "ndim", 0) == 1
    if not is_list or any(isinstance(name, list | tuple | np.ndarray) for name in class_names):
        raise DataError(f"class_names is a list of names, got {type(class_names).__name__}: write ['cat', 'dog']")
    return len(class_names) or -1


def _names(class_names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Return the name of each class, by default its number."""
    if class_names is None:
        return tuple(str(k) for k in range(classes))
    _count(class_names)
    names = tuple(str(name) for name in class_names)
    if len(names) != classes:
        raise DataError(f"expected {classes} class names, one for each class, got {len(names)}")
    if not all(name.isprintable() for name in names):
        raise DataError("class names are texts of one line that can be printed: give others")
    if len(set(names)) != len(names):
        raise DataError("two classes have the same name: give each class a name of its own")
    return names
