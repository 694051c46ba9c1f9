"""Compute the error function, which NumPy lacks, by rational approximations to 16 digits (W. J. Cody, 1969)."""

from collections.abc import Sequence

import numpy as np

from gpunn.kernels.record import Array

# Numerators and denominators in x² up to 0.46875, in x up to 4, in 1/x² above; coefficients begin at the highest power.
_A = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3)
_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_C = (
    2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
    8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
)  # fmt: skip
_D = (
    1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
    3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
)  # fmt: skip
_P = (
    1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
    1.60837851487422766e-2, 6.58749161529837803e-4,
)  # fmt: skip
_Q = (
    1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
    2.33520497626869185e-3,
)  # fmt: skip
_MIDDLE, _LARGE, _ONE = 0.46875, 4.0, 6.0  # limits; beyond the last, erf is 1 in float64
_ROOT = 0.5641895835477563  # 1/√π


def erf(x: Array, out: Array | None = None) -> Array:
    """Return erf x = 2/√π ∫₀ˣ e^{−t²} dt, element by element; NaN stays NaN."""
    x = np.asarray(x)
    given = x.astype(np.result_type(x, np.float32), copy=False)
    size = np.abs(given)
    result = np.empty_like(given) if out is None else out
    small = size <= _MIDDLE
    middle, large = (size > _MIDDLE) & (size <= _LARGE), size > _LARGE
    sign = np.sign(given)
    near = given[small]
    square = np.square(near)
    of_small = near * _over(square, _A, _B)
    between = size[middle]
    of_middle = 1 - np.exp(-np.square(between)) * _over(between, _C, _D)
    far = np.minimum(size[large], _ONE)
    inverse = 1 / np.square(far)
    rest = inverse * _over(inverse, _P, _Q)
    of_large = 1 - np.exp(-np.square(far)) / far * (_ROOT - rest)
    result[...] = given  # keeps NaN
    result[small] = of_small
    result[middle] = of_middle * sign[middle]
    result[large] = of_large * sign[large]
    return result


def _over(x: Array, numerator: Sequence[float], denominator: Sequence[float]) -> Array:
    """Return the quotient of two polynomials by Horner's rule."""
    above, below = np.full_like(x, numerator[0]), np.full_like(x, denominator[0])
    for factor in numerator[1:]:
        above *= x
        above += factor
    for factor in denominator[1:]:
        below *= x
        below += factor
    return above / below
