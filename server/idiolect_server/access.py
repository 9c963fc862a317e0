"""What stands before every route: the API key and the size of the body. Plain ASGI, so streams pass untouched."""

import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from idiolect_server.errors import BodyTooLarge, Unauthorized, body, status
from idiolect_server.keys import digest

OPEN_PREFIX = "/health/"


class Access:
    """Refuses requests without a configured key (all but health) and bodies over the limit."""

    def __init__(self, app: ASGIApp, *, key_digests: Sequence[str], max_body_bytes: int) -> None:
        self._app = app
        self._key_digests = key_digests
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        if self._key_digests and not scope["path"].startswith(OPEN_PREFIX) and not self._knows(headers):
            error = Unauthorized("a valid API key is required", hint="send Authorization: Bearer KEY")
            answer = JSONResponse(body(error), status(error), {"WWW-Authenticate": "Bearer"})
            return await answer(scope, receive, send)
        try:
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > self._max_body_bytes:
                raise _too_large(self._max_body_bytes)
            await self._app(scope, self._counted(receive), send)
        except BodyTooLarge as error:
            # Only ever raised while the body is read, so nothing has been sent yet.
            await JSONResponse(body(error), status(error))(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        presented = digest(key.strip())
        # All are compared, so that the time taken does not tell which one was close.
        matches = [hmac.compare_digest(presented, known) for known in self._key_digests]
        return scheme.lower() == "bearer" and any(matches)

    def _counted(self, receive: Receive) -> Receive:
        n_bytes = 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self._max_body_bytes:
                raise _too_large(self._max_body_bytes)
            return message

        return counted


def _too_large(max_body_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body exceeds {max_body_bytes} bytes")
