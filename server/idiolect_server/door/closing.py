"""How the server closes, for every route alike: no new requests, a while for those that run, then an error."""

import asyncio
import threading
import time
from typing import Any

from idiolect.errors import IdiolectError

LAST_WORDS_S = 1.0
"""For the error to be sent to those who were cut short."""


class Closing:
    """Open until `begin` is called. `finish_s` is how long running requests may then take."""

    def __init__(self, finish_s: float) -> None:
        self.finish_s = finish_s
        self.reason: IdiolectError | None = None
        """Why the server closes; what it refuses and cuts short is answered with this."""
        self.failed = False
        """Whether it closes because of a fault: a supervisor should see that."""
        self.n_running = 0
        """Requests that were let in and whose answer is not complete, health aside."""
        self._work: set[asyncio.Future[Any]] = set()
        self._cut_short: set[asyncio.Future[Any]] = set()
        self._cut = False
        self.begun = threading.Event()
        self.until_s = float("inf")
        """When running requests have had their time, by the monotonic clock."""

    def begin(self, reason: IdiolectError, *, failed: bool = False) -> None:
        """Close. After a fault no request can be finished, so all are cut short at once, whatever was said before."""
        if self.reason is None or failed:
            self.reason = reason
        self.failed = self.failed or failed
        self.until_s = min(self.until_s, time.monotonic() + (0 if failed else self.finish_s))
        self.begun.set()

    def go_on(self) -> bool:
        """Whether there is still something to wait for. Asked every now and then, it cuts short what is late."""
        if not self.n_running:
            self.until_s = min(self.until_s, time.monotonic())
        late_s = time.monotonic() - self.until_s
        if late_s >= 0 and not self._cut:
            self._cut = True
            for work in self._work:
                self._cut_off(work)
        return self.n_running > 0 and late_s < LAST_WORDS_S

    def let_run(self, work: asyncio.Future[Any]) -> None:
        """Until its time is over, when it is cancelled."""
        self._work.add(work)
        if self._cut:
            self._cut_off(work)

    def forget(self, work: asyncio.Future[Any]) -> None:
        """It has ended, or nobody wants it any more. Raises the reason for closing when it was cut short for that."""
        self._work.discard(work)
        if work in self._cut_short:
            self._cut_short.discard(work)
            assert self.reason is not None
            raise self.reason

    def _cut_off(self, work: asyncio.Future[Any]) -> None:
        if not work.done():
            self._cut_short.add(work)
            work.cancel()
