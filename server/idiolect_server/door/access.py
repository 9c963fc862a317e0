"""What stands before every route: host, API key, size of the body, and whether the server is closing.

Plain ASGI, so streams pass untouched.
"""

import hmac
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from idiolect.errors import IdiolectError
from idiolect_server.door.closing import Closing
from idiolect_server.door.dialect import answer
from idiolect_server.door.keys import digest
from idiolect_server.errors import BodyTooLarge, Unauthorized, UnknownHost
from idiolect_server.page.paths import is_page

LONG_PATHS = {
    *("/generate", "/tokenize", "/detokenize"),
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
}
"""Whose bodies hold whole conversations."""
SHORT_BODY_BYTES = 64 << 10
"""Of all other routes: votes, profiles."""
_HEALTH = "/health"
LOOPBACK = re.compile(r"(localhost\.?|127(\.\d{1,3}){3}|\[::1\])(:\d*)?", re.IGNORECASE)


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return f"{path}/".startswith(f"{_HEALTH}/") or is_page(path)


class Access:
    """Refuses requests without a configured key (all but health and the page), bodies over the limit, and everything
    once we close.

    Without keys it answers only to names of this machine: a web page can give itself another one that leads here (DNS
    rebinding), and would be let in by the browser of whoever sits here.
    """

    def __init__(self, app: ASGIApp, *, key_digests: Sequence[str], max_body_bytes: int, closing: Closing) -> None:
        self._app = app
        self._key_digests = key_digests
        self._max_body_bytes = max_body_bytes
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers, open_to_all = Headers(scope=scope), is_open(scope["path"])
        if not self._key_digests:
            if not all(LOOPBACK.fullmatch(host) for host in headers.getlist("host")):
                return await _refuse(UnknownHost("this server has no such name"), scope, receive, send)
        elif not open_to_all and not self._knows(headers):
            error = Unauthorized("a valid API key is required", hint="send Authorization: Bearer KEY")
            return await _refuse(error, scope, receive, send, {"WWW-Authenticate": "Bearer"})
        if open_to_all:
            return await self._app(scope, receive, send)
        if self._closing.reason is not None:
            return await _refuse(self._closing.reason, scope, receive, send, {"Connection": "close"})
        self._closing.n_running += 1
        try:
            await self._bounded(scope, receive, send, headers.get("content-length", "0"))
        finally:
            self._closing.n_running -= 1

    def _knows(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if not scheme:
            scheme, key = "bearer", headers.get("x-api-key", "")  # as Anthropic's clients send it
        presented = digest(key.strip())
        # All are compared, so that the time taken does not tell which one was close.
        matches = [hmac.compare_digest(presented, known) for known in self._key_digests]
        return scheme.lower() == "bearer" and any(matches)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, length: str) -> None:
        longest = self._max_body_bytes
        if scope["path"] not in LONG_PATHS:
            longest = min(longest, SHORT_BODY_BYTES)
        try:
            if not length.isdecimal() or int(length) > longest:
                raise _too_large(longest)
            await self._app(scope, _counted(receive, longest), send)
        except BodyTooLarge as error:
            # Only ever raised while the body is read, so nothing has been sent yet.
            await _refuse(error, scope, receive, send)


async def _refuse(
    error: IdiolectError, scope: Scope, receive: Receive, send: Send, headers: dict[str, str] | None = None
) -> None:
    await answer(error, scope["path"], more=headers)(scope, receive, send)


def _counted(receive: Receive, longest: int) -> Receive:
    n_bytes = 0

    async def counted() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > longest:
            raise _too_large(longest)
        return message

    return counted


def _too_large(max_body_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body exceeds {max_body_bytes} bytes")
