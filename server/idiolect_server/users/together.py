"""One piece of work for all who ask for the same: what a caller with many requests at once costs the others."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Together(Generic[Result]):
    """Runs at most one piece of work for each key at a time. What it finds is for all who asked before it began.

    Whoever asks while it runs may know of something that it has not seen, and so waits for the next one. Lives in one
    event loop.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Result]] = {}
        self._next: dict[str, asyncio.Task[Result]] = {}

    async def do(self, key: str, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Raises what the work raises. A caller who leaves does not stop what others may wait for."""
        if key not in self._next:
            self._next[key] = asyncio.create_task(self._after(self._running.get(key), key, work))
            self._next[key].add_done_callback(_look_at)
        return await asyncio.shield(self._next[key])

    async def _after(
        self, before: asyncio.Task[Result] | None, key: str, work: Callable[[], Coroutine[Any, Any, Result]]
    ) -> Result:
        if before is not None:
            await asyncio.wait([before])
        mine = self._running[key] = self._next.pop(key)
        try:
            return await work()
        finally:
            if self._running[key] is mine:
                del self._running[key]


def _look_at(task: "asyncio.Task[Any]") -> None:
    """All who waited may have left, and asyncio tells of errors that nobody has looked at."""
    if not task.cancelled():
        task.exception()
