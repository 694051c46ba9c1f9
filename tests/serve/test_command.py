"""`gpunn serve` as a program: its line, its end, and what it refuses."""

import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest
from support.cli_helpers import assert_one_line, gpunn, start


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_says_where_it_is_and_ends_with_a_signal(digits: Path, number: signal.Signals, code: int) -> None:
    with start("serve", digits, "--port", 0, "--device", "cpu", cwd=digits.parent) as process:
        line = process.stdout.readline()  # type: ignore[union-attr]
        name, url, *rest = line.split()
        assert (name, " ".join(rest)) == ("digits", "(Ctrl-C ends it)")
        assert url.startswith("http://127.0.0.1:")
        opened = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert b"<html" in opened.open(url, timeout=20).read()
        stream = opened.open(f"{url}api/events", timeout=20)  # a page is open
        assert stream.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (code, "", "")


def test_a_port_in_use_is_one_line(digits: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        done = gpunn("serve", digits, "--port", port, "--device", "cpu")
    assert_one_line(done, 1, f"port {port} of 127.0.0.1 is in use", "--port 0")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere",), 1, ("there is no run nowhere",)),
        ((".",), 1, ("holds no network",)),
        (("digits", "--port", 70000), 2, ("70000",)),
        (("digits", "--host", "example"), 2, ("--host is localhost or an address", "'example'")),
        (("digits", "--port", 0, "--host", "2001:db8::1"), 1, ("cannot be used",)),
        (("digits", "--port", 0, "--device", "tpu"), 2, ("unknown device 'tpu'",)),
        ((), 2, ("RUN",)),
    ],
)
def test_what_cannot_be_served_is_one_line(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], code: int, words: list
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").symlink_to(digits)
    assert_one_line(gpunn("serve", *arguments), code, *words)


def test_without_its_libraries_it_names_the_command(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("starlette", "uvicorn"):
        monkeypatch.setitem(sys.modules, name, None)
    assert_one_line(gpunn("serve", digits), 1, "pip install 'gpunn[web]'", "starlette")
