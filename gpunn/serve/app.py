"""Route requests to their answers, which threads compute, so that the event loop never waits."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gpunn.data import Data
from gpunn.data.download import offline
from gpunn.errors import GpunnError
from gpunn.saving.checkpointer import Say
from gpunn.saving.safetensors import strict_json
from gpunn.serve.guard import DEFECT, Refusal, RefusedError, defect
from gpunn.serve.samples import RunSamples, UnavailableError
from gpunn.serve.watcher import Watcher

PAGE = Path(__file__).with_name("page")
MOST_JSON, MOST_PICTURE = 4 << 20, 8 << 20  # bytes of a body
BODY_SECONDS = 20.0  # until a body must have arrived
LOADING_SECONDS = 1.0  # that the description of a run waits for its data to load
MOST_STREAMS, MOST_THREADS = 32, 4
_MOST_COUNT = 200  # mistakes in one answer
_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png",
    ".txt": "text/plain; charset=utf-8", ".woff2": "font/woff2", ".wasm": "application/wasm",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_PICTURES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif")


class App:
    """Answer the requests of a run's page."""

    def __init__(self, watcher: Watcher, say: Say) -> None:
        self.watcher, self._say = watcher, say
        self.samples = RunSamples(None if watcher.experiment is None else self._load, watcher.has_test)
        self._threads = anyio.CapacityLimiter(MOST_THREADS)
        self._slow = anyio.CapacityLimiter(2)  # for passes over all samples, which must not delay a drawing
        self._streams = 0

    def _load(self) -> Data:
        """Load the data of the run, without a download."""
        assert self.watcher.experiment is not None
        with offline():
            return self.watcher.experiment.load_data(self.watcher.served.model.tokens)

    def asgi(self) -> Starlette:
        """Make the ASGI application."""
        routes = [
            Route("/", self.page),
            Route("/static/{name:path}", self.static),
            Route("/favicon.ico", self.favicon),
            Route("/api/model", self.model),
            Route("/api/predict", self.predict, methods=["POST"]),
            Route("/api/unit", self.unit),
            Route("/api/sample", self.sample),
            Route("/api/mistakes", self.mistakes),
            Route("/api/confusion", self.confusion),
            Route("/api/history", self.history),
            Route("/api/events", self.events),
        ]
        return Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers=dict.fromkeys((HTTPException, RefusedError, Exception), _refused),
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.samples.begin()
        following = asyncio.create_task(self.watcher.run())
        try:
            yield
        finally:
            self.watcher.end()
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def _answer(self, work: Callable[[], Any], *, is_slow: bool = False) -> Response:
        """Answer with the JSON of a result that a thread computes, or with the status and line of its error."""
        try:
            value = await anyio.to_thread.run_sync(work, limiter=self._slow if is_slow else self._threads)
        except UnavailableError as error:
            raise RefusedError(404, str(error)) from None
        except GpunnError as error:
            raise RefusedError(422, str(error)) from None
        except MemoryError as error:
            raise RefusedError(503, str(error) or "out of memory") from None
        except RefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - a line in the terminal and one for the page, no traceback
            self._say(defect(error))
            raise RefusedError(500, DEFECT) from None
        return Response(json.dumps(value, allow_nan=False, ensure_ascii=False), media_type="application/json")

    async def page(self, _: Request) -> Response:
        """Answer with the page."""
        return _file("index.html")

    async def static(self, request: Request) -> Response:
        """Answer with a file of the page."""
        return _file(request.path_params["name"])

    async def favicon(self, _: Request) -> Response:
        """Answer without content."""
        return Response(status_code=204)

    async def model(self, _: Request) -> Response:
        """Describe the network and its run."""
        watcher = self.watcher

        def described() -> dict[str, Any]:
            trouble = self.samples.trouble(LOADING_SECONDS)
            return {
                "run": str(watcher.folder.folder or watcher.folder.file),
                "state": watcher.state,
                "has_samples": not trouble,
                "samples_note": trouble,
                "has_history": bool(watcher.rows) or watcher.state == "training",
                "has_test": self.samples.has_test() and not trouble,
                **watcher.describe(self.samples),
            }

        return await self._answer(described)

    async def predict(self, request: Request) -> Response:
        """Predict a picture or values, with the outputs of the layers."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (*_PICTURES, "application/json"):
            known = ", ".join((*_PICTURES, "application/json"))
            raise RefusedError(415, f"the Content-Type of a body is {known}", closes=True)
        layers = _layers(request)
        is_json = kind == "application/json"
        content = await _body(request, MOST_JSON if is_json else MOST_PICTURE)
        served = self.watcher.served

        def answered() -> dict[str, Any]:
            return served.answer(served.given(_parsed(content)) if is_json else served.picture(content), layers)

        return await self._answer(answered)

    async def unit(self, request: Request) -> Response:
        """Describe a unit: its weights, and the samples that activate it most."""
        layer, unit = _whole(request, "layer"), _whole(request, "unit")
        return await self._answer(lambda: self.samples.unit(self.watcher.served, layer, unit), is_slow=True)

    async def sample(self, request: Request) -> Response:
        """Return a sample of the data."""
        name, index = request.query_params.get("set", "validation"), _whole(request, "index", 0)
        return await self._answer(lambda: self.samples.sample(self.watcher.served, name, index), is_slow=True)

    async def mistakes(self, request: Request) -> Response:
        """Return the mistakes of a set."""
        first, count = _whole(request, "first", 0), _whole(request, "count", 50)
        if count > _MOST_COUNT:
            raise RefusedError(400, f"count is at most {_MOST_COUNT}, got {count}")
        given, samples = request.query_params.get("set"), self.samples
        return await self._answer(
            lambda: samples.mistakes(self.watcher.served, given or samples.default_set(), first, count), is_slow=True
        )

    async def confusion(self, request: Request) -> Response:
        """Return the confusion matrix of a set."""
        given, samples = request.query_params.get("set"), self.samples
        return await self._answer(
            lambda: samples.confusion(self.watcher.served, given or samples.default_set()), is_slow=True
        )

    async def history(self, _: Request) -> Response:
        """Return the whole history."""
        return await self._answer(self.watcher.history)

    async def events(self, request: Request) -> Response:
        """Stream the records and the state as they change."""
        given = request.headers.get("last-event-id") or request.query_params.get("last")
        after = int(given) if given is not None and re.fullmatch(r"[0-9]{1,10}", given) else None
        if self._streams >= MOST_STREAMS:
            raise RefusedError(503, f"{MOST_STREAMS} pages follow this run already: close one", retry_after="5")

        async def streamed() -> AsyncIterator[str]:
            self._streams += 1
            try:
                async for text in self.watcher.events(after):
                    yield text
            finally:
                self._streams -= 1

        return StreamingResponse(streamed(), media_type="text/event-stream")


def _file(name: str) -> Response:
    """Answer with a file of the page; only plain names, so no path leads out of its folder."""
    parts = name.split("/")
    path = PAGE.joinpath(*parts)
    is_plain = len(parts) <= 3 and all(_NAME.fullmatch(part) for part in parts) and path.suffix in _TYPES
    if not is_plain or not path.is_file() or PAGE.resolve() not in path.resolve().parents:
        raise RefusedError(404, "there is no such file")
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])


def _parsed(content: bytes) -> Any:
    try:
        return strict_json(content)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is no JSON") from None


async def _body(request: Request, most: int) -> bytes:
    """Read a body of at most `most` bytes; refuse a larger one without reading it."""
    too_large = RefusedError(413, f"a body of this type is at most {most:,} bytes", closes=True)
    given = request.headers.get("content-length")
    if given is not None and (not re.fullmatch(r"[0-9]{1,19}", given) or int(given) > most):
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise RefusedError(408, f"the body did not come in {BODY_SECONDS:g} seconds", closes=True) from None
    except ClientDisconnect:
        raise RefusedError(400, "the body was cut off", closes=True) from None
    return b"".join(parts)


def _whole(request: Request, name: str, default: int | None = None) -> int:
    given = request.query_params.get(name, None if default is None else str(default))
    if given is None or not re.fullmatch(r"[0-9]{1,9}", given):
        got = "nothing" if given is None else repr(given[:40])
        raise RefusedError(400, f"{name} is a whole number, got {got}")
    return int(given)


def _layers(request: Request) -> list[int] | None:
    """Return the requested layers: None for all, [] for none, or a list."""
    given = request.query_params.get("layers", "all")
    if given in ("all", "none"):
        return None if given == "all" else []
    if len(given) > 1000 or not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", given):
        raise RefusedError(400, "layers is all, none, or numbers with commas")
    return [int(each) for each in dict.fromkeys(given.split(","))]


async def _refused(request: Request, error: Exception) -> Response:
    """Answer an error by its status and one line."""
    if isinstance(error, HTTPException):  # of the router
        path, status = f"{request.url.path:.80}", error.status_code
        if allowed := (error.headers or {}).get("Allow", ""):
            error = RefusedError(status, f"the method of {path} is {allowed}", allow=allowed)
        else:
            error = RefusedError(status, f"nothing is at {path}")
    elif not isinstance(error, RefusedError):  # the guard prints it in the terminal
        error = RefusedError(500, DEFECT)
    return Refusal(error)
