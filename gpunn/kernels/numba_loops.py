"""Replace NumPy passes by loops that Numba compiles, where it is installed (the extra `numba`).

A loop evaluates a whole formula in registers, while NumPy passes over its arrays once per operation. Only the order of
sums differs. `in_loops` alone decides when a loop replaces the NumPy function with the same arguments; its choice
depends on the training, never on time.
"""

import importlib.metadata
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import numpy as np

from gpunn.kernels.image_grid import Geometry
from gpunn.kernels.record import Array, Host

OFF = "GPUNN_NUMBA"  # environment variable: 0 leaves Numba unused
WORTHWHILE = 2**19  # bytes of the largest array for which loops repay the half second of loading Numba
LOADED = 150 << 20  # bytes to reserve for Numba and its compiler, which take 90 to 115 MiB
LONG = 10_000  # steps from which a training uses loops for all arrays: they save a tenth of a millisecond per step
pairs: list[tuple[Host, Host]] = []  # NumPy bodies with the loops that replace them, for the tests
_compiling = threading.Lock()
_of_thread = threading.local()


@contextmanager
def for_training(steps: int, nbytes: int) -> Iterator[None]:
    """Use loops for all arrays of a training if it is long, or if arrays of `nbytes` load Numba anyway."""
    before = getattr(_of_thread, "takes_all", False)  # set by an outer training
    _of_thread.takes_all = steps >= LONG or nbytes >= WORTHWHILE
    try:
        yield
    finally:
        _of_thread.takes_all = before


@cache
def version() -> str:
    """Return the version of Numba, or "" if it is not installed or not to be used."""
    if os.environ.get(OFF) == "0":
        return ""
    try:
        return importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        return ""


@cache
def load() -> None:
    """Load Numba with its compiler, if it is installed, so that its memory counts as used."""
    if version():
        compiled(bias_relu)(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))


def bytes_to_load() -> int:
    """Estimate the bytes that `load` will take; 0 if Numba is loaded or not installed."""
    return LOADED if version() and not load.cache_info().currsize else 0


@cache
def compiled(loops: Host) -> Host:
    """Compile loops to machine code, cached on disk for the next process where possible."""
    try:
        import numba
    except ImportError as error:
        raise ImportError(
            f"Numba {version()} cannot be used ({error}): pip install --upgrade numba, or export {OFF}=0"
        ) from None

    # Sums may be reordered, so several lanes can add at once; nothing else is relaxed.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc"}, "error_model": "numpy"}
    with _compiling:
        try:
            body: Host = numba.njit(cache=True, **options)(loops)
        except RuntimeError:  # cannot write beside the module or into the user's cache
            body = numba.njit(**options)(loops)
    return body


def in_loops(loops: Host, sized_by: Callable[..., tuple[Any, ...]] | None = None) -> Callable[[Host], Host]:
    """Decorate a NumPy body to run `loops` instead, if Numba is installed and an array of `sized_by` is large."""

    def decorate(passes: Host) -> Host:
        pairs.append((passes, loops))
        if not version():
            return passes

        def body_for(*arguments: Any) -> Host:
            takes_all = getattr(_of_thread, "takes_all", False)
            for each in sized_by(*arguments) if sized_by else arguments:
                if takes_all or (isinstance(each, np.ndarray) and each.nbytes >= WORTHWHILE):
                    return compiled(loops)
            return passes

        @wraps(passes)
        def choose(*arguments: Any) -> None:
            body_for(*arguments)(*arguments)

        # For `by_channels`, which chooses once for all pieces of its arrays.
        choose.body_for = body_for  # type: ignore[attr-defined]
        return choose

    return decorate


# The loops. `gather` explains the clock.


def gather_rows(
    data: Array, targets: Array, order: Array, clock: Array, batch_size: int, scale: float, x: Array, t: Array
) -> None:
    clock[0], clock[1] = clock[2], clock[3]
    start, factor = clock[0] * batch_size, x.dtype.type(scale)
    for j in range(x.shape[0]):
        row = order[start + j]
        for f in range(x.shape[1]):
            x[j, f] = data[row, f] * factor
        if t.ndim == 1:
            t[j] = targets[row]
        else:
            t[:, j] = targets[row]


def bias_relu(b: Array, a: Array) -> None:
    for unit in range(a.shape[0]):
        row, bias = a[unit], b[unit, 0]
        for j in range(len(row)):
            z = row[j] + bias
            row[j] = a.dtype.type(0) if z < 0 else z


def keep_positive(a: Array) -> None:
    for j in range(len(a)):
        a[j] = a.dtype.type(0) if a[j] < 0 else a[j]


def keep_where_positive(a: Array, dz: Array) -> None:
    for j in range(len(a)):
        dz[j] *= dz.dtype.type(a[j] > 0)


def softmax_cross_entropy(
    z: Array, bias: Array, labels: Array, weight: float, gradient: Array, bias_gradient: Array, losses: Array,
    totals: Array, of: int, parts: Array, ticket: Array, smoothing: float,  # noqa: ARG001 - scratch of a device
) -> None:  # fmt: skip
    (outputs, n), real = z.shape, z.dtype.type
    bias_gradient[:] = real(0)
    on, off = real((1 - smoothing) / of), real(smoothing / (of * outputs))
    loss, right = 0.0, 0
    for j in range(n):
        guess = 0
        largest = z[0, j] + bias[0]
        for k in range(outputs):
            v = z[k, j] + bias[k]
            gradient[k, j] = v
            if v > largest or (np.isnan(v) and not np.isnan(largest)):  # like NumPy: NaN is above all
                largest, guess = v, k
        label = labels[j]
        aim = gradient[label, j] - largest
        if smoothing > 0:
            mean = real(0)
            for k in range(outputs):
                mean += gradient[k, j] - largest
            aim = real(1 - smoothing) * aim + real(smoothing) * (mean / real(outputs))
        total = real(0)
        for k in range(outputs):
            e = np.exp(gradient[k, j] - largest)
            gradient[k, j] = e
            total += e
        losses[j] = np.log(total) - aim
        total *= real(of)
        for k in range(outputs):
            share = gradient[k, j] / total
            if smoothing > 0:
                share -= off
            if k == label:
                share -= on
            gradient[k, j] = share
            bias_gradient[k] += share
        loss += losses[j]
        right += guess == label
    totals[0] += weight * loss
    totals[1] += right


def normalize(x: Array, gamma: Array, beta: Array, epsilon: float, mean: Array, variance: Array, y: Array) -> None:
    size, real = x.shape[1], x.dtype.type
    for channel in range(x.shape[0]):
        row, out = x[channel], y[channel]
        total = real(0)
        for j in range(size):
            total += row[j]
        middle = total / real(size)
        total = real(0)
        for j in range(size):
            total += (row[j] - middle) * (row[j] - middle)
        mean[channel], variance[channel] = middle, total / real(size)
        scale, shift = gamma[channel] / np.sqrt(variance[channel] + epsilon), beta[channel]
        for j in range(size):
            out[j] = (row[j] - middle) * scale + shift


def normalize_gradient(
    dy: Array, x: Array, gamma: Array, mean: Array, scale: Array, share: float, dgamma: Array, dbeta: Array, dx: Array
) -> None:
    size = x.shape[1]
    for channel in range(len(x)):
        delta, row, out, middle = dy[channel], x[channel], dx[channel], mean[channel]
        by_gamma = by_beta = x.dtype.type(0)
        for j in range(size):
            by_gamma += delta[j] * (row[j] - middle)
            by_beta += delta[j]
        by_gamma *= scale[channel]
        dgamma[channel], dbeta[channel] = by_gamma, by_beta
        by_gamma *= scale[channel] * share
        by_beta *= share
        factor = gamma[channel] * scale[channel]
        for j in range(size):
            out[j] = (delta[j] - by_beta - (row[j] - middle) * by_gamma) * factor


def max_pool(x: Array, window: Geometry, y: Array, choice: Array) -> None:
    size_h, size_w, stride_h, stride_w, top, left = window
    for channel in range(y.shape[0]):
        for row in range(y.shape[1]):
            for column in range(y.shape[2]):
                best, chosen = y[channel, row, column], choice[channel, row, column]
                y_at, x_at = row * stride_h - top, column * stride_w - left
                first_v, end_v = max(0, -x_at), min(size_w, x.shape[2] - x_at)
                is_first = True
                for u in range(max(0, -y_at), min(size_h, x.shape[1] - y_at)):
                    for v in range(first_v, end_v):
                        place, seen = u * size_w + v, x[channel, y_at + u, x_at + v]
                        for j in range(len(best)):
                            is_first_or_nan = is_first or seen[j] != seen[j]
                            is_better = seen[j] > best[j]
                            best[j] = seen[j] if is_better or is_first_or_nan else best[j]
                            chosen[j] = np.uint8(place) if is_better or is_first else chosen[j]
                        is_first = False


def max_pool_gradient(dy: Array, choice: Array, window: Geometry, dx: Array) -> None:
    size_h, size_w, stride_h, stride_w, top, left = window
    adds = top > 0 or left > 0  # else every input lies in one window
    for channel in range(dy.shape[0]):
        if adds:
            dx[channel] = dx.dtype.type(0)
        for row in range(dy.shape[1]):
            for column in range(dy.shape[2]):
                gradient, chosen = dy[channel, row, column], choice[channel, row, column]
                y_at, x_at = row * stride_h - top, column * stride_w - left
                first_v, end_v = max(0, -x_at), min(size_w, dx.shape[2] - x_at)
                for u in range(max(0, -y_at), min(size_h, dx.shape[1] - y_at)):
                    for v in range(first_v, end_v):
                        place, target = u * size_w + v, dx[channel, y_at + u, x_at + v]
                        for j in range(len(gradient)):
                            share = gradient[j] * gradient.dtype.type(chosen[j] == place)
                            target[j] = target[j] + share if adds else share


def convolve_groups(x: Array, w: Array, geometry: Geometry, z: Array) -> None:
    size_h, size_w, stride_h, stride_w, top, left = geometry
    height, width = x.shape[2], x.shape[3]
    for group in range(z.shape[0]):
        for f in range(z.shape[1]):
            for row in range(z.shape[2]):
                for column in range(z.shape[3]):
                    sums = z[group, f, row, column]
                    sums[:] = z.dtype.type(0)
                    for c in range(w.shape[2]):
                        for u in range(size_h):
                            y = row * stride_h + u - top
                            if y < 0 or y >= height:
                                continue
                            for v in range(size_w):
                                at = column * stride_w + v - left
                                if at < 0 or at >= width:
                                    continue
                                weight, seen = w[group, f, c, u, v], x[group, c, y, at]
                                for j in range(len(sums)):
                                    sums[j] += weight * seen[j]


def convolve_groups_input_gradient(dz: Array, w: Array, geometry: Geometry, dx: Array) -> None:
    size_h, size_w, stride_h, stride_w, top, left = geometry
    rows, columns = dz.shape[2], dz.shape[3]
    for group in range(dx.shape[0]):
        for c in range(dx.shape[1]):
            for y in range(dx.shape[2]):
                for at in range(dx.shape[3]):
                    sums = dx[group, c, y, at]
                    sums[:] = dx.dtype.type(0)
                    for f in range(w.shape[1]):
                        for u in range(size_h):
                            down = y + top - u
                            if down < 0 or down % stride_h or down // stride_h >= rows:
                                continue
                            for v in range(size_w):
                                across = at + left - v
                                if across < 0 or across % stride_w or across // stride_w >= columns:
                                    continue
                                weight = w[group, f, c, u, v]
                                delta = dz[group, f, down // stride_h, across // stride_w]
                                for j in range(len(sums)):
                                    sums[j] += weight * delta[j]


def convolve_groups_weight_gradient(x: Array, dz: Array, geometry: Geometry, dw: Array) -> None:
    size_h, size_w, stride_h, stride_w, top, left = geometry
    height, width = x.shape[2], x.shape[3]
    for group in range(dw.shape[0]):
        for f in range(dw.shape[1]):
            dw[group, f] = dw.dtype.type(0)
            for row in range(dz.shape[2]):
                for c in range(dw.shape[2]):
                    for u in range(size_h):
                        y = row * stride_h + u - top
                        if y < 0 or y >= height:
                            continue
                        for v in range(size_w):
                            total = dw.dtype.type(0)
                            for column in range(dz.shape[3]):
                                at = column * stride_w + v - left
                                if at < 0 or at >= width:
                                    continue
                                delta, seen = dz[group, f, row, column], x[group, c, y, at]
                                for j in range(len(delta)):
                                    total += delta[j] * seen[j]
                            dw[group, f, c, u, v] += total


def sgd(gradient: Array, rate: Array, decayed: int, l1: float, l2: float, value: Array, clock: Array) -> None:
    eta = rate[clock[0]]
    first, second = value.dtype.type(l1), value.dtype.type(l2)
    for at in range(len(value)):
        w, g = value[at], gradient[at]
        if at < decayed:
            g += second * w
            g += first * np.sign(w)
        value[at] = w - eta * g
    clock[2], clock[3] = clock[0] + 1, clock[1] + 1


def momentum_sgd(
    gradient: Array, rate: Array, decayed: int, l1: float, l2: float, momentum: float, nesterov: bool, velocity: Array,
    value: Array, clock: Array,
) -> None:  # fmt: skip
    eta, real = rate[clock[0]], value.dtype.type
    first, second, mu = real(l1), real(l2), real(momentum)
    for at in range(len(value)):
        w, g, v = value[at], gradient[at], velocity[at]
        if at < decayed:
            g += second * w
            g += first * np.sign(w)
        v = mu * v + g
        velocity[at] = v
        value[at] = w - eta * (g + mu * v if nesterov else v)
    clock[2], clock[3] = clock[0] + 1, clock[1] + 1
