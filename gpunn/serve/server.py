"""Serve the page of a run on an address of this machine, until Ctrl-C."""

import asyncio
import errno
import ipaddress
import json
import socket
import threading
import webbrowser
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpunn.errors import OptionError, OutputError
from gpunn.saving.checkpointer import Say
from gpunn.serve.app import App
from gpunn.serve.folder import RunFolder
from gpunn.serve.guard import HEADERS, Guard, hosts_for
from gpunn.serve.watcher import Watcher

REQUEST_SECONDS = 15.0  # until the head of a request must have arrived
MOST_CONNECTIONS = 512
_HEAD_BYTES = 32 << 10


class Protocol(H11Protocol):
    """Speak HTTP as uvicorn does, but close idle connections, and answer errors as JSON."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """Close a connection if the head of its next request is late."""
        if self.transport.is_closing():
            return
        is_waiting = self.cycle is None or self.cycle.response_complete
        left = self._since + REQUEST_SECONDS - self.loop.time() if is_waiting else REQUEST_SECONDS
        if left <= 0:
            self.transport.close()
            return
        self._timer = self.loop.call_later(max(left, 0.05), self._close_if_idle)

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if timer := vars(self).get("_timer"):
            timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"error": msg}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        pairs = [(name.encode(), value.encode()) for name, value in (headers | HEADERS).items()]
        try:
            for event in (h11.Response(status_code=400, headers=pairs), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # in the middle of an answer
            pass
        self.transport.close()


class PageServer(uvicorn.Server):
    """Serve one run; on shutdown, end its streams before waiting for connections."""

    def __init__(self, run: str, host: str, port: int, device: str, say: Say) -> None:
        self.socket, self.url = listen(host, port)
        try:
            self.watcher = Watcher(RunFolder(run), device, say)
            own = self.socket.getsockname()
            app = Guard(App(self.watcher, say).asgi(), own[1], hosts_for(own[0]), say)
        except BaseException:
            self.socket.close()
            raise
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=3,
                h11_max_incomplete_event_size=_HEAD_BYTES,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.watcher.end()
        await asyncio.sleep(0)
        await super().shutdown(sockets)

    def serve_until_signal(self) -> None:
        """Serve until a signal, then raise it as without a server."""
        self.run(sockets=[self.socket])


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Listen at an address, and return the socket and the URL for a browser."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise OptionError(f"--host is localhost or an address such as 127.0.0.1, got {host!r:.80}") from None
    if not 0 <= port <= 65535:
        raise OptionError(f"--port is a number from 0 to 65535, got {port}")
    made = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(address), port))
        made.listen(128)
    except OSError as error:
        made.close()
        mend = "give another by --port, or --port 0 for any that is free"
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror or error})"
        raise OutputError(f"port {port} of {host} {why}: {mend}") from None
    shown = "127.0.0.1" if address.is_unspecified and address.version == 4 else str(address)
    shown = "::1" if address.is_unspecified and address.version == 6 else shown
    return made, f"http://{f'[{shown}]' if address.version == 6 else shown}:{made.getsockname()[1]}/"


def serve(run: str, host: str, port: int, device: str, say: Say, *, opens: bool = False) -> None:
    """Serve the page of a run until a signal."""
    server = PageServer(run, host, port, device, say)
    if not ipaddress.ip_address(server.socket.getsockname()[0]).is_loopback:
        say(f"everybody who reaches {host} can open this page, draw, and see the run's data: there is no password")
    say(f"{server.watcher.folder.name}  {server.url}  (Ctrl-C ends it)")
    if opens:
        threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    server.serve_until_signal()
