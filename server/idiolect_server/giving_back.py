"""What a request has taken is given back when the last byte of its answer is sent, or its caller has left. Plain ASGI.

FastAPI's dependencies with `yield` do this too, for 17 microseconds per request.
"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

_TAKEN = "idiolect.taken"


class GivingBack:
    """Around all routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken: list[Callable[[], None]] = []
        scope[_TAKEN] = taken
        try:
            await self._app(scope, receive, send)
        finally:
            for give_back in taken:
                give_back()


def give_back_after(http: Request, give_back: Callable[[], None]) -> None:
    """Have this called when the request is over."""
    http.scope[_TAKEN].append(give_back)
