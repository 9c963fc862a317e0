"""One caller's connection: uvicorn's protocol, with bounds on what is taken before a request is wholly in.

A caller needs no key to send half a request. So a head has MAX_HEAD_BYTES, a whole request REQUEST_S to arrive, and
when all places are taken, those go first who have sent no whole request: the oldest of the address that holds most.
"""

import asyncio
import json
from collections import Counter
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from idiolect.errors import IdiolectError
from idiolect_server.door.dialect import told
from idiolect_server.errors import HeadersTooLarge, RequestError, RequestTimeout

MAX_HEAD_BYTES = 64 << 10
REQUEST_S = 10.0
"""For head and body together, from the first byte; from the connection's beginning for its first request."""
UNREAD_S = 60.0
"""For a caller to read anything of what was sent."""
LINGER_S = 1.0
"""After a refusal, what still comes is read and thrown away: a reset would take the answer from the caller again."""


class Connection(HttpToolsProtocol):
    """`limit_concurrency` of the config is how many connections there are places for."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""  # uvicorn has one when a head begins
        self._n_places = config.limit_concurrency
        self.limit_concurrency = None  # uvicorn would refuse everybody, health included
        self.waiting_since_s: float | None = self.loop.time()
        """Since when the connection has waited for a whole request, by the loop's clock. None while one is answered."""
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._n_idle_bytes = 0
        """That have come since a head was complete or a byte of a body came."""
        self._progress = 0
        self._refused = False

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_clock()
        if self._n_places is not None and len(self.connections) > self._n_places:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)
        self.resume_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        before = self._progress
        super().data_received(data)
        self._n_idle_bytes = 0 if self._progress != before else self._n_idle_bytes + len(data)
        if self._n_idle_bytes > MAX_HEAD_BYTES:  # also of trailers, and of what may stand beside a chunk's length
            self._refuse(HeadersTooLarge(f"the headers exceed {MAX_HEAD_BYTES} bytes"))
        if self.waiting_since_s is not None and self._deadline is None:
            self.waiting_since_s = self.loop.time()
            self._start_clock()

    def on_headers_complete(self) -> None:
        self._progress += 1
        if self._refused:
            return
        n_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if n_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(f"the headers exceed {MAX_HEAD_BYTES} bytes"))
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress += len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress += 1
        if self._refused:
            return
        super().on_message_complete()
        self.cycle.more_body = False  # also where the answer was complete before the body was, such as a 401
        self._stop_clock()
        self.waiting_since_s = self.loop.time() if self.cycle.response_complete else None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.waiting_since_s is None and not self._busy:
            self.waiting_since_s = self.loop.time()
            if self.cycle.more_body:  # of the next one, which came while this one was answered
                self._start_clock()

    def send_400_response(self, msg: str) -> None:
        self._refuse(RequestError("this is not valid HTTP"), HTTPStatus.BAD_REQUEST)

    def turn_away(self, error: IdiolectError) -> None:
        """Have done with a caller who has sent a part of a request; nothing happens to others."""
        if self._has_part and not self._busy:
            self._refuse(error)

    @property
    def _has_part(self) -> bool:
        return self.waiting_since_s is not None and (self._n_idle_bytes > 0 or self._receiving)

    @property
    def _receiving(self) -> bool:
        """Whether the rest of a body is awaited."""
        return self.cycle is not None and self.cycle.more_body

    @property
    def _busy(self) -> bool:
        """Whether a whole request is being answered, whatever came after it."""
        return bool(self.pipeline) or (
            self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        )

    def _too_slow(self) -> None:
        self._deadline = None
        if self._busy or self.flow.read_paused:  # then it is we who do not read
            self._start_clock()
        elif not self._has_part:
            self.transport.close()
        else:
            self._refuse(RequestTimeout(f"the request was not whole after {REQUEST_S:g} s"))

    def _start_clock(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_S, self._too_slow)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, error: IdiolectError, code: int | None = None) -> None:
        """Answer, unless another answer has begun, and take nothing more from this caller."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_clock()
        self._unset_keepalive_if_required()
        begun = self.cycle is not None and not self.cycle.response_complete
        if self._busy or (self._receiving and self.cycle.response_started):
            self.transport.close()
            return
        if begun:  # the route waits for the rest of the body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        path = self.url.partition(b"?")[0].decode("latin-1")
        self.transport.write(_answer(*told(error, path, code)))
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _make_room(self) -> None:
        """Several at once, since looking at all of them takes a while."""
        waiting = [one for one in self.connections if isinstance(one, Connection) and one.waiting_since_s is not None]
        held = Counter(one.address for one in waiting)
        waiting.sort(key=lambda one: (-held[one.address], one.waiting_since_s or 0.0))
        for one in waiting[: len(waiting) // 16 + 1]:
            self.connections.discard(one)  # now, so that the next of a burst finds its place
            one.transport.abort()


def _answer(code: int, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + content
