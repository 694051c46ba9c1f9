"""Compute the weights of classes, "balanced" or given, and multiply them into the sample weights."""

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from gpunn.config import nearest
from gpunn.config.scalars import Range, real
from gpunn.data.checks import LARGEST
from gpunn.data.samples import Samples
from gpunn.errors import DataError, OptionError

ClassWeight: TypeAlias = str | Mapping[Any, float] | Sequence[float] | NDArray[Any] | None
_ALLOWED: Range = "be at least 0 and finite", lambda weight: 0 <= weight <= LARGEST  # in float32
_FORMS = '"balanced", a table {class: weight} or a list with a weight for each class'


def checked_class_weight(given: Any) -> str | dict[Any, float] | tuple[float, ...] | None:
    """Check class weights in any of their forms; raise OptionError for another form or an invalid weight."""
    if given is None or (isinstance(given, str) and given == "balanced"):
        return given
    if isinstance(given, Mapping):
        return {key: real(weight, f"class_weight of {key!r:.80}", _ALLOWED) for key, weight in given.items()}
    if isinstance(given, list | tuple) or getattr(given, "ndim", 0) == 1:
        return tuple(real(weight, f"class_weight of class {k}", _ALLOWED) for k, weight in enumerate(given))
    raise OptionError(f"class_weight is {_FORMS}, got {given!r:.80}")


def class_weights(given: ClassWeight, samples: Samples, names: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return the weight of each class, (classes,).

    Args:
        given: "balanced" for n / (K n_k), n the number of samples, n_k that of class k and K the number of classes with
            a sample, where samples count by their weights; a table of weights by name or number of a class, 1 for
            classes left out; or a list of all.
        samples: Samples whose classes are counted.
        names: Name of each class.

    Raises:
        OptionError: Invalid weights, an unknown class, or float targets.
    """
    checked, classes = checked_class_weight(given), samples.classes
    if not classes:
        raise OptionError("class_weight needs labels, the data have float targets: give each sample a sample_weight")
    weights = np.ones(classes)
    if checked == "balanced":
        counts = np.bincount(samples.targets, samples.weights, classes)
        is_there = counts > 0
        weights[is_there] = counts.sum() / (np.count_nonzero(is_there) * counts[is_there])
    elif isinstance(checked, dict):
        known, given_for = {name: k for k, name in enumerate(names)}, dict[int, Any]()
        for key, weight in checked.items():
            place = _place(key, classes, known)
            if (other := given_for.setdefault(place, key)) is not key:
                both = f"{other!r:.80} and {key!r:.80}, which are one class"
                raise OptionError(f"class_weight has weights for {both}: keep one")
            weights[place] = weight
    elif checked is not None:
        if len(checked) != classes:
            mend = "give a weight for each class, or a table of some"
            raise OptionError(f"class_weight lists {len(checked)} weights for {classes} classes: {mend}")
        weights[:] = checked
    return weights


def _place(key: Any, classes: int, known: Mapping[str, int]) -> int:
    """Return the number of a class by its name or number in a table of weights."""
    if key in known:
        return known[key]
    # Keys of an experiment file are texts.
    number: Any = int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 9 else key
    if isinstance(number, numbers.Real) and number in range(classes):
        return range(classes).index(cast(int, number))
    names = list(known) or list(map(str, range(classes)))
    guess = nearest(key, names) if isinstance(key, str) else ""
    expected = ", ".join(names[:8]) + (", …" if classes > 8 else "")
    raise OptionError(f"class_weight has a weight for {key!r:.80}, which is no class: expected {expected}{guess}")


def with_class_weight(samples: Samples, given: ClassWeight, names: Sequence[str] = ()) -> Samples:
    """Multiply the weights of classes into those of the samples; see `class_weights`."""
    if given is None:
        return samples
    of_samples = class_weights(given, samples, names)[samples.targets]
    try:
        return replace(samples, weights=of_samples if samples.weights is None else of_samples * samples.weights)
    except DataError as error:
        raise OptionError(f"class_weight cannot be: {error}") from None
