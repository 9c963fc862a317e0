"""The service in a thread of its own, so that a test can drive a browser, which waits for nobody, beside it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.live import Redis, memory_folder
from tests.parts.service import service
from tests.parts.small_engine import SmallEngine

TIMEOUT_S = 60


@dataclass
class Served:
    url: str
    engine: SmallEngine
    redis: Redis
    loop: asyncio.AbstractEventLoop
    starts: asyncio.Event
    """The engine is up once this is set."""

    def start(self) -> None:
        self.loop.call_soon_threadsafe(self.starts.set)

    def kill_engine(self) -> None:
        """As the real one dies: the server notices, and ends."""
        self.loop.call_soon_threadsafe(setattr, self.engine, "dead", True)

    def api(self, method: str, path: str, **more: Any) -> Any:
        answer = httpx.request(method, f"{self.url}{path}", timeout=TIMEOUT_S, **more)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def served(tokenizer: Any, *, starts: bool = True, token_s: float = 0.01, **settings: Any) -> Iterator[Served]:
    """A service with a Redis of its own, and an engine that starts at once, or when it is told to."""
    found: list[Served] = []
    answers = threading.Event()
    leaves: list[asyncio.Event] = []

    async def main(redis: Redis) -> None:
        event, leave = asyncio.Event(), asyncio.Event()
        if starts:
            event.set()
        engine = SmallEngine(tokenizer, token_s=token_s)
        async with service(engine, starts=event, redis_url=redis.url, stall_s=10, **settings) as running:
            url = str(running.http.base_url).rstrip("/")
            while starts and running.app.state.serving is None:
                await asyncio.sleep(0.01)
            found.append(Served(url, engine, redis, asyncio.get_running_loop(), event))
            leaves.append(leave)
            answers.set()
            await leave.wait()

    with memory_folder() as folder:
        redis = Redis(folder / "redis")
        redis.start()
        thread = threading.Thread(target=lambda: asyncio.run(main(redis)), daemon=True)
        thread.start()
        try:
            if not answers.wait(TIMEOUT_S):
                raise RuntimeError("the service did not start")
            yield found[0]
        finally:
            if found:
                found[0].start()  # a start that still waits can only then be given up
                found[0].loop.call_soon_threadsafe(leaves[0].set)
            thread.join(TIMEOUT_S)
            redis.stop()
