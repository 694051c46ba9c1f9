"""Run rounds of all peers in turn, A B A B, and summarise them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peers import Peer, WorkerError, WorkerProcess, python_for
from profiles import profile_of
from workloads import Workload, images, prepare

PAUSE = 0.1
"""Seconds between two workers: threads of the last one may still be spinning."""
QUIET = 0.10
"""Share of the processors that other programs may use in a round before it counts as disturbed."""
AGAIN = 2
"""How often a disturbed round is done again before it is taken as it is, and marked."""


def busy_seconds() -> float:
    """Processor time that everything on this machine has used so far, with what a hypervisor took; 0 if unknown."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def measured_round(worker: WorkerProcess, seed: int) -> dict[str, Any]:
    """Run a round, and measure the share of the processors that other programs took."""
    time.sleep(PAUSE)
    before, begun = busy_seconds(), time.perf_counter()
    answer = worker.round(seed)
    wall = time.perf_counter() - begun
    # Own time is that of the timed part, and the answer is computed outside it: the estimate is on the safe side.
    others = (busy_seconds() - before - answer["total_cpu"]) / (wall * (os.cpu_count() or 1))
    return answer | {"others": max(0.0, others)}


def rounds_of(
    workload: Workload,
    peers: Sequence[Peer],
    count: int,
    device: str,
    precision: str,
    peers_python: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run all peers' rounds of a workload; collect the absent peers and the reasons.

    Args:
        workload: what to do.
        peers: in the order in which they take turns.
        count: rounds.
        device: "cpu" or "cuda".
        precision: of products.
        peers_python: interpreter of the peers' environment.
        say: is given a line about each peer that cannot take part.

    Returns:
        What the `data` are, each peer's rounds (`found`), the peers that are `absent` or `left_out`, each with the
        reason, and gpunn's `profile` where the steps of the workload can be profiled.
    """
    data, source = images(workload.shape)
    seeds = list(range(count)) if workload.kind == "train" else [0]
    found: dict[str, dict[str, Any]] = {}
    absent: dict[str, str] = {}
    left_out = {peer.name: why for peer in peers if (why := peer.why_not(workload, device))}
    peers = [peer for peer in peers if peer.name not in left_out]
    profile = None
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        prepare(workload, folder, seeds, data)
        workers: dict[str, WorkerProcess] = {}
        for peer in peers:
            try:
                worker = WorkerProcess(peer, python_for(peer, peers_python), folder, device, precision)
                stack.callback(worker.close)
                if not workload.apart:
                    worker.round(0)  # the warm-up: compilers, caches, threads
            except WorkerError as error:
                absent[peer.name] = str(error)
                say(f"  {peer.name}: {error}")
                continue
            found[peer.name] = {"about": worker.about, "rounds": []}
            if workload.apart:
                worker.close()
            else:
                workers[peer.name] = worker
        for number in range(count):
            for peer in peers:
                if peer.name not in found:
                    continue
                python = python_for(peer, peers_python)

                def one(peer: Peer = peer, python: str = python, number: int = number) -> dict[str, Any]:
                    if workload.apart:
                        return _apart(peer, python, folder, device, precision)
                    return measured_round(workers[peer.name], number if workload.kind == "train" else 0)

                try:
                    found[peer.name]["rounds"].append(_undisturbed(one))
                except WorkerError as error:
                    del found[peer.name]
                    absent[peer.name] = str(error)
                    say(f"  {peer.name}: {error}")
        if "gpunn" in found and workload.is_profiled:
            try:
                profile = profile_of(folder, device, precision)
            except WorkerError as error:
                absent["profile"] = str(error)
                say(f"  {error}")
    return {"data": source, "found": found, "absent": absent, "left_out": left_out, "profile": profile}


def _undisturbed(one: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Repeat a round until other programs leave the processors alone, or return the last."""
    for _ in range(AGAIN):
        answer = one()
        if answer["others"] <= QUIET:
            return answer
    return one()


def _apart(peer: Peer, python: str, folder: Path, device: str, precision: str) -> dict[str, Any]:
    """Time a round from the start of a process to the end of its work."""
    time.sleep(PAUSE)
    before = busy_seconds()
    worker = WorkerProcess(peer, python, folder, device, precision)
    try:
        answer = worker.round(0)
        seconds = time.perf_counter() - worker.began
    finally:
        worker.close()
    others = (busy_seconds() - before - answer["total_cpu"]) / (seconds * (os.cpu_count() or 1))
    return answer | {"seconds": seconds, "others": max(0.0, others)}


def summarised(workload: Workload, measured: dict[str, Any]) -> dict[str, Any]:
    """Medians, spreads and ratios of one workload, and whether all peers have done the same."""
    found = measured["found"]
    accuracies = [float(np.mean([each["accuracy"] for each in entry["rounds"]])) for entry in found.values()]
    middle_accuracy = median(accuracies) if accuracies else float("nan")
    per_unit = workload.steps if workload.kind != "train" else 1
    rows = []
    losses = [median(each["loss"] for each in entry["rounds"]) for entry in found.values()]
    middle = median(losses) if losses else float("nan")
    reference = [each["seconds"] for each in found["gpunn"]["rounds"]] if "gpunn" in found else None
    for (name, entry), loss, accuracy in zip(found.items(), losses, accuracies, strict=True):
        seconds = np.array([each["seconds"] for each in entry["rounds"]])
        row = {
            "peer": name,
            **entry["about"],
            "median_seconds": float(np.median(seconds)) / per_unit,
            "least_seconds": float(seconds.min()) / per_unit,
            "most_seconds": float(seconds.max()) / per_unit,
            "rounds_seconds": [float(value) / per_unit for value in seconds],
            "loss": loss,
            "accuracy": accuracy,
            "peak_bytes": max(each["peak_bytes"] for each in entry["rounds"]),
            "device_bytes": max(each["device_bytes"] for each in entry["rounds"]),
            "others": [round(each["others"], 3) for each in entry["rounds"]],
            "agrees": bool(
                abs(loss - middle) <= workload.agreement * abs(middle) + 1e-3
                and abs(accuracy - middle_accuracy) <= workload.accuracy_agreement
            ),
        }
        if reference is not None:
            ratios = seconds / np.array(reference)
            row["times_gpunn"] = float(np.median(ratios))
            row["rounds_times_gpunn"] = ratios.tolist()
        rows.append(row)
    return {
        "name": workload.name,
        "group": workload.group,
        "kind": workload.kind,
        "batch": workload.batch,
        "steps": workload.steps,
        "data": measured["data"],
        "scale": workload.scale,
        "agreement": workload.agreement,
        "accuracy_agreement": workload.accuracy_agreement,
        "results": rows,
        "absent": measured["absent"],
        "left_out": measured["left_out"],
        "profile": measured["profile"],
    }
