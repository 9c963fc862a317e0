"""The caller of a request may hang up, and the server may close: then the engine should not go on with the work."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

from idiolect.errors import IdiolectError
from idiolect_server.admission import exceeded
from idiolect_server.door.closing import Closing

T = TypeVar("T")


async def unless_caller_leaves(http: Request, work: Coroutine[Any, Any, T], deadline: float) -> T | None:
    """The result of `work`, or None when the caller hung up first; the work is then cancelled.

    Call it when the body has been read: it takes all further messages of the request. Raises what `work` raises, and
    DeadlineExceeded at the deadline, on the event loop's clock, and the reason for closing when the work was cut short
    for that.
    """

    async def leave() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    closing: Closing = http.app.state.closing
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(leave())
    closing.let_run(working)
    try:
        left_s = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait((working, leaving), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        closing.forget(working)
        if not working.done() and not leaving.done():
            raise exceeded()
        return working.result() if working.done() else None
    finally:
        with suppress(IdiolectError):
            closing.forget(working)
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
