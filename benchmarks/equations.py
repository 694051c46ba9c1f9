"""Time activations as equations beside those written by hand: f and its gradient.

    python benchmarks/equations.py [--out benchmarks/results/equations.json]

Both compute on the same arrays by turns, on the CPU in float32; of each the lowest of its times is taken.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, machine, write_result

import gpunn as gn

PAIRS: dict[str, tuple[Callable[[], gn.Activation], str]] = {
    "sigmoid": (gn.Sigmoid, "1 / (1 + exp(-z))"),
    "tanh": (gn.Tanh, "tanh(z)"),
    "relu": (gn.ReLU, "max(z, 0)"),
    "leaky_relu": (gn.LeakyReLU, "where(z > 0, z, 0.01 * z)"),
    "softplus": (gn.Softplus, "log(1 + exp(z))"),
}
SHAPES = ((128, 128), (512, 512))
ROUNDS, SECONDS = 200, 0.002  # short and many, for a machine that others use too


def once(call: Callable[[], None], times: int) -> float:
    """Seconds of a call, the mean of several."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def by_turns(first: Callable[[], None], second: Callable[[], None]) -> tuple[float, float]:
    """The lowest seconds of two calls that are made by turns."""
    times = max(1, int(SECONDS / max(once(first, 3), 1e-7)))
    lowest = {first: np.inf, second: np.inf}
    for turn in range(ROUNDS):
        for call in (first, second) if turn % 2 else (second, first):
            lowest[call] = min(lowest[call], once(call, times))
    return lowest[first], lowest[second]


def calls(layer: gn.Activation, z: Any, da: Any, a: Any, dz: Any) -> tuple[Callable[[], None], Callable[[], None]]:
    """The two passes of an activation, as the layer makes them."""
    constants = layer._constants()
    layer.kernel.host(z, *constants, a)
    seen = a.copy() if layer.derivative_from_output else z
    forward, gradient = layer.kernel.host, layer.gradient_kernel.host
    return lambda: forward(z, *constants, a), lambda: gradient(da, seen, *constants, dz)


def measure() -> list[dict[str, Any]]:
    """Rows of an activation, a shape and a pass each."""
    rows = []
    rng = np.random.default_rng(0)
    for name, (make, equation) in PAIRS.items():
        for shape in SHAPES:
            arrays = [rng.normal(size=shape).astype(np.float32) for _ in range(4)]  # the same for both
            by_hand, as_equation = (
                calls(layer, *arrays) for layer in (make(), gn.Activation.from_equation(name, equation))
            )
            for part, hand, own in zip(("forward", "gradient"), by_hand, as_equation, strict=True):
                ours, theirs = by_turns(own, hand)
                rows.append(
                    {
                        "activation": name,
                        "equation": equation,
                        "shape": list(shape),
                        "pass": part,
                        "by_hand_us": round(theirs * 1e6, 2),
                        "as_equation_us": round(ours * 1e6, 2),
                        "speed": round(theirs / ours, 3),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    rows = measure()
    for row in rows:
        print(f"{row['activation']:<11}{row['pass']:<9}{row['shape']!s:<12}{row['by_hand_us']:>10.1f} µs by hand"
              f"{row['as_equation_us']:>10.1f} µs as an equation{row['speed']:>7.2f} ×")  # fmt: skip
    print(f"speed: lowest {min(row['speed'] for row in rows):.2f}, geometric mean "
          f"{np.exp(np.mean([np.log(row['speed']) for row in rows])):.2f}")  # fmt: skip
    if out:
        write_result(out, {"machine": machine(), "command": command(), "dtype": "float32", "rows": rows})


if __name__ == "__main__":
    main()
