"""Compare measurements with gpunn's targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peers import PLAIN
from profile_report import duration

FASTEST = "the fastest peer"
_DENSE = [f"784-{rest}, batch 128" for rest in ("30-10", "128-10", "512-512-10")]
_DEEP = "3×3 64-128-256 on 32×32×3, batch 128"
_RESNET = "resnet on 32×32×3, batch 128"
_FAST = "fast99: MNIST from bytes to the test result"


@dataclass(frozen=True)
class Target:
    """A claim about one workload.

    Args:
        device: "cpu", with two cores, or "cuda".
        workload: by its name.
        against: the peer that is to take `least` times as long as gpunn, or FASTEST; "" for a claim about gpunn alone.
        least: the ratio.
        most_seconds: gpunn is to take at most.
        accuracy: gpunn is to reach on MNIST.
    """

    device: str
    workload: str
    against: str = ""
    least: float = 0.0
    most_seconds: float = 0.0
    accuracy: float = 0.0

    @property
    def words(self) -> str:
        """The claim in a few words."""
        if self.against:
            return f"{self.least:.1f} times as fast as {self.against}"
        return f"{self.accuracy:.1%} of the test set" if self.accuracy else f"at most {duration(self.most_seconds)}"


TARGETS = (
    Target("cpu", _DENSE[0], "PyTorch eager", 2.0),
    Target("cpu", _DENSE[1], "PyTorch eager", 1.6),
    Target("cpu", _DENSE[2], "PyTorch eager", 1.1),
    *(Target("cpu", name, "JAX scan", 1.0) for name in _DENSE),
    *(Target("cpu", name, "scikit-learn", 1.5) for name in _DENSE),
    Target("cpu", "lenet, batch 128", "PyTorch eager", 1.2),
    Target("cpu", "lenet-bn, batch 128", "PyTorch eager", 1.2),
    Target("cpu", _DEEP, "PyTorch eager", 1.0),
    Target("cpu", _RESNET, "PyTorch eager", 1.0),
    Target("cpu", _FAST, "PyTorch eager", 1.4),
    Target("cpu", _FAST, accuracy=0.99),
    Target("cpu", "784-128-10, predicting one image", "PyTorch eager", 3.0),
    Target("cpu", "lenet, predicting one image", "PyTorch eager", 3.0),
    Target("cuda", _DENSE[1], most_seconds=20e-6),
    Target("cuda", _DENSE[1], "PyTorch eager", 10.0),
    Target("cuda", _DENSE[1], FASTEST, 2.0),
    Target("cuda", _DENSE[2], FASTEST, 1.5),
    Target("cuda", "lenet, batch 128", FASTEST, 1.5),
    Target("cuda", _DEEP, "PyTorch compile", 1.0),
    Target("cuda", _FAST, most_seconds=0.25),
    Target("cuda", _FAST, accuracy=0.99),
)


def verdict(target: Target, workloads: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """What was measured, and "met" or "missed"; two empty texts where it was not measured."""
    workload = next((each for each in workloads if each["name"] == target.workload), None)
    rows = {} if workload is None else {row["peer"]: row for row in workload["results"]}
    if workload is None or "gpunn" not in rows:
        return "", ""
    own, plain = rows.pop("gpunn"), rows.pop(PLAIN, None)
    if target.accuracy:
        # Random bytes, which stand in for MNIST where it is missing, have nothing to learn.
        if workload["data"] != "MNIST":
            return "", ""
        return f"{own['accuracy']:.2%}", _word(own["accuracy"] >= target.accuracy)
    if target.most_seconds:
        return duration(own["median_seconds"]), _word(own["median_seconds"] <= target.most_seconds)
    if target.against == FASTEST:
        rival = min(rows.values(), key=lambda row: row["median_seconds"], default=None)
    else:
        rival = rows.get(target.against)
    if rival is None:
        return "", ""
    # Who did another piece of work has not been beaten, nor has it won.
    agree = own["agrees"] and rival["agrees"]
    note = f" ({rival['peer']})" if target.against == FASTEST else ""
    if plain is not None:
        note += f" ({rival['times_gpunn'] / plain['times_gpunn']:.2f} without Numba)"
    return f"{rival['times_gpunn']:.2f}{note}", _word(agree and rival["times_gpunn"] >= target.least)


def _word(is_met: bool) -> str:
    return "met" if is_met else "missed"


HEADINGS = ("work", "at least", "measured", "")


def target_rows(device: str, workloads: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """List the measured targets of a device with their results."""
    measured = {each["name"] for each in workloads}
    rows = []
    for target in TARGETS:
        if target.device == device and target.workload in measured:
            found, word = verdict(target, workloads)
            rows.append((target.workload, target.words, found, word or "not measured"))
    return rows
