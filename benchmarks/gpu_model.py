"""Predict the time of a step on a GPU from its launches and their machine code: no measurements.

python benchmarks/gpu_model.py [--each]          # on a GPU; it prints a line a network, with --each a line a kernel too
PYTHONPATH=tests/simulated_cuda/everywhere python benchmarks/gpu_model.py          # without one

The JSON goes to benchmarks/results, and its table, beside that of BEFORE, into docs/gpu.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_code import Code, Source, codes_of, source_of
from gpu_trace import NETWORKS, Node, traced
from machine import RESULTS, ROOT, command, commit, read_result, write_result
from write_docs import markdown

from gpunn.backend.cuda import CupyBackend
from gpunn.backend.devices import select
from gpunn.kernels.record import Raw


@dataclass(frozen=True)
class Device:
    """The constants that a GPU corrects, here guesses for an H100; `gpu_questions.py` measures each of them.

    Attributes:
        multiprocessors: each with 2048 threads, 65,536 registers, and four instructions a cycle.
        clock: in GHz.
        gap: µs between two nodes of a graph.
        empty: µs of a kernel that does nothing.
        cache: bytes of the second level, from which what was just written is read again.
        cache_latency, memory_latency: µs until a load is there.
        cache_bandwidth, bandwidth: GB/s read and written, from the cache and from memory.
        product: TFLOP/s that a multiprocessor reaches in a product, with a single tile and with two at once.
        split: µs of adding up the parts of a product whose sum is cut.
    """

    multiprocessors: int = 132
    clock: float = 1.755
    gap: float = 1.0
    empty: float = 1.2
    cache: float = 50e6
    cache_latency: float = 0.20
    memory_latency: float = 0.42
    cache_bandwidth: float = 5500
    bandwidth: float = 3000
    product: tuple[float, float] = (0.22, 0.30)
    split: float = 2.0


def seconds(node: Node, code: Code, device: Device) -> float:
    """Return the predicted time of a kernel, without the gap before it.

    It takes the longest of three: its bytes, at the bandwidth that the loads on their way allow (Little's law); its
    instructions; and the loads that wait for one another in one thread.
    """
    threads = node.blocks * node.threads
    fitting = min(2048 // node.threads, 32, 65_536 // (max(code.registers, 1) * node.threads))
    resident = min(threads, device.multiprocessors * max(1, fitting) * node.threads)
    is_cached = node.moved < device.cache
    latency = device.cache_latency if is_cached else device.memory_latency
    peak = device.cache_bandwidth if is_cached else device.bandwidth
    on_their_way = resident * max(code.ahead, code.stored if code.stored > code.loaded else 0, 1)
    by_bytes = node.moved / min(peak * 1e3, on_their_way / latency)
    # How often a thread goes through the code; below 1 where it holds what few threads do, such as a rest one by one.
    passes = node.moved / (threads * max(code.loaded + code.stored, 1))
    processors = min(node.blocks, device.multiprocessors)
    by_instructions = threads / 32 * code.instructions * passes / (processors * 4 * device.clock * 1e3)
    return device.empty + max(by_bytes, by_instructions, max(1, passes) * latency)


def product_seconds(node: Node, device: Device) -> float:
    """Return the predicted time of a product of cublasLt, whose tiles are not known: right to 40 % at best.

    Few tiles have their sums cut into parts, at the latest by `gpunn.backend.algorithms`.
    """
    m, n, k = node.sizes
    rows, columns = (32 if m <= 32 else 64), (64 if n > 32 else 32)
    tiles = math.ceil(m / rows) * math.ceil(n / columns)
    parts = 1
    if tiles < 100 and k >= 256:
        parts = max(1, min(device.multiprocessors // tiles, k // 128, 64))
    of_a_tile = 2 * rows * columns * math.ceil(k / parts)
    at_once = min(2.0, max(1.0, tiles * parts / device.multiprocessors))
    rate = device.product[at_once >= 1.5] * 1e6
    waves = max(1.0, tiles * parts / (device.multiprocessors * at_once))
    by_bytes = node.moved / ((device.cache_bandwidth if node.moved < device.cache else device.bandwidth) * 1e3)
    return 1.0 + max(of_a_tile * at_once * waves / rate, by_bytes) + (device.split if parts > 1 else 0)


_FEW, _DIVIDED = (
    25,
    45,
)  # instructions of an element-wise kernel of CuPy, and of one that works out where an element lies


def estimate(node: Node) -> Code:
    """Return the code of an element-wise kernel of CuPy, which takes one element a thread."""
    width = max(1, round(node.moved / max(node.elements, 1)))
    return Code(_DIVIDED if node.name.startswith("bias_") else _FEW, 16, width, 0, width)


def sources_of(nodes: list[Node]) -> list[Source | None]:
    """Return the source of each node that is compiled by gpunn."""
    return [source_of(n.kernel, n.dtypes, n.variant) if isinstance(n.kernel, Raw) else None for n in nodes]


GROUPS = ("product", "im2col", "col2im", "pool", "sums", "normalize")


def group_of(name: str) -> str:
    return next((group for group in GROUPS if group in name), "other")


def prediction(nodes: list[Node], codes: Mapping[Source, Code], device: Device) -> dict[str, Any]:
    """Return the predicted µs of a step, by kinds of kernels and for each node."""
    groups, each = dict.fromkeys([*GROUPS, "other"], 0.0), []
    for node, source in zip(nodes, sources_of(nodes), strict=True):
        if node.name == "product":
            took = device.gap + product_seconds(node, device)
        else:
            took = device.gap + seconds(node, codes[source] if source else estimate(node), device)
        groups[group_of(node.name)] += took
        name = f"product {'×'.join(map(str, node.sizes))}" if node.name == "product" else node.name
        each.append({"name": name, "blocks": node.blocks, "threads": node.threads, "MB": node.moved / 1e6, "us": took})
    return {
        "nodes": len(nodes),
        "us": sum(groups.values()),
        "groups": groups,
        "needed_MB": sum(n.needed for n in nodes) / 1e6,
        "moved_MB": sum(n.moved for n in nodes) / 1e6,
        "each": each,
    }


BEFORE, NOW = "gpu-model-before.json", "gpu-model.json"
BEGIN, END = "<!-- predictions, written by benchmarks/gpu_model.py -->", "<!-- until here: predictions -->"


def with_table(page: str) -> str:
    """Return a page with the table of the predictions between the two comments."""
    before, now = (read_result(RESULTS / name)["networks"] for name in (BEFORE, NOW))
    rows = [
        (
            f"`{name}`", f"{before[name]['nodes']} → {one['nodes']}", f"{before[name]['us']:,.0f}", f"{one['us']:,.0f}",
            f"{one['groups']['product']:,.0f}", f"{before[name]['moved_MB']:,.0f} → {one['moved_MB']:,.0f}",
        )
        for name, one in now.items()
    ]  # fmt: skip
    headings = ("network", "launches", "µs before", "µs now", "of them products", "MB moved")
    head, _, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise ValueError(f"expected {BEGIN} and {END} on the page")
    return "\n".join([f"{head}{BEGIN}", *markdown([headings, *rows]), f"{END}{tail}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--each", action="store_true", help="a line a kernel too")
    options = parser.parse_args()
    backend, device = select("cuda"), Device()
    assert isinstance(backend, CupyBackend)
    steps = {name: traced(network, backend) for name, network in NETWORKS.items()}
    codes = codes_of(source for nodes in steps.values() for source in sources_of(nodes) if source)
    found = {}
    for name, nodes in steps.items():
        found[name] = predicted = prediction(nodes, codes, device)
        shares = ", ".join(f"{group} {took:.0f}" for group, took in predicted["groups"].items() if took >= 0.5)
        print(f"{name:18} {predicted['nodes']:3} nodes {predicted['us']:7.0f} µs predicted ({shares})")
        for one in predicted["each"] if options.each else ():
            print(
                f"    {one['name']:32} {one['blocks']:6} × {one['threads']:<5} {one['MB']:8.2f} MB {one['us']:7.1f} µs"
            )
    for one in found.values():
        del one["each"]
    # Not that of this process: no figure here is of the CUDA that it runs on.
    result = {"command": command(), "commit": commit(), "machine": {}, "device": asdict(device)}
    write_result(options.folder / NOW, result | {"networks": found})
    if options.folder == RESULTS:
        page = ROOT / "docs" / "gpu.md"
        page.write_text(with_table(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
