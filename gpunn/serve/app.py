"""What is answered at which address; the work is done in threads, so that the loop never waits for it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

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
from gpunn.serve.watching import Watcher

PAGE = Path(__file__).with_name("page")
MOST_JSON, MOST_PICTURE = 4 << 20, 8 << 20  # bytes of a body
BODY_SECONDS = 20.0  # in which a body must have come
LOADING_SECONDS = 1.0  # that the description of a run waits for its data, to say whether there are any
MOST_STREAMS, MOST_THREADS = 32, 4
_MOST_COUNT = 200  # mistakes in one answer
_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png",
    ".txt": "text/plain; charset=utf-8", ".woff2": "font/woff2", ".wasm": "application/wasm",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_PICTURES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif")

Result = TypeVar("Result")


class App:
    """The addresses of a run's page."""

    def __init__(self, watcher: Watcher, say: Say) -> None:
        self.watcher, self._say = watcher, say
        self.samples = RunSamples(None if watcher.experiment is None else self._load, watcher.has_test)
        self._threads = anyio.CapacityLimiter(MOST_THREADS)
        self._slow = anyio.CapacityLimiter(2)  # for what goes through all samples: it must not keep a drawing waiting
        self._streams = 0

    def _load(self) -> Data:
        """Load the data of the run; a page asks nobody for them."""
        assert self.watcher.experiment is not None
        with offline():
            return self.watcher.experiment.load_data(self.watcher.served.model.tokens)

    def asgi(self) -> Starlette:
        """Make the application."""
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

    async def _in_thread(self, work: Callable[[], Result], *, is_slow: bool = False) -> Result:
        """Do some work in a thread; an error of it becomes a line with its status."""
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._slow if is_slow else self._threads)
        except UnavailableError as error:
            raise RefusedError(404, str(error)) from None
        except GpunnError as error:
            raise RefusedError(422, str(error)) from None
        except MemoryError as error:
            raise RefusedError(503, str(error) or "out of memory") from None
        except RefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - no traceback to anybody: a line here, and a line there
            self._say(defect(error))
            raise RefusedError(500, DEFECT) from None

    async def page(self, _: Request) -> Response:
        """Answer with the page."""
        return _file("index.html")

    async def static(self, request: Request) -> Response:
        """Answer with a file of the page."""
        return _file(request.path_params["name"])

    async def favicon(self, _: Request) -> Response:
        """Answer that there is none."""
        return Response(status_code=204)

    async def model(self, _: Request) -> Response:
        """Describe the network and its run."""
        watcher = self.watcher

        def described() -> dict[str, Any]:
            served, ranges = watcher.served, {}
            trouble = self.samples.trouble(LOADING_SECONDS)
            if served.columns is not None and not trouble:
                with suppress(UnavailableError):
                    ranges = self.samples.ranges()
            experiment, figures = watcher.experiment, watcher.figures()
            accuracy = figures.get("test_accuracy", figures.get("validation_accuracy"))
            return {
                "name": watcher.folder.name,
                "run": str(watcher.folder.folder or watcher.folder.file),
                "recipe": experiment.name if experiment else "",
                "data": Path(experiment.data.source).name if experiment else "",
                "state": watcher.state,
                "has_samples": not trouble,
                "samples_note": trouble,
                "has_history": bool(watcher.rows) or watcher.state == "training",
                "has_test": self.samples.has_test() and not trouble,
                "accuracy": accuracy,
                "figures": figures,
                **served.describe(ranges),
            }

        return _json(await self._in_thread(described))

    async def predict(self, request: Request) -> Response:
        """Answer a picture or values."""
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

        return _json(await self._in_thread(answered))

    async def unit(self, request: Request) -> Response:
        """Show a unit: its weights, and the images that it answers to most."""
        layer, unit = _whole(request, "layer"), _whole(request, "unit")
        return _json(await self._in_thread(lambda: self.samples.unit(self.watcher.served, layer, unit), is_slow=True))

    async def sample(self, request: Request) -> Response:
        """Show a sample of the data."""
        name, index = request.query_params.get("set", "validation"), _whole(request, "index", 0)
        return _json(await self._in_thread(lambda: self.samples.sample(self.watcher.served, name, index), is_slow=True))

    async def mistakes(self, request: Request) -> Response:
        """Show the mistakes of a set."""
        first, count = _whole(request, "first", 0), _whole(request, "count", 50)
        if count > _MOST_COUNT:
            raise RefusedError(400, f"count is at most {_MOST_COUNT}, got {count}")
        given, samples = request.query_params.get("set"), self.samples
        return _json(
            await self._in_thread(
                lambda: samples.mistakes(self.watcher.served, given or samples.usual(), first, count), is_slow=True
            )
        )

    async def confusion(self, request: Request) -> Response:
        """Show the confusion matrix of a set."""
        given, samples = request.query_params.get("set"), self.samples
        return _json(
            await self._in_thread(
                lambda: samples.confusion(self.watcher.served, given or samples.usual()), is_slow=True
            )
        )

    async def history(self, _: Request) -> Response:
        """Answer with the whole history."""
        return _json(await self._in_thread(self.watcher.history))

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
    """Answer with a file of the page: of plain names only, so that none leads out of its folder."""
    parts = name.split("/")
    path = PAGE.joinpath(*parts)
    is_plain = len(parts) <= 3 and all(_NAME.fullmatch(part) for part in parts) and path.suffix in _TYPES
    if not is_plain or not path.is_file() or PAGE.resolve() not in path.resolve().parents:
        raise RefusedError(404, "there is no such file")
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])


def _json(value: Any) -> Response:
    return Response(json.dumps(value, allow_nan=False, ensure_ascii=False), media_type="application/json")


def _parsed(content: bytes) -> Any:
    try:
        return strict_json(content)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is no JSON") from None


async def _body(request: Request, most: int) -> bytes:
    """Read a body of at most so many bytes; refuse a larger one without reading it."""
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
    """Return the layers that are asked for: "all" or left out, "none", or numbers with commas."""
    given = request.query_params.get("layers", "all")
    if given in ("all", "none"):
        return None if given == "all" else []
    if len(given) > 1000 or not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", given):
        raise RefusedError(400, "layers is all, none, or numbers with commas")
    return [int(each) for each in dict.fromkeys(given.split(","))]


async def _refused(request: Request, error: Exception) -> Response:
    """Answer why there is no answer, in a line."""
    if isinstance(error, HTTPException):  # of the router
        allowed = (error.headers or {}).get("Allow", "")
        line = (
            f"the method of {request.url.path:.80} is {allowed}" if allowed else f"nothing is at {request.url.path:.80}"
        )
        error = (
            RefusedError(error.status_code, line, allow=allowed) if allowed else RefusedError(error.status_code, line)
        )
    elif not isinstance(error, RefusedError):  # the guard says it in the terminal
        error = RefusedError(500, DEFECT)
    return Refusal(error)
