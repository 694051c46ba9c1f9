"""Refuse requests of other hosts, origins and methods before reading their bodies."""

import asyncio
import ipaddress
import json
import re
import socket
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpunn.errors import in_one_line

MOST_REQUESTS = 256  # at work at once
METHODS = ("GET", "HEAD", "POST")
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
DEFECT = "a defect of gpunn: its line stands in the terminal of gpunn serve"
_MOST_DRAINED, _DRAINING = 1 << 18, 0.5  # bytes of a refused body that are read and dropped, and seconds
_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?")


class RefusedError(Exception):
    """Error of a refused request: its status, and a line with the reason."""

    def __init__(self, status: int, line: str, *, closes: bool = False, **headers: str) -> None:
        super().__init__(line)
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        if closes:  # do not wait for the rest of the body
            self.headers["connection"] = "close"


class Guard:
    """Check every request, and add the security headers to every answer.

    A page of another site may send requests to 127.0.0.1, and a name that it owns may lead there (DNS rebinding). So
    the `Host` must be an address or a name of this machine, and requests that a browser calls cross-site are refused.
    """

    def __init__(self, app: ASGIApp, port: int, hosts: Collection[str], say: Any) -> None:
        self._app, self._port, self._hosts, self._say = app, port, hosts, say
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                own = {name.encode(): value.encode() for name, value in HEADERS.items()}
                kept = [(name, value) for name, value in message.get("headers", ()) if name not in own]
                message = {**message, "headers": [*kept, *own.items()]}
            await send(message)

        self._at_work += 1
        try:
            if self._at_work > MOST_REQUESTS:
                raise RefusedError(503, f"more than {MOST_REQUESTS} requests at once: try again", closes=True)
            self._check(scope)
            await self._app(scope, receive, sending)
        except RefusedError as error:
            if not has_begun:
                await Refusal(error)(scope, receive, sending)
        except Exception as error:  # noqa: BLE001 - the last place that can report it in a line
            self._say(defect(error))
            if not has_begun:
                await Refusal(RefusedError(500, DEFECT))(scope, receive, sending)
        finally:
            self._at_work -= 1

    def _check(self, scope: Scope) -> None:
        """Raise RefusedError for a request that does not come from our page."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = self._host(headers.get("host", []))
        method, is_api = scope["method"], scope["path"].startswith("/api/")
        if method not in METHODS:
            raise RefusedError(405, f"method is {', '.join(METHODS)}", closes=True, allow=", ".join(METHODS))
        site = headers.get("sec-fetch-site", ["none"])[0]
        if is_api and site not in ("same-origin", "none"):
            raise RefusedError(403, f"a request of another site ({site:.20}) is not answered", closes=True)
        origin = headers.get("origin")
        if (method == "POST" or is_api) and origin is not None and origin != [f"http://{host}"]:
            raise RefusedError(403, "a request of another origin is not answered", closes=True)

    def _host(self, given: list[str]) -> str:
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if found is None:
            raise RefusedError(400, "the request has no Host, or one that is none", closes=True)
        name, port = found[1].lower(), int(found[2] or 80)
        if port != self._port or not is_own(name, self._hosts):
            mend = "open the address that gpunn serve has printed"
            raise RefusedError(421, f"this is not the host that was asked for: {mend}", closes=True)
        return given[0]


def defect(error: Exception) -> str:
    """Describe in a line an error that no request should cause."""
    return f"gpunn: a defect of gpunn: {type(error).__name__}: {in_one_line(str(error))}"


def hosts_for(address: str) -> tuple[str, ...]:
    """Return the host names of a server at an address; "" stands for any address."""
    if ipaddress.ip_address(address).is_loopback:
        return ("localhost", "127.0.0.1", "::1", address)
    return ("localhost", socket.gethostname().lower(), "")


def is_own(name: str, hosts: Collection[str]) -> bool:
    """Return whether a host is one of `hosts`; DNS can redirect a name, but not an address."""
    name = name.removeprefix("[").removesuffix("]")
    if name in hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return "" in hosts


class Refusal(Response):
    """Answer with the reason in a line of JSON, then read a little of a body that is still arriving.

    Closing a connection with unread data resets it, and the answer may be lost.
    """

    def __init__(self, error: RefusedError) -> None:
        line = in_one_line(str(error)) or HTTPStatus(error.status).phrase
        super().__init__(json.dumps({"error": line}), error.status, error.headers, "application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, then drain the body within the limits."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = b"" if scope["method"] == "HEAD" else self.body
        await send({"type": "http.response.body", "body": body, "more_body": True})
        left = _MOST_DRAINED if "connection" in self.headers else 0  # else the whole body was read
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAINING):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        await send({"type": "http.response.body", "body": b""})
