"""Model the scaling over GPUs; nothing here was measured on a GPU.

python benchmarks/scaling_model.py

Prints the tables of docs/scaling.md. A step of gpunn takes a launch for each of its kernels and the time of its
products; all ranks then sum their gradients. That sum takes what NCCL itself expects: the least over its algorithms
and protocols of latency + bytes/bandwidth, with the constants of its tuner for H100 (src/graph/tuning.cc of NCCL
2.30.7, https://github.com/NVIDIA/nccl). Machines have 8 H100, 370 GB/s each way on NVLink, and a network of 8 NDR cards
that is as fast. Against public figures it is near within a machine (8 µs for 6 seen with two H100), and up to twice
too quick between machines (25 µs for 46 seen with 2 times 8).
"""

from __future__ import annotations

from math import log2
from typing import NamedTuple

PROTOCOLS = range(3)  # LL, LL128, Simple: few bytes, more, many
BASE = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4)}  # µs
INSIDE = {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4)}  # µs a hop between GPUs of a machine
BETWEEN = {"tree": (5.0, 8.5, 14.0), "ring": (2.7, 4.0, 14.0)}  # µs a hop between machines
# What trees reach of their bandwidth at 64, 128, 256 … bytes, by protocol.
REACHED = (
    (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1),
    (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1, 1),
    (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9),
)
GPUS, LINK, CHANNELS = 8, 370.0, 16  # of a machine; GB/s; of NCCL
LAUNCH, FLOPS = 2.5, 20e12  # µs a kernel of a replayed graph, and float32 products a second: assumed


class Network(NamedTuple):
    """What of a network decides on the time of its step."""

    parameters: int
    kernels: int  # launches of a step (docs/gpu.md)
    operations: float  # of a sample, forwards
    batchnorms: int = 0


NETWORKS = {
    "mlp": Network(235_146, 14, 2 * 235_146),
    "lenet": Network(85_670, 29, 3.27e6),
    "lenet-bn": Network(441_722, 49, 12.4e6, 4),
    "lenet-bn, ten times as wide": Network(44_000_000, 49, 1.24e9, 4),
}
COUNTS = (2, 8, 16, 64, 256, 1024)


def sum_time(size: int, ranks: int) -> float:
    """Return the microseconds in which so many GPUs sum an array of `size` bytes."""
    if ranks == 1:
        return 0.0
    ways = [(algorithm, protocol) for algorithm in ("tree", "ring") for protocol in PROTOCOLS]
    return min(_latency(*way, ranks) + size / (1000 * _bandwidth(*way, size, ranks)) for way in ways)


def _latency(algorithm: str, protocol: int, ranks: int) -> float:
    machines, local = max(1, ranks // GPUS), min(ranks, GPUS)
    inside, between = INSIDE[algorithm][protocol], BETWEEN[algorithm][protocol]
    if algorithm == "tree":
        return BASE[algorithm][protocol] + 2 * ((local - 1) * inside + log2(machines) * between)
    hops, far = 2 * (ranks - 1), 2 * (machines - 1)
    near = max(inside, (1.0, 1.0, 3.0)[protocol] if machines > 1 else 0)
    return BASE[algorithm][protocol] + (hops - far) * near + far * between


def _bandwidth(algorithm: str, protocol: int, size: int, ranks: int) -> float:
    machines = max(1, ranks // GPUS)
    place = min(machines, 3) - 1
    most_of_few = (141.0, 22.5, 19.0)[place]
    if algorithm == "ring":
        bandwidths = (min(most_of_few, LINK * 0.5), min(LINK * 0.92, CHANNELS * 36.7), LINK)
        return bandwidths[protocol] * ranks / (2 * (ranks - 1))
    whole = min(LINK * 0.92, CHANNELS * (38.7, 41.4, 36.0)[place])
    middle = min(whole * (7 / 9 if machines == 1 else 120 / 128), CHANNELS * (36.7, 36.7, 29.0)[place])
    bandwidth = (min(whole / 3.8, most_of_few), middle, whole)[protocol] / 2
    power = int(log2(max(1, size >> 6)))
    return bandwidth * (REACHED[protocol][power] if power < len(REACHED[protocol]) else 1)


def step_time(network: Network, samples: float, ranks: int) -> float:
    """Return the microseconds of a step with so many samples a GPU."""
    computing = LAUNCH * network.kernels + 3 * network.operations * samples / FLOPS * 1e6
    return computing + sum_time(4 * network.parameters, ranks) + 2 * network.batchnorms * sum_time(1024, ranks)


def speed_up(network: Network, batch: int, ranks: int) -> float:
    """Return how many times as fast so many GPUs do the same batches as one."""
    return step_time(network, batch, 1) / step_time(network, batch / ranks, ranks)


def efficiency(network: Network, samples: int, ranks: int) -> float:
    """Return how fast each of so many GPUs works with so many samples, as a share of one alone."""
    return step_time(network, samples, 1) / step_time(network, samples, ranks)


def table() -> list[str]:
    """Return the lines of the table of docs/scaling.md."""
    lines = [f"| GPUs | {' | '.join(f'{count:,}' for count in COUNTS)} |", "|---" * (len(COUNTS) + 1) + "|"]
    for name, network in NETWORKS.items():
        for batch in (128, 8192):
            cells = [f"{speed_up(network, batch, count):.1f}" if count <= batch else "–" for count in COUNTS]
            lines.append(f"| {name}, batches of {batch:,} | {' | '.join(cells)} |")
        cells = [f"{100 * efficiency(network, 128, count):.0f} %" for count in COUNTS]
        lines.append(f"| {name}, 128 for each GPU | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
