"""A stream of server-sent events, of either API: it ends whole, or with an event that says why not."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from idiolect.errors import IdiolectError
from idiolect_server.door.closing import LAST_WORDS_S
from idiolect_server.metrics import ERRORS
from idiolect_server.routes.caller import unless_caller_leaves

PING_S = 15.0
"""Between comments without meaning, for proxies that cut what is silent."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nobody between us and the caller keeps events, or holds them back (nginx's ngx_http_proxy_module)."""


def event(name: str, data: str) -> str:
    """One event, as the HTML standard writes it (section 9.2.6). `data` is one line."""
    return f"event: {name}\ndata: {data}\n\n"


def described(*names: str) -> dict[str, Any]:
    """The media type of a stream, for the document of all routes: what each event is. Without names, it has none."""
    properties: dict[str, Any] = {"data": {"type": "string", "contentMediaType": "application/json"}}
    if names:
        properties["event"] = {"enum": list(names)}
    return {"text/event-stream": {"schema": {"type": "object", "properties": properties, "required": list(properties)}}}


class EventStream(StreamingResponse):
    """Whole `events`. After the first byte no status can change: an error is the last event, as `told` has it."""

    def __init__(
        self,
        http: Request,
        events: AsyncGenerator[str, None],
        told: Callable[[IdiolectError], str],
        deadline: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(events, headers={**HEADERS, **(headers or {})}, media_type="text/event-stream")
        self._http, self._events, self._told, self._deadline = http, events, told, deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        last = ""
        pinging = asyncio.ensure_future(_ping(send))
        try:
            await unless_caller_leaves(self._http, self._write(send), self._deadline)
        except IdiolectError as error:
            ERRORS.labels(error.code).inc()
            last = self._told(error)
        finally:
            pinging.cancel()
        # A caller who does not read must not hold up the server's end.
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await send({"type": "http.response.body", "body": last.encode(), "more_body": False})

    async def _write(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            async for one in events:
                await send({"type": "http.response.body", "body": one.encode(), "more_body": True})


async def _ping(send: Send) -> None:
    while True:
        await asyncio.sleep(PING_S)
        await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
