"""Workers that share a search, each a process; CI runs these in a stage of their own, as they take most of a minute."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.test_search import FILE, rows_of, search, written

WORKER = """
import sys
from gpunn.experiments.search.search import search
file, out, trials, *storage = sys.argv[1:]
search(file, lambda line: print(line, flush=True), out, *storage, trials=int(trials), device="cpu")
"""


def worker(file: str, out: Path, trials: int, *storage: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORKER, file, str(out), str(trials), *storage]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_what_a_killed_worker_had_begun_is_done_again_and_nothing_twice(tmp_path: Path) -> None:
    text = FILE.replace("epochs = 2", "epochs = 60").replace("warmup = 1", "pruning = false")  # a second and more each
    file, out = written(tmp_path, text), tmp_path / "out"
    process = worker(file, out, 5)
    assert process.stdout is not None
    line = ""
    while "trial 1" not in line:
        line = process.stdout.readline()
        assert line, "it ended"
    time.sleep(0.2)  # the next one has begun
    process.send_signal(signal.SIGKILL)
    process.communicate()
    search(file, out, trials=5)
    rows = rows_of(out)
    assert len(rows) == 5
    assert len({row["optimizer.learning_rate"] for row in rows}) == 5
    # One was cut off, the third or, on a machine that let the test wait, one after it; it is done again as the sixth.
    numbers = {int(row["trial"]) for row in rows}
    assert len(numbers) == 5
    assert {0, 1, 5} < numbers < set(range(6))
    assert [path.name for path in out.glob(".worker-*")] == []


def test_four_workers_share_a_search(tmp_path: Path) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    workers = [worker(file, out, 8) for _ in range(4)]
    said = [process.communicate(timeout=120)[0] for process in workers]
    assert [process.returncode for process in workers] == [0] * 4, said
    rows = rows_of(out)
    assert 8 <= len(rows) <= 11
    assert len({row["trial"] for row in rows}) == len(rows)
    assert len({row["optimizer.learning_rate"] for row in rows}) == len(rows)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """Start PostgreSQL for a test, as the user that it asks for where the test runs as root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # not below a folder that is this user's alone
    before: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(place, "postgres")
        before = ["runuser", "-u", "postgres", "--"]

    def call(program: str, *arguments: str) -> None:
        subprocess.run([*before, str(folders[-1] / program), *arguments], check=True, capture_output=True, cwd=place)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call("initdb", "-D", "data", "-U", "gpunn", "--auth=trust")
    call("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", f"-p {port} -k {place} -h 127.0.0.1", "start")
    try:
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "gpunn", "trials")
        yield f"postgresql+psycopg://gpunn@127.0.0.1:{port}/trials"
    finally:
        call("pg_ctl", "-D", "data", "-w", "-m", "fast", "stop")
        shutil.rmtree(place, ignore_errors=True)


def test_four_workers_share_a_database(tmp_path: Path, database: str) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    workers = [worker(file, out, 8, database) for _ in range(4)]
    said = [process.communicate(timeout=240)[0] for process in workers]
    assert [process.returncode for process in workers] == [0] * 4, said
    rows = rows_of(out)
    assert 8 <= len(rows) <= 11
    assert len({row["trial"] for row in rows}) == len({row["optimizer.learning_rate"] for row in rows}) == len(rows)
