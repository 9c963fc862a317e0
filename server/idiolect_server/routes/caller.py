"""The caller of a request may hang up: then nobody waits for the work, and the engine should not do it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


async def unless_caller_leaves(http: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None when the caller hung up first; the work is then cancelled.

    Call it when the body has been read: it takes all further messages of the request. Raises what `work` raises.
    """

    async def leave() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(leave())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
