"""How many cores there are for this process, and how many of them others leave to it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpunn.kernels import cores


class Machine:
    """Cores, a clock, and what everybody has used of them so far, in core seconds."""

    def __init__(self, size: int) -> None:
        self.size, self.now, self.own, self.others, self.looks = size, 100.0, 1.0, 50.0, 0

    def used(self, _allowed: set[int]) -> float:
        self.looks += 1
        return self.own + self.others

    def go_on(self, seconds: float, own: float, others: float) -> None:
        """Let some time pass, with so many cores busy for this process and for others."""
        self.now, self.own, self.others = self.now + seconds, self.own + seconds * own, self.others + seconds * others


def made(monkeypatch: pytest.MonkeyPatch, size: int, groups: list[cores._Pool] | None = None) -> Machine:
    machine = Machine(size)
    monkeypatch.setattr(cores, "allowed", lambda: set(range(size)))
    monkeypatch.setattr(cores, "_groups", lambda: groups or [])
    monkeypatch.setattr(cores, "_used_of", machine.used)
    clocks = SimpleNamespace(perf_counter=lambda: machine.now, process_time=lambda: machine.own)
    monkeypatch.setattr(cores, "time", clocks)
    return machine


@pytest.mark.parametrize(
    ("size", "own", "others", "free"),
    [
        (2, 0.0, 0.0, 2),
        (2, 2.0, 0.0, 2),  # the own threads that wait are nobody else
        (2, 1.0, 0.3, 2),
        (2, 1.0, 1.0, 1),
        (2, 0.2, 2.0, 1),
        (2, 0.0, 9.0, 1),
        (1, 1.0, 0.0, 1),
        (4, 2.0, 2.0, 2),
        (16, 8.0, 3.0, 16),
        (16, 8.0, 8.0, 10),
        (16, 1.0, 15.0, 1),
    ],
)
def test_others_leave_what_they_do_not_use(
    monkeypatch: pytest.MonkeyPatch, size: int, own: float, others: float, free: int
) -> None:
    machine, load_monitor = made(monkeypatch, size), cores.LoadMonitor()
    assert load_monitor.free() == size  # nothing is known yet
    machine.go_on(0.4, own, others)
    assert load_monitor.free() == free
    machine.go_on(0.4, own, 0.0)
    assert load_monitor.free() == size  # the others have ended


def test_what_others_did_while_it_waited_says_nothing_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, load_monitor = made(monkeypatch, 2), cores.LoadMonitor()
    assert load_monitor.free() == 2
    machine.go_on(3.0, 0.1, 1.8)
    assert load_monitor.free() == 2
    machine.go_on(0.3, 1.0, 0.9)
    assert load_monitor.free() == 1  # they go on


def test_after_a_wait_all_cores_are_tried_and_soon_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of less than a quarter of a second between waits would else keep the one thread of a moment long ago."""
    machine, load_monitor = made(monkeypatch, 2), cores.LoadMonitor()
    load_monitor.free()
    machine.go_on(0.4, 1.0, 1.0)
    assert load_monitor.free() == 1
    machine.go_on(3.0, 0.1, 1.8)
    assert load_monitor.free() == 2
    machine.go_on(0.12, 1.0, 0.9)
    assert load_monitor.free() == 1  # they go on


def test_who_gets_next_to_nothing_gives_way_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, load_monitor = made(monkeypatch, 2), cores.LoadMonitor()
    load_monitor.free()
    for _ in range(2):  # products of seconds, so that it looks seldom
        machine.go_on(3.0, 0.1, 1.8)
        free = load_monitor.free()
    assert free == 1


def test_it_looks_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, load_monitor = made(monkeypatch, 2), cores.LoadMonitor()
    for _ in range(1000):
        load_monitor.free()
        machine.go_on(0.001, 1.0, 0.0)
    assert machine.looks == 4


def test_a_forked_child_does_not_judge_by_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, load_monitor = made(monkeypatch, 2), cores.LoadMonitor()
    load_monitor.free()
    machine.go_on(1.0, 1.0, 0.0)
    machine.own = 0.0  # a child's clock begins at 0, the machine's goes on
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert load_monitor.free() == 2


def test_where_nothing_can_be_read_nobody_else_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine, load_monitor = made(monkeypatch, 4), cores.LoadMonitor()
    monkeypatch.undo()
    monkeypatch.setattr(cores, "allowed", lambda: set(range(4)))
    monkeypatch.setattr(cores, "_groups", list)
    monkeypatch.setattr(cores, "_STATISTICS", tmp_path / "none")
    for now in (1.0, 2.0):
        machine.go_on(1.0, 1.0, 3.0)
        load_monitor._measure(now)
        assert load_monitor._free == 4


def test_only_the_cores_that_are_allowed_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statistics = tmp_path / "stat"
    statistics.write_text(
        "cpu  99 99 99 99 99 99 99 99 0 0\ncpu0 100 20 30 5000 700 4 5 6 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\n"
        "cpu11 1000 0 0 0 0 0 0 0 0 0\nintr 5 6\n"
    )
    monkeypatch.setattr(cores, "_STATISTICS", statistics)
    ticks = os.sysconf("SC_CLK_TCK")
    assert cores._used_of({0}) == 165 / ticks
    assert cores._used_of({0, 11}) == 1165 / ticks


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a control group one below the root, in which this process is."""
    (tmp_path / "own").write_text("1:cpu:/elsewhere\n0::/box/inner\n")
    folder = tmp_path / "groups" / "box" / "inner"
    folder.mkdir(parents=True)
    monkeypatch.setattr(cores, "_OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
    found = cores._groups.__wrapped__
    monkeypatch.setattr(cores, "_groups", found)
    monkeypatch.setattr(cores, "allowed", lambda: set(range(16)))
    return folder


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", 16), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 16)],
)
def test_a_container_has_the_cores_of_its_limit(group: Path, limit: str, count: int) -> None:
    assert cores.cores() == 16
    (group.parent / "cpu.max").write_text(f"{limit}\n")
    assert cores.cores() == count


def test_processes_of_a_container_share_its_limit(monkeypatch: pytest.MonkeyPatch, group: Path) -> None:
    (group / "cpu.max").write_text("400000 100000\n")
    (group / "cpu.stat").write_text("usage_usec 5000000\nuser_usec 1\n")
    groups = cores._groups()
    machine, load_monitor = made(monkeypatch, 64, groups), cores.LoadMonitor()
    assert load_monitor.free() == 4
    machine.go_on(1.0, 2.0, 2.0)
    (group / "cpu.stat").write_text("usage_usec 9000000\nuser_usec 1\n")
    assert load_monitor.free() == 2
