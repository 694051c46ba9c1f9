"""Requests that no page of ours sends: each is refused in a line, and the server lives."""

import io
import json
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from gpunn.serve import app, server
from gpunn.serve.guard import hosts_for, is_own

from .conftest import Served, serving

PNG, JSON = {"content-type": "image/png"}, {"content-type": "application/json"}


def png(pixels: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of so many pixels a side that is small: all of it is white."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BLANK, CUT = png(np.full((99, 99), 255, np.uint8)), png(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8))
PREDICT = "/api/predict"
REFUSED = {
    "no such address": ("GET", "/api/nothing", {}, b"", 404),
    "no such file": ("GET", "/static/nothing.js", {}, b"", 404),
    "a path upwards": ("GET", "/static/../app.py", {}, b"", 404),
    "a path upwards, encoded": ("GET", "/static/%2e%2e/app.py", {}, b"", 404),
    "a path upwards, encoded whole": ("GET", "/static/..%2fapp.py", {}, b"", 404),
    "a path from the root": ("GET", "/static//etc/passwd", {}, b"", 404),
    "a hidden file": ("GET", "/static/.htaccess", {}, b"", 404),
    "a null in a path": ("GET", "/static/app.js%00.png", {}, b"", 404),
    "a path in other letters": ("GET", "/static/%c0%ae%c0%ae/app.py", {}, b"", 404),
    "a backslash": ("GET", "/static/..%5capp.py", {}, b"", 404),
    "DELETE": ("DELETE", "/api/model", {}, b"", 405),
    "PUT": ("PUT", PREDICT, PNG, BLANK, 405),
    "TRACE": ("TRACE", "/", {}, b"", 405),
    "OPTIONS": ("OPTIONS", PREDICT, {}, b"", 405),
    "POST to the page": ("POST", "/", JSON, b"{}", 405),
    "GET of an answer": ("GET", PREDICT, {}, b"", 405),
    "no type": ("POST", PREDICT, {}, b"{}", 415),
    "a form": ("POST", PREDICT, {"content-type": "application/x-www-form-urlencoded"}, b"a=b", 415),
    "a text": ("POST", PREDICT, {"content-type": "text/plain"}, b'{"pixels": []}', 415),
    "SVG": ("POST", PREDICT, {"content-type": "image/svg+xml"}, b"<svg/>", 415),
    "no body": ("POST", PREDICT, JSON, b"", 400),
    "no JSON": ("POST", PREDICT, JSON, b"{", 400),
    "deep JSON": ("POST", PREDICT, JSON, b"[" * 100_000, 400),
    "NaN": ("POST", PREDICT, JSON, b'{"pixels": [NaN]}', 400),
    "a key twice": ("POST", PREDICT, JSON, b'{"pixels": [], "pixels": []}', 400),
    "no UTF-8": ("POST", PREDICT, JSON, b'{"pixels": "\xff"}', 400),
    "a huge whole number": ("POST", PREDICT, JSON, b'{"pixels": [' + b"9" * 5000 + b"]}", 400),
    "a list": ("POST", PREDICT, JSON, b"[]", 422),
    "another key": ("POST", PREDICT, JSON, b'{"pixel": []}', 422),
    "both keys": ("POST", PREDICT, JSON, b'{"pixels": [], "values": []}', 422),
    "too few pixels": ("POST", PREDICT, JSON, b'{"pixels": [1, 2]}', 422),
    "texts for pixels": ("POST", PREDICT, JSON, json.dumps({"pixels": ["x"] * 64}).encode(), 422),
    "a table for pixels": ("POST", PREDICT, JSON, b'{"pixels": {"0": 1}}', 422),
    "large pixels": ("POST", PREDICT, JSON, json.dumps({"pixels": [1e25] * 64}).encode(), 422),
    "infinite pixels": ("POST", PREDICT, JSON, b'{"pixels": [' + b"1e999," * 63 + b"1]}", 422),
    "values by name": ("POST", PREDICT, JSON, b'{"values": {"a": 1}}', 422),
    "an empty picture": ("POST", PREDICT, PNG, b"", 422),
    "nothing drawn": ("POST", PREDICT, PNG, BLANK, 422),
    "a picture that is cut off": ("POST", PREDICT, PNG, CUT[:2000], 422),
    "a picture that is a text": ("POST", PREDICT, PNG, b"hello", 422),
    "a picture that is a table": ("POST", PREDICT, PNG, b"a,b\n1,2\n", 422),
    "a picture that is an array": ("POST", PREDICT, PNG, b"\x93NUMPY\x01\x00v\x00", 422),
    "a picture that is a pickle": ("POST", PREDICT, PNG, b"\x80\x04cos\nsystem\n", 422),
    "a picture that is SVG": ("POST", PREDICT, PNG, b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422),
    "a bomb": ("POST", PREDICT, PNG, bomb(20_000), 422),
    "layers in words": ("POST", f"{PREDICT}?layers=first", PNG, BLANK, 400),
    "a layer beyond": ("POST", f"{PREDICT}?layers=99", JSON, json.dumps({"pixels": [0.5] * 64}).encode(), 422),
    "a layer below 0": ("GET", "/api/unit?layer=-1&unit=0", {}, b"", 400),
    "no unit": ("GET", "/api/unit?layer=0", {}, b"", 400),
    "a unit beyond": ("GET", "/api/unit?layer=0&unit=999", {}, b"", 422),
    "a huge unit": ("GET", f"/api/unit?layer=0&unit={'9' * 50}", {}, b"", 400),
    "another set": ("GET", "/api/sample?set=train&index=0", {}, b"", 422),
    "a set that is a path": ("GET", "/api/sample?set=../test&index=0", {}, b"", 422),
    "a sample beyond": ("GET", "/api/sample?index=999999", {}, b"", 422),
    "a sample in other digits": ("GET", "/api/sample?index=%d9%a3", {}, b"", 400),
    "many mistakes": ("GET", "/api/mistakes?count=100000", {}, b"", 400),
    "another host": ("GET", "/api/model", {"host": "evil.example"}, b"", 421),
    "another port": ("GET", "/api/model", {"host": "127.0.0.1:1"}, b"", 421),
    "a host that begins alike": ("GET", "/api/model", {"host": "127.0.0.1.evil.example"}, b"", 421),
    "an empty host": ("GET", "/api/model", {"host": ""}, b"", 400),
    "a host that is none": ("GET", "/api/model", {"host": "a b@c"}, b"", 400),
    "another origin": ("POST", PREDICT, {**PNG, "origin": "http://evil.example"}, BLANK, 403),
    "no origin of a page": ("POST", PREDICT, {**PNG, "origin": "null"}, BLANK, 403),
    "our origin by another scheme": ("POST", PREDICT, {**PNG, "origin": "https://127.0.0.1"}, BLANK, 403),
    "another site": ("GET", "/api/model", {"sec-fetch-site": "cross-site"}, b"", 403),
    "another port of this machine": ("GET", "/api/model", {"sec-fetch-site": "same-site"}, b"", 403),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_is_refused_in_one_line(site: Served, name: str) -> None:
    method, path, headers, body, status = REFUSED[name]
    url = httpx.URL(site.server.url).copy_with(raw_path=path.encode("latin-1"))
    answer = site.client.request(method, url, headers=headers, content=body)
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error"}
    assert 0 < len(told["error"]) < 700
    assert not any(word in told["error"] for word in ("\n", "Traceback", "/tmp"))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert site.get("/api/model")["task"] == "classification"
    assert not site.said  # nothing is a defect


def raw(site: Served, content: bytes, seconds: float = 5.0) -> bytes:
    """Send bytes, and return all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=seconds) as connection:
        connection.sendall(content)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def head(site: Served, line: str = "POST /api/predict HTTP/1.1", **more: str) -> bytes:
    headers = {"Host": f"127.0.0.1:{site.port}", "Content-Type": "image/png"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


BROKEN = {
    "no HTTP": b"GARBAGE\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
    "a space in a header": b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    "a null": b"GET /\0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length that is none": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a huge head": b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "another coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_request_is_refused_in_one_line(site: Served, name: str) -> None:
    first, _, rest = raw(site, BROKEN[name]).partition(b"\r\n")
    assert first.split()[1].startswith(b"4"), first
    assert set(json.loads(rest.partition(b"\r\n\r\n")[2])) == {"error"}
    assert b"x-content-type-options: nosniff" in rest
    site.get("/api/history")


def test_a_body_of_100_megabytes_is_refused_without_being_read(site: Served) -> None:
    began = time.monotonic()
    for type_, most in (("image/png", app.MOST_PICTURE), ("application/json", app.MOST_JSON)):
        told = raw(site, head(site, Content_Length="100000000", Content_Type=type_) + b"x" * 1000)
        assert told.startswith(b"HTTP/1.1 413 ")
        assert f"{most:,}".encode() in told
        assert b"connection: close" in told.lower()
    told = raw(site, head(site, Content_Length="100000000", Expect="100-continue"))
    assert told.startswith(b"HTTP/1.1 413 ")  # and no 100 before it
    assert time.monotonic() - began < 5


def test_a_chunked_body_is_read_no_further_than_it_may_go(site: Served) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(head(site, Transfer_Encoding="chunked"))
        chunk, sent = b"10000\r\n" + b"x" * 0x10000 + b"\r\n", 0
        try:
            while sent < 100_000_000:
                connection.sendall(chunk)
                sent += 0x10000
        except OSError:
            pass
        assert sent < 4 * app.MOST_PICTURE  # what lies in the buffers of the system, too
    site.get("/api/history")


def test_a_length_that_lies_ends_in_an_error(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    told = raw(site, head(site, Content_Length="3") + BLANK + b"\r\n\r\n")  # the rest is no next request
    assert [line for line in told.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")][-1].split()[1] in (b"400", b"422")
    monkeypatch.setattr(app, "BODY_SECONDS", 0.3)
    told = raw(site, head(site, Content_Length="5000") + BLANK[:100])
    assert told.startswith(b"HTTP/1.1 408 ")


def test_slow_connections_are_closed_and_stop_nobody(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 1.0)
    with serving(digits) as own:
        slow = [socket.create_connection(("127.0.0.1", own.port), timeout=10) for _ in range(60)]
        for connection in slow[:30]:
            connection.sendall(b"GET /api/model HTTP/1.1\r\nHost: 127")
        began = time.monotonic()
        own.get("/api/model")
        assert time.monotonic() - began < 1
        kept = slow.pop()
        kept.sendall(head(own, "GET /api/history HTTP/1.1"))  # one asks, and then begins another request slowly
        assert kept.recv(100).startswith(b"HTTP/1.1 200")
        kept.sendall(b"GET /api/hi")
        for connection in (*slow, kept):
            while connection.recv(65536):
                pass
            connection.close()
        assert time.monotonic() - began < 5


def test_fifty_at_once_are_all_answered(site: Served) -> None:
    body = json.dumps({"pixels": np.random.default_rng(0).random(64).tolist()})

    def ask(number: int) -> tuple[int, list[float]]:
        with httpx.Client(base_url=site.server.url, timeout=30, trust_env=False) as client:
            if number % 5 == 4:
                return client.get("/api/history").status_code, []
            answer = client.post("/api/predict", content=body, headers=JSON)
            return answer.status_code, [each["probability"] for each in answer.json()["answers"]]

    with ThreadPoolExecutor(50) as pool:
        told = list(pool.map(ask, range(50)))
    assert [status for status, _ in told] == [200] * 50
    shares = [each for _, each in told if each]
    assert all(each == shares[0] for each in shares)  # none sees the numbers of another


def test_streams_are_bounded(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_STREAMS", 3)
    held = []
    try:
        for _ in range(3):
            connection = socket.create_connection(("127.0.0.1", site.port), timeout=10)
            connection.sendall(head(site, "GET /api/events HTTP/1.1"))
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
            held.append(connection)
        site.get("/api/events", 503)
        site.get("/api/history")
    finally:
        for connection in held:
            connection.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:  # a page that was closed makes room
        with site.client.stream("GET", "/api/events") as answer:
            if answer.status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the streams of closed pages were not given back")


def test_a_defect_is_a_line_here_and_there(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    with serving(digits) as own:
        monkeypatch.setattr(type(own.server.watcher), "history", lambda _: 1 / 0)
        assert "defect" in own.get("/api/history", 500)["error"]
        assert own.said == ["gpunn: a defect of gpunn: ZeroDivisionError: division by zero"]
        own.get("/api/model")
    assert capfd.readouterr() == ("", "")


def test_hosts_that_are_ours() -> None:
    assert all(is_own(name, hosts_for("127.0.0.1")) for name in ("localhost", "127.0.0.1", "[::1]"))
    assert not any(is_own(name, hosts_for("127.0.0.1")) for name in ("2001:db8::1", "evil.example", "", "localhost.a"))
    assert all(is_own(name, hosts_for("0.0.0.0")) for name in ("localhost", "2001:db8::1", "[fe80::1]"))
    assert not is_own("evil.example", hosts_for("0.0.0.0"))
