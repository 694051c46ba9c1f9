"""The benchmarks' own machinery, on work of a moment: no claim about speed is made here."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.paths import ROOT

# A library that has the right answer, and one that makes it easier for itself.
FAKE = """
from protocol import Worker, serve
import numpy as np


class Fake(Worker):
    def __init__(self, task):
        self.task = task
        if task.mode == "absent":
            import a_library_that_is_not_installed

    def describe(self):
        return {"version": "1", "threads": 1, "device": "CPU", "precision": "float32"}

    def reset(self, seed):
        first, second = self.task.weights(seed)["0.w"], self.task.weights(seed)["2.w"]
        self.w = [first.astype(np.float64), second.astype(np.float64)]
        self.b = [np.zeros(len(w)) for w in self.w]

    def run(self):
        if self.task.kind == "predict":
            z = self.outputs(self.task.inputs)
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            return p[:, ::-1] if self.task.mode == "lazy" else p
        order = self.task.order(0)
        if self.task.mode == "lazy":
            order = order[: self.task.batch]
        if self.task.mode == "broken":
            raise ZeroDivisionError("nothing to divide")
        for start in range(0, len(order), self.task.batch):
            at = order[start : start + self.task.batch]
            x = self.task.inputs[at].reshape(len(at), -1) / 255
            a = np.maximum(x @ self.w[0].T + self.b[0], 0)
            z = a @ self.w[1].T + self.b[1]
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            p[np.arange(len(at)), self.task.labels[at]] -= 1
            delta = p / len(at)
            before = (delta @ self.w[1]) * (a > 0)
            for k, (d, seen) in enumerate(((before, x), (delta, a))):
                self.w[k] -= self.task.rate * d.T @ seen
                self.b[k] -= self.task.rate * d.sum(axis=0)

    def outputs(self, inputs):
        x = inputs.reshape(len(inputs), -1) / 255
        return np.maximum(x @ self.w[0].T + self.b[0], 0) @ self.w[1].T + self.b[1]


serve(Fake)
"""


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of benchmarks/."""
    if not (ROOT / "benchmarks").is_dir():
        pytest.fail("benchmarks/ is missing: run the tests in a checkout")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.delenv("GPUNN_DATA", raising=False)
        import bench as program
        import charts
        import measure
        import peers
        import profiler
        import report
        import targets
        import workloads
        import write_docs

        yield SimpleNamespace(
            charts=charts,
            program=program,
            measure=measure,
            peers=peers,
            report=report,
            targets=targets,
            workloads=workloads,
            profiler=profiler,
            write_docs=write_docs,
        )


Summarise = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def summarise(bench: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Summarise:
    """Measures gpunn and fakes of some modes at a tiny network."""
    fake = tmp_path_factory.mktemp("fake") / "fake_worker.py"
    fake.write_text(FAKE)

    def measured(modes: list[str], **workload: Any) -> dict[str, Any]:
        reasons = {"left out": {"images": "not this", "tiny": "has better things to do"}}
        fakes = [
            bench.peers.Peer(mode, str(fake), mode, install="pip install it", leaves_out=reasons.get(mode, {}))
            for mode in modes
        ]
        work = bench.workloads.Workload("tiny", "tiny", bench.workloads.dense(8, 10), batch=32, **workload)
        found = bench.measure.rounds_of(
            work, [bench.peers.PEERS[0], *fakes], 2, "cpu", "float32", sys.executable, lambda line: None
        )
        return bench.measure.summarised(work, found)

    return measured


@pytest.fixture(scope="module")
def measured(summarise: Summarise) -> dict[str, Any]:
    """gpunn and five fakes at eight steps."""
    return summarise(["right", "lazy", "absent", "broken", "left out"], steps=8)


def row(measured: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in measured["results"] if each["peer"] == name)


def test_who_does_the_same_work_ends_with_the_same_cost(measured: dict[str, Any]) -> None:
    assert row(measured, "right")["loss"] == pytest.approx(row(measured, "gpunn")["loss"], abs=1e-4)
    assert row(measured, "right")["agrees"]
    assert row(measured, "gpunn")["agrees"]


def test_who_does_less_is_found_out(measured: dict[str, Any], bench: SimpleNamespace) -> None:
    assert not row(measured, "lazy")["agrees"]
    assert ["LOSS OR ACCURACY DIFFERS" in line[-1] for line in bench.report.rows_of(measured)] == [False, False, True]


def test_who_predicts_something_else_is_found_out(summarise: Summarise) -> None:
    found = summarise(["right", "lazy"], kind="predict", samples=300, steps=3)
    assert row(found, "right")["loss"] == pytest.approx(row(found, "gpunn")["loss"], abs=1e-5)
    assert row(found, "right")["agrees"]
    assert not row(found, "lazy")["agrees"]


def test_another_accuracy_is_another_piece_of_work(bench: SimpleNamespace) -> None:
    work = bench.workloads.Workload("tiny", "tiny", (), accuracy_agreement=0.003)
    one = {"seconds": 1.0, "loss": 0.05, "peak_bytes": 1, "device_bytes": 0, "others": 0.0}

    def agree(accuracy: float) -> list[bool]:
        answers = {"gpunn": 0.990, "a": 0.991, "b": accuracy}
        found = {name: {"about": {}, "rounds": [one | {"accuracy": each}]} for name, each in answers.items()}
        rest = {"data": "", "absent": {}, "left_out": {}, "profile": None}
        return [each["agrees"] for each in bench.measure.summarised(work, {"found": found} | rest)["results"]]

    assert agree(0.989) == [True, True, True]
    assert agree(0.980) == [True, True, False]


def test_what_is_missing_is_said_with_its_install_line_and_not_faked(measured: dict[str, Any]) -> None:
    assert set(measured["absent"]) == {"absent", "broken"}
    assert "not installed" in measured["absent"]["absent"]
    assert "pip install it" in measured["absent"]["absent"]
    assert "ZeroDivisionError: nothing to divide" in measured["absent"]["broken"]


def test_who_is_left_out_is_said_with_the_reason(measured: dict[str, Any], bench: SimpleNamespace) -> None:
    assert measured["left_out"] == {"left out": "has better things to do"}
    assert "left out: has better things to do" in bench.report.not_measured(measured)


def test_every_round_is_kept(measured: dict[str, Any]) -> None:
    for each in measured["results"]:
        assert len(each["rounds_seconds"]) == 2
        assert 0 < each["least_seconds"] <= each["median_seconds"] <= each["most_seconds"]
        assert each["peak_bytes"] > 0
        assert each["precision"] == "float32"
    assert row(measured, "gpunn")["times_gpunn"] == 1
    ratio = row(measured, "right")
    assert min(ratio["rounds_times_gpunn"]) <= ratio["times_gpunn"] <= max(ratio["rounds_times_gpunn"])


def test_the_time_of_gpunns_steps_is_profiled(bench: SimpleNamespace, measured: dict[str, Any]) -> None:
    profile = bench.profiler.Profile.from_dict(measured["profile"])
    assert profile.batch_size == 32
    assert sum(part.flops for part in profile.parts) == 2 * 32 * (2 * 784 * 8 + 3 * 8 * 10)


def program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """`gpunn bench` as one starts it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gpunn", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_the_program_writes_table_json_and_chart(tmp_path: Path) -> None:
    # Too little to measure anything by, but the way that a user goes.
    done = program("start", "--quick", "--device", "cpu", "--peers", "gpunn", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "only 1 of 5 rounds" in done.stdout
    assert "times gpunn's" in done.stdout
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    assert {"commit", "machine", "command", "precision", "date"} <= set(written)
    assert [each["name"] for each in written["workloads"]] == ["start to the first step, 784-128-10"]
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_its_help_lists_groups_and_options() -> None:
    done = program("--help")
    assert done.returncode == 0
    for word in ("dense, conv, conv1024, deep, resnet, predict, start, fast99, growth", "--peers-python", "--quick"):
        assert word in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "words", [("--quick",), ("--rounds", "4"), ("--only", "lenet"), ("--peers", "gpunn")], ids=lambda words: words[0]
)
def test_what_is_kept_is_measured_whole(words: tuple[str, ...]) -> None:
    done = program("dense", "--keep", "--device", "cpu", *words)
    assert done.returncode == 2
    assert "--keep is for whole measurements" in done.stderr


def test_what_the_shell_adds_to_the_path_is_for_this_interpreter(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # So gpunn's workers find the CUDA of tests/simulated_cuda, and a peer's environment stays its own.
    monkeypatch.setenv("PYTHONPATH", "added")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    ours, theirs = (bench.peers.environment(python, tmp_path) for python in (sys.executable, "another/python"))
    assert ours["PYTHONPATH"] == f"{tmp_path}{os.pathsep}added"
    assert theirs["PYTHONPATH"] == str(tmp_path)
    assert "OPENBLAS_NUM_THREADS" not in ours | theirs


def test_peers_without_an_interpreter_are_wrong_usage() -> None:
    done = program("dense", "--peers-python", "nowhere/bin/python")
    assert done.returncode == 2
    assert "--peers-python nowhere/bin/python is no program" in done.stderr


def test_a_group_that_is_not_there_is_wrong_usage() -> None:
    done = program("nothing")
    assert done.returncode == 2
    assert "expected dense, conv" in done.stderr


def test_the_slope_is_the_power_of_growth(bench: SimpleNamespace) -> None:
    assert bench.report.slope([(x, 3 * x**1.5) for x in (1, 10, 100)]) == pytest.approx(1.5)


def test_an_epoch_of_everything_is_timed_on_a_gpu(bench: SimpleNamespace) -> None:
    # A few steps, which take a CPU a second, would be over on a GPU before its clock is worth reading.
    for work in bench.workloads.workloads():
        steps = bench.workloads.on_device(work, "cuda").steps
        if work.group in ("dense", "conv", "conv1024", "deep", "resnet"):
            assert 0 <= bench.workloads.AVAILABLE[work.shape] - steps * work.batch < work.batch
        else:
            assert steps == work.steps
        assert bench.workloads.on_device(work, "cpu") == work


def test_no_batch_is_cut_short(bench: SimpleNamespace) -> None:
    # Peers that compile for one size of batch could not do it, and the others would do less.
    for work in bench.workloads.workloads():
        if work.kind == "steps":
            assert work.batch * work.steps <= bench.workloads.AVAILABLE[work.shape]


# What is to be reached


def work(name: str, times: dict[str, float], data: str = "MNIST", **own: Any) -> dict[str, Any]:
    """A workload in which gpunn takes a second, and each peer so many times as long."""
    common = {"median_seconds": 1.0, "times_gpunn": 1.0, "agrees": True, "accuracy": 0.991}
    rows = [{"peer": "gpunn", **common, **own}]
    rows += [{"peer": peer, **common, "median_seconds": ratio, "times_gpunn": ratio} for peer, ratio in times.items()]
    return {"name": name, "data": data, "results": rows}


def test_every_target_is_about_a_workload_and_a_peer_that_there_are(bench: SimpleNamespace) -> None:
    known = {each.name: each for each in bench.workloads.workloads()}
    peers = {peer.name: peer for peer in bench.peers.PEERS}
    for target in bench.targets.TARGETS:
        assert target.workload in known
        if target.against not in ("", bench.targets.FASTEST):
            assert target.device in peers[target.against].devices
            assert not peers[target.against].why_not(known[target.workload], target.device)


def test_a_target_is_met_or_missed_by_the_measured_ratio(bench: SimpleNamespace) -> None:
    target = bench.targets.Target("cpu", "w", "PyTorch eager", 1.5)
    assert bench.targets.verdict(target, [work("w", {"PyTorch eager": 1.5})]) == ("1.50", "met")
    assert bench.targets.verdict(target, [work("w", {"PyTorch eager": 1.49, "JAX jit": 9})]) == ("1.49", "missed")
    assert bench.targets.verdict(target, [work("w", {"JAX jit": 9})]) == ("", "")
    assert bench.targets.verdict(target, [work("another", {"PyTorch eager": 9})]) == ("", "")


def test_the_fastest_peer_is_the_one_with_the_least_time(bench: SimpleNamespace) -> None:
    target = bench.targets.Target("cuda", "w", bench.targets.FASTEST, 2.0)
    found = work("w", {"PyTorch eager": 9.0, "JAX scan": 1.8})
    assert bench.targets.verdict(target, [found]) == ("1.80 (JAX scan)", "missed")


def test_without_numba_stands_beside_it_and_is_no_peer(bench: SimpleNamespace) -> None:
    plain = bench.peers.PLAIN
    found = work("w", {plain: 1.25, "PyTorch eager": 1.5})
    target = bench.targets.Target("cpu", "w", "PyTorch eager", 1.5)
    assert bench.targets.verdict(target, [found]) == ("1.50 (1.20 without Numba)", "met")
    fastest = bench.targets.Target("cpu", "w", bench.targets.FASTEST, 2.0)
    assert bench.targets.verdict(fastest, [found]) == ("1.50 (PyTorch eager) (1.20 without Numba)", "missed")


def test_without_numba_there_is_one_row_of_gpunn(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, expected in (("0.61", ["gpunn", bench.peers.PLAIN]), ("", ["gpunn"])):
        monkeypatch.setattr(bench.program, "version", lambda installed=installed: installed)
        assert [peer.name for peer in bench.program.chosen_peers("gpunn", "cpu")] == expected


def test_who_did_other_work_has_met_nothing(bench: SimpleNamespace) -> None:
    target = bench.targets.Target("cpu", "w", "PyTorch eager", 1.5)
    assert bench.targets.verdict(target, [work("w", {"PyTorch eager": 9}, agrees=False)]) == ("9.00", "missed")


def test_an_accuracy_is_reached_on_mnist_only(bench: SimpleNamespace) -> None:
    target = bench.targets.Target("cpu", "w", accuracy=0.99)
    assert bench.targets.verdict(target, [work("w", {}, accuracy=0.99)]) == ("99.00%", "met")
    assert bench.targets.verdict(target, [work("w", {}, accuracy=0.9899)]) == ("98.99%", "missed")
    assert bench.targets.verdict(target, [work("w", {}, data="random bytes")]) == ("", "")


def test_a_time_is_reached_by_the_median(bench: SimpleNamespace) -> None:
    target = bench.targets.Target("cuda", "w", most_seconds=20e-6)
    assert bench.targets.verdict(target, [work("w", {}, median_seconds=20e-6)]) == ("20 µs", "met")
    assert bench.targets.verdict(target, [work("w", {}, median_seconds=21e-6)]) == ("21 µs", "missed")


# The page


def test_the_page_is_made_of_the_results_that_are_kept(bench: SimpleNamespace) -> None:
    runs = bench.write_docs.read_runs()
    assert (ROOT / "docs" / "benchmarks.md").read_text("utf-8") == bench.write_docs.page(runs)
    for run in runs:
        for each in run["workloads"]:
            assert all(len(row["rounds_seconds"]) >= bench.report.ROUNDS for row in each["results"])
    pictures = re.findall(r"\]\((images/.*?)\)", bench.write_docs.page(runs))
    assert all((ROOT / "docs" / picture).is_file() for picture in pictures)
    assert len(pictures) == len(set(pictures)), "a chart of each machine"


def test_a_page_shows_every_figure_of_a_run(measured: dict[str, Any], bench: SimpleNamespace) -> None:
    machine = {"processor": "a processor", "cores": 2, "python": "3", "numpy": "2"}
    run = {
        "command": "gpunn bench tiny", "commit": "c0ffee", "machine": machine, "date": "2026-01-01", "device": "cpu",
        "precision": "float32", "load_average": [0.1, 0.1, 0.1], "workloads": [measured],
    }  # fmt: skip
    text = bench.write_docs.page([run])
    assert "## a processor, 2 cores, float32" in text
    assert "| `gpunn bench tiny` | 2026-01-01 | c0ffee | 0.1 |" in text
    for line in bench.report.rows_of(measured):
        assert "| " + " | ".join(line) + " |" in text
    assert "left out: has better things to do" in text
    for part in measured["profile"]["parts"]:
        assert f"| {part['part']} | {part['stage']} |" in text


def test_growth_is_given_by_its_slopes(bench: SimpleNamespace) -> None:
    def point(width: int) -> dict[str, Any]:
        results = [{"peer": "gpunn", "median_seconds": 1e-3 * width**2}]
        return {"name": f"{width}", "scale": {"width": width}, "steps": 1, "results": results}

    text = "\n".join(bench.write_docs.of_growth([point(width) for width in (1, 10, 100)], "growth-cpu.png"))
    assert "| width | 2.00 |" in text
    assert "images/growth-cpu.png" in text


def test_the_charts_are_drawn_of_any_peers(bench: SimpleNamespace, tmp_path: Path) -> None:
    one = {**work("w", {"PyTorch eager": 1.5, "JAX jit": 0.7}), "scale": {}, "steps": 1}
    grown = [{**work("w", {"JAX jit": 1.1}), "scale": {"width": width}, "steps": 1} for width in (10, 100)]
    bench.charts.chart([one, *grown], tmp_path / "bars.png")
    bench.charts.growth_chart([one, *grown], tmp_path / "growth.png")
    for name in ("bars", "growth"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    bench.charts.growth_chart([one], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_words_of_a_chart_are_apart_and_the_least_to_move_moves(bench: SimpleNamespace) -> None:
    apart = bench.charts.apart
    assert apart({"a": 1.0, "b": 3.0}, 1.0) == {"a": 1.0, "b": 3.0}
    assert apart({"a": 2.0, "b": 2.0}, 1.0) == {"a": 1.5, "b": 2.5}
    moved = apart({"a": 1.0, "b": 1.1, "c": 1.2, "d": 9.0, "e": 0.1}, 1.0)
    places = [moved[name] for name in "eabcd"]
    assert min(b - a for a, b in itertools.pairwise(places)) >= 1.0 - 1e-9
    assert moved["d"] == 9.0
    assert bench.charts.mean([2.0, 0.5]) == pytest.approx(1.0)


def test_accuracies_of_a_recipe_are_written_with_their_mean(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "accuracy.py"
    done = subprocess.run(
        [sys.executable, str(script), "mlp", "digits", "--seeds", "0,1", "--device", "cpu", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "accuracy-digits-mlp-cpu.json").read_text("utf-8"))
    accuracies = [run["test_accuracy"] for run in result["runs"]]
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    assert result["mean_test_accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert min(accuracies) > 0.95


def test_trainings_side_by_side_take_what_one_thread_each_would_take() -> None:
    trainings = json.loads((ROOT / "benchmarks" / "results" / "side-by-side-cpu.json").read_text("utf-8"))["trainings"]
    ratios = {each["training"]: each["ratio"] for each in trainings}
    assert list(ratios) == ["digits --epochs 30", "mnist --recipe lenet --epochs 1"]
    assert max(ratios.values()) <= 1.3
    page = (ROOT / "docs" / "design" / "threads.md").read_text("utf-8")
    assert all(f"{ratio:.2f}" in page for ratio in ratios.values())
