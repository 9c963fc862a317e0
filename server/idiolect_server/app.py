"""The application: routes, the error table, and a lifespan that owns everything running."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from idiolect import __version__
from idiolect.errors import IdiolectError
from idiolect_server.door.access import Access
from idiolect_server.door.closing import Closing
from idiolect_server.door.dialect import answer
from idiolect_server.door.request_id import HEADER, SCOPE, RequestIds
from idiolect_server.errors import NotFound, NotReady, RequestError, first_place, first_problem
from idiolect_server.giving_back import GivingBack
from idiolect_server.metrics import ERRORS
from idiolect_server.openapi.document import document
from idiolect_server.page.route import serve_page
from idiolect_server.routes import (
    feedback,
    generate,
    health,
    messages,
    metrics,
    openai,
    responses,
    tokens,
    users,
    version,
)
from idiolect_server.routes import status as server_status
from idiolect_server.serving import Serving, StartEngine, start, start_vllm_engine
from idiolect_server.settings import Settings

log = logging.getLogger(__name__)

EXPOSED = ("X-Request-Id", "X-Idiolect-Personalization", "X-Idiolect-Cursor", "Retry-After")
"""Headers of answers that a web page may read."""


def create_app(settings: Settings, start_engine: StartEngine = start_vllm_engine) -> FastAPI:
    """The server as an ASGI application. It answers health at once and the rest when the engine is up."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        stop = asyncio.Event()
        running = asyncio.create_task(_run(app, start(settings, start_engine), stop))
        yield
        stop.set()
        if app.state.serving is None:
            running.cancel()  # nobody waits for the rest of the start
        with suppress(asyncio.CancelledError):
            await running

    # No redirects to paths without a slash at the end: they would lead to whatever host the caller has named.
    app = FastAPI(
        title="Idiolect",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=_name,
    )
    app.state.serving = None
    app.state.closing = Closing(settings.drain_s)
    for module in (
        generate,
        feedback,
        users,
        openai,
        responses,
        messages,
        tokens,
        server_status,
        health,
        metrics,
        version,
    ):
        app.include_router(module.router)
    serve_page(app)
    app.openapi = lambda: document(app, bool(settings.api_keys))  # type: ignore[method-assign]
    app.add_exception_handler(IdiolectError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_unexpected)
    app.add_middleware(GivingBack)
    app.add_middleware(
        Access, key_digests=settings.api_keys, max_body_bytes=settings.max_body_bytes, closing=app.state.closing
    )
    if settings.cors_origins:
        # Outside the check of keys: a browser asks first (a preflight), and sends none with that.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    app.add_middleware(RequestIds)
    return app


def _name(route: APIRoute) -> str:
    """Of an operation, after which generators of clients name their functions."""
    return route.name


async def _run(app: FastAPI, starting: AbstractAsyncContextManager[Serving], stop: asyncio.Event) -> None:
    """Keep everything running until told to stop; an engine that cannot start, dies or hangs takes the process with it.

    vLLM's engine does not come back within a process, so the supervisor has to start a new one.
    """
    closing: Closing = app.state.closing
    async with AsyncExitStack() as stack:
        try:
            live = await stack.enter_async_context(starting)
        except Exception as error:
            log.error("cannot start: %s", error, exc_info=not isinstance(error, IdiolectError))
            closing.begin(NotReady("the server could not start"), failed=True)
            return
        app.state.serving = live
        watching, stopping = asyncio.ensure_future(live.heart.watch()), asyncio.ensure_future(stop.wait())
        await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            log.error("%s", watching.result().message)
            closing.begin(watching.result(), failed=True)
            await stopping  # requests still use what is here, to say so
        watching.cancel()
        app.state.serving = None


async def _answer_error(request: Request, error: Exception, code: int | None = None) -> JSONResponse:
    assert isinstance(error, IdiolectError)
    ERRORS.labels(error.code).inc()
    return answer(error, request.scope["path"], code)


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: unknown paths, wrong methods, bodies that are not text."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, IdiolectError):
        # FastAPI wraps whatever is raised while it reads a body, our limit included.
        return await _answer_error(request, error.__cause__)
    refused = NotFound(f"no such path: {request.url.path}") if error.status_code == 404 else RequestError(error.detail)
    return answer(refused, request.scope["path"], error.status_code, dict(error.headers or {}))


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    """A mistake of ours: the log has the traceback, the caller learns only that it is one."""
    answer = await _answer_error(request, IdiolectError("internal error", hint="see the server's log"))
    answer.headers[HEADER] = request.scope[SCOPE]  # sent past every middleware
    return answer


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if tuple(problems[0]["loc"]) == ("body",) and not kind.endswith(("/json", "+json")):
        # FastAPI has not read the body as JSON then, and complains of its bytes.
        refused = RequestError("the body is not said to be JSON", hint="send content-type: application/json")
    else:
        refused = RequestError(first_problem(problems), param=first_place(problems) or None)
    return await _answer_error(request, refused)
