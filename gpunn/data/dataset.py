"""The data of one training: what is learned from, what is watched, and the test set apart."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.data.checks import as_array, numbered
from gpunn.data.ranges import scaled_as_pixels
from gpunn.data.samples import Samples, described
from gpunn.data.split import plain_split, stratified_split, validation_count
from gpunn.errors import DataError, OptionError, in_one_line
from gpunn.scalars import flag


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
        if not isinstance(train, Samples) or not isinstance(validation, Samples | None):
            wrong = validation if isinstance(train, Samples) else train
            raise DataError(
                f"train and validation of Data are Samples, got {type(wrong).__name__}: use Data.from_arrays(x, y) for "
                "arrays"
            )
        if open_test is not None and not callable(open_test):
            raise DataError(f"open_test of Data is a function that gives Samples, got {type(open_test).__name__}")
        self.name = in_one_line(str(name))  # a file's perhaps, and so of any bytes
        self.train = train
        self.validation = validation
        self.class_names = class_names
        self.validation_is_test = flag(validation_is_test, "validation_is_test")
        self._open_test = open_test
        self._test = validation if validation_is_test else None

    def __repr__(self) -> str:
        validation = f"{len(self.validation):,}" if self.validation else "none"
        test = "none" if not self.has_test else f"{len(self._test):,}" if self._test else "not opened"
        watched = " (the test set)" if self.validation_is_test else ""
        return f"Data({self.name}: train {self.train!r}, validation {validation}{watched}, test {test})"

    def as_floats(self) -> "Data":
        """The data with labels turned into float targets, rows of one 1; the test set is opened no sooner."""
        if not self.train.classes:
            return self

        def open_test() -> Samples:
            test = self.test
            assert test is not None
            return test.as_floats()

        watched = None if self.validation is None else self.validation.as_floats()
        test = open_test if self.has_test else None
        return Data(self.name, self.train.as_floats(), watched, (), test, validation_is_test=self.validation_is_test)

    def with_validation(self, validation: Any) -> "Data":
        """The data, watched on other samples.

        Args:
            validation: (x, y) or Samples.

        Raises:
            DataError: samples of another kind than the training set.
        """
        watched = _fitting(
            lambda: like(self.train, validation, self.class_names or None, "validation_data"),
            self.train,
            self.name,
            "validation set",
        )
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
            y: labels, integers from 0 of shape (n,), texts, or rows of one 1 (n, classes); or floats (n, outputs).
            test: (x, y), Samples, or a function that gives either; looked at on the first access to `.test`.
            validation: as for `load_data`.
            limit: as for `load_data`.
            seed: of the split.
            class_names: one for each class; left out, the labels themselves.
            name: what reports call the data.
            scale: what a network multiplies x with; left out, 1/255 for bytes and other whole numbers from 0 to 255,
                1 over the most of their bits for those of images of more, and 1 for everything else.

        Raises:
            DataError: values or shapes that cannot be trained on.
            OptionError: validation, limit or seed out of range.
        """
        array = as_array(x, "inputs")
        inputs, factor = scaled_as_pixels(array) if scale is None else (array, scale)
        count = -1 if class_names is None else _count(class_names)
        y, class_names = numbered(y, class_names)
        train = Samples(inputs, as_array(y, "targets"), factor, count)
        names = class_names

        def open_test() -> Samples:
            return like(train, test() if callable(test) else test, names, "test")

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
        if isinstance(validation, str):
            if validation != "test":
                validation_count(validation, len(samples))
            if test is None:
                raise OptionError(
                    f'validation="test" watches the test set, and {name} has none: give a fraction such as 0.1'
                )
            watched = _fitting(test, samples, name)
            return cls(name, samples, watched, names, test, validation_is_test=True)
        most = len(samples) - int(np.count_nonzero(samples.class_counts())) if samples.classes else None
        count = validation_count(validation, len(samples), most)
        if samples.classes:
            train, held = stratified_split(samples.targets, count, seed)
        else:
            train, held = plain_split(len(samples), count, seed)
        if not count:
            return cls(name, samples, None, names, test)
        return cls(name, samples.subset(train), samples.subset(held), names, test)


def like(train: Samples, given: Any, names: Sequence[str] | None, what: str) -> Samples:
    """Samples, or (x, y) as samples, of the kind that is trained on.

    Args:
        train: what is trained on.
        given: Samples or (x, y).
        names: one for each class.
        what: they are, for messages.

    Raises:
        DataError: neither, or of another kind.
    """
    if isinstance(given, Samples):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"{what} is (x, y) or Samples, got {type(given).__name__}")
    targets, _ = numbered(given[1], _names(names, train.classes))
    return Samples(given[0], as_array(targets, "targets"), train.scale, train.classes)


def _fitting(open_test: Callable[[], Samples], train: Samples, name: str, what: str = "test set") -> Samples:
    """The test set, or `what` it is, if it is of the same kind as the training set."""
    try:
        test = open_test()
    except DataError as error:
        raise DataError(f"{what} of {name}: {error}") from None
    if test.shape != train.shape:
        raise DataError(
            f"{what} of {name}: expected inputs of shape {train.shape} as in training, got {test.shape}; "
            "prepare both in the same way"
        )
    if test.one_hot and not train.classes:
        test = test.as_floats()
    if bool(test.classes) != bool(train.classes) or test.targets.shape[1:] != train.targets.shape[1:]:
        raise DataError(
            f"{what} of {name}: expected targets like those of training ({described(train.targets[:1])} "
            f"each), got {described(test.targets[:1])}"
        )
    if test.classes > train.classes:
        raise DataError(
            f"{what} of {name}: holds labels up to {test.classes - 1}, training has {train.classes} "
            "classes; give class_names that cover both"
        )
    if test.scale != train.scale:
        raise DataError(f"{what} of {name}: expected scale {train.scale:g} as in training, got {test.scale:g}")
    if test.classes < train.classes:
        return Samples(test.inputs, test.targets, test.scale, train.classes)
    return test


def _count(class_names: Sequence[str]) -> int:
    """The number of classes that the names stand for, -1 where there are none; a string is no list of names."""
    if isinstance(class_names, str):
        raise DataError(f"class_names is a list of names, got the text {class_names!r}: write [{class_names!r}, ...]")
    is_list = isinstance(class_names, Sequence) or getattr(class_names, "ndim", 0) == 1
    if not is_list or any(isinstance(name, list | tuple | np.ndarray) for name in class_names):
        raise DataError(f"class_names is a list of names, got {type(class_names).__name__}: write ['cat', 'dog']")
    return len(class_names) or -1


def _names(class_names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
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
