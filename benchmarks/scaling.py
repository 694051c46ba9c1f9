"""Measure the scaling of two ranks on one machine, beside PyTorch's DistributedDataParallel (gloo).

python benchmarks/scaling.py --torch PYTHON [--rounds N] [--ranks N] [mlp | lenet | threads ...]

Strong scaling: batches of 128 by one rank, and the same batches shared by all. Weak scaling: 128 for each rank. Every
rank has one thread; gpunn alone with a thread for each core stands beside them. `threads` is the step of lenet by ranks
whose threads nobody has set, beside those with one each. All take turns, each in processes of its own that warm up
first; a ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from machine import RESULTS, command, commit, machine, write_result
from peers import ROOT, WORKERS, environment
from workloads import Workload, images, prepare, recipe

PATIENCE = 300.0
"""Seconds after which a job is given up: ranks whose threads wait for each other take thirty times as long."""
INNER = 3
"""Times that a job does the steps, after it has warmed up; the middle one counts."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
STILL_TO_BE_MADE = (
    "The comparison with PyTorch's DistributedDataParallel, `python benchmarks/scaling.py`, is still to be made."
)
STEPS = {"mlp": 100, "lenet": 16}


def workload(name: str, batch: int, factor: int, quick: bool) -> Workload:
    """Return a recipe's network at a batch size, with so many times fewer steps."""
    steps = max(2, STEPS[name] // factor // (20 if quick else 1))
    return Workload(
        f"{name}, batch {batch}", "scaling", recipe(name), batch=batch, steps=steps, rate=0.05, momentum=0.9
    )


def launcher() -> str:
    """Return the mpiexec of this environment, or of the system."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    return found or sys.exit("no mpiexec: pip install 'gpunn[mpich]'")


def launched(peer: str, python: str, folder: Path, ranks: int, threads: dict[str, str]) -> dict[str, Any]:
    """Return the seconds of the steps of a job of "gpunn" or "ddp", and what its network has learned."""
    worker = WORKERS / {"gpunn": "gpunn_ranks.py", "ddp": "torch_ddp.py"}[peer]
    calls = [[python, str(worker), str(folder), str(INNER)]] * (1 if peer == "gpunn" else ranks)
    if peer == "gpunn" and ranks > 1:
        calls = [[launcher(), "-n", str(ranks), *calls[0]]]
    settings = environment(python, WORKERS, *([ROOT] if peer == "gpunn" else [])) | threads
    settings |= {"WORLD_SIZE": str(ranks), "GPUNN_STORE": f"store-{time.monotonic_ns()}"}
    with ExitStack() as stack:
        jobs = []
        for rank, call in enumerate(calls):
            pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            job = subprocess.Popen(call, env=settings | {"RANK": str(rank)}, text=True, **pipes)
            jobs.append(stack.enter_context(job))
            stack.callback(job.kill)
        said = [job.communicate(timeout=PATIENCE) for job in jobs]
        if failed := [err for job, (_, err) in zip(jobs, said, strict=True) if job.returncode]:
            sys.exit(f"{worker.name} with {ranks} ranks failed: {failed[0]}")
    answer: dict[str, Any] = json.loads(said[0][0].splitlines()[-1])
    return answer | {"seconds": median(answer["seconds"])}


def ratio(rounds: list[dict[str, float]], above: str, below: str) -> float:
    """Return the median of the ratios of the rounds."""
    return median(each[above] / each[below] for each in rounds)


def measured(name: str, torch: str, count: int, ranks: int, quick: bool, data: dict[str, Any]) -> dict[str, Any]:
    """Return the times a step of a network in all ways, and their ratios."""
    with tempfile.TemporaryDirectory() as temporary:
        works, folders = {}, {}
        for way, factor in (("strong", 1), ("weak", ranks)):
            works[way], folders[way] = workload(name, 128 * factor, factor, quick), Path(temporary) / way
            folders[way].mkdir()
            prepare(works[way], folders[way], [0], data)
        pythons = {"gpunn": sys.executable, "ddp": torch}
        ways: dict[str, tuple[str, str, int, dict[str, str]]] = {"gpunn, all threads": ("gpunn", "strong", 1, {})}
        for peer in pythons:
            ways[f"{peer}, 1 rank"] = (peer, "strong", 1, ONE_THREAD)
            ways[f"{peer}, strong"] = (peer, "strong", ranks, ONE_THREAD)
            ways[f"{peer}, weak"] = (peer, "weak", ranks, ONE_THREAD)
        rounds: list[dict[str, float]] = []
        losses: dict[str, float] = {}
        for _ in range(count):
            rounds.append({})
            for label, (peer, way, size, threads) in ways.items():
                found = launched(peer, pythons[peer], folders[way], size, threads)
                rounds[-1][label], losses[label] = found["seconds"] / works[way].steps, found["loss"]
            print(name, "  ".join(f"{label}: {1e3 * took:.2f} ms" for label, took in rounds[-1].items()), flush=True)
    kinds = ("1 rank", "strong", "weak")
    return {
        "name": name, "steps": {way: work.steps for way, work in works.items()}, "rounds": rounds, "losses": losses,
        "median_seconds": {label: median(each[label] for each in rounds) for label in ways},
        "ddp_times_gpunn": {label: ratio(rounds, f"ddp, {label}", f"gpunn, {label}") for label in kinds},
        "speed_up": {peer: ratio(rounds, f"{peer}, 1 rank", f"{peer}, strong") for peer in ("gpunn", "ddp")},
        "weak_efficiency": {peer: ratio(rounds, f"{peer}, 1 rank", f"{peer}, weak") for peer in ("gpunn", "ddp")},
        "alone_times_ranks": ratio(rounds, "gpunn, all threads", "gpunn, strong"),
    }  # fmt: skip


def threads_measured(count: int, ranks: int, quick: bool, data: dict[str, Any]) -> dict[str, Any]:
    """Return the times a step of lenet by ranks whose threads nobody has set, and by those with one each."""
    work, rounds = workload("lenet", 128, 1, quick), []
    with tempfile.TemporaryDirectory() as folder:
        prepare(work, Path(folder), [0], data)
        for _ in range(count):
            ways = {"not set": {}, "one each": ONE_THREAD}
            took = {
                way: launched("gpunn", sys.executable, Path(folder), ranks, threads) for way, threads in ways.items()
            }
            rounds.append({way: found["seconds"] / work.steps for way, found in took.items()})
            print("threads", "  ".join(f"{way}: {1e3 * took:.2f} ms" for way, took in rounds[-1].items()), flush=True)
    return {"name": "threads", "steps": work.steps, "rounds": rounds, "ratio": ratio(rounds, "not set", "one each")}


def page(parts: dict[str, Any]) -> str:
    """Return what docs/scaling.md says of the measurement."""
    if not parts:
        return STILL_TO_BE_MADE
    lines = [
        "| a step of | all threads | one thread | two ranks share | PyTorch | two ranks, 128 each | PyTorch |",
        "|---" * 7 + "|",
    ]
    for name in STEPS:
        took = {way: f"{1e3 * seconds:.2f} ms" for way, seconds in parts[name]["median_seconds"].items()}
        times = {way: f"{value:.2f} times" for way, value in parts[name]["ddp_times_gpunn"].items()}
        cells = [took["gpunn, all threads"], took["gpunn, 1 rank"], took["gpunn, strong"], times["strong"]]
        lines.append(f"| {' | '.join([name, *cells, took['gpunn, weak'], times['weak']])} |")
    how, ratio = parts["mlp"], parts["threads"]["ratio"]
    return (
        "\n".join(lines)
        + f"""

Medians of alternating rounds on two cores, batches of 128 with momentum. One process has all threads, or one; two ranks
have one thread each, and share the batches or have 128 samples each. The columns PyTorch are the time of its
DistributedDataParallel (gloo) for the same work, relative to gpunn (`{how["command"]}`, {how["date"]}).
Two ranks with the default number of threads took {ratio:.2f} times as long as with one thread each."""
    )


def write_page(parts: dict[str, Any]) -> None:
    """Write the measurement into docs/scaling.md."""
    path = ROOT / "docs" / "scaling.md"
    before, begin, rest = path.read_text("utf-8").partition("<!-- written by benchmarks/scaling.py -->\n")
    path.write_text(before + begin + page(parts) + "\n" + "".join(rest.partition("<!-- until here -->")[1:]), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mlp, lenet, threads; left out, all three")
    parser.add_argument("--torch", required=True, metavar="PYTHON", help="a Python with torch")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--ranks", type=int, default=2, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the steps: does everything run?")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    if unknown := set(options.names) - {*STEPS, "threads"}:
        parser.error(f"unknown {', '.join(sorted(unknown))}: expected {', '.join(STEPS)}, threads")
    path = options.out / "scaling-cpu.json"
    parts: dict[str, Any] = json.loads(path.read_text("utf-8"))["parts"] if path.is_file() else {}
    data, _ = images((28, 28, 1))
    for name in options.names or [*STEPS, "threads"]:
        how = (options.rounds, options.ranks, options.quick, data)
        found = threads_measured(*how) if name == "threads" else measured(name, options.torch, *how)
        about = {"command": command(), "commit": commit(), "date": time.strftime("%Y-%m-%d"), "ranks": options.ranks}
        parts[name] = about | {"machine": machine(), "load_average": os.getloadavg()} | found
        shown = {key: value for key, value in found.items() if key not in ("rounds", "steps")}
        print(json.dumps(shown, indent=2), flush=True)
        what = "steps of batches that ranks of one thread each share, seconds"
        write_result(path, {"what": what, "machine": machine(), "parts": parts})
    if options.out == RESULTS and {*STEPS, "threads"} <= set(parts):
        write_page(parts)


if __name__ == "__main__":
    main()
