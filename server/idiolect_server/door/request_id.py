"""A name for every request, the caller's or ours: in its answer, and in the log lines that it causes. Plain ASGI."""

import logging
import re
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
SCOPE = "idiolect.request_id"
FORM = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""What is taken of a caller's. Anything else, such as what could break a line of the log, is replaced."""

_current: ContextVar[str] = ContextVar("request_id", default="")


class RequestIds:
    """Around everything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        name = scope[SCOPE] = given if FORM.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        _current.set(name)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        await self._app(scope, receive, named)


class InLogs(logging.Filter):
    """Gives each record `request`: the name of the request in whose course it was written, behind a space."""

    def filter(self, record: logging.LogRecord) -> bool:
        name = _current.get()
        record.request = f" {name}" if name else ""
        return True
