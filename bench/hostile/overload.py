"""make overload (H5-overload): ten times as many requests as the engine can answer, for two minutes.

Capacity is what callers get who each wait for their reply. Then requests come at ten times that rate whether or not
others have been answered; a caller who is refused does not come again. Then the first callers are back.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil

from bench.load.sides import conversation
from bench.results import record
from idiolect.bundle import Bundle
from tests.live import DEMO_BUNDLE, Redis, running_server

MAX_NUM_SEQS, MAX_TOKENS = 16, 32
"""Tokens on average: of equal replies, callers who began together would come in waves, which no minute counts well."""
ALONE_S, OVERLOAD_S, AFTER_S = 65.0, 120.0, 65.0
SETTLE_S = 5.0
TIMES = 10


@dataclass
class Answers:
    """What came back: when, and of whom; tokens of replies, and seconds until a refusal."""

    replies: list[tuple[float, int]] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def tokens_per_s(self, first_s: float, last_s: float) -> float:
        """Of replies that came in this time, by time.perf_counter."""
        return sum(n for at, n in self.replies if first_s <= at < last_s) / (last_s - first_s)


async def ask(http: aiohttp.ClientSession, user: str, number: int, answers: Answers) -> None:
    asked = {"messages": conversation(number), "user_id": user, "max_tokens": MAX_TOKENS // 2 + number % MAX_TOKENS}
    began = time.perf_counter()
    async with http.post("/generate", json=asked) as response:
        answer = await response.json()
    took_s = time.perf_counter() - began
    if response.status == 200:
        answers.replies.append((time.perf_counter(), answer["usage"]["completion_tokens"]))
    elif response.status == 429 and int(response.headers["Retry-After"]) >= 1:
        answers.refused_s.append(took_s)
    else:
        answers.other.append(f"{response.status} {answer}")


async def in_turn(http: aiohttp.ClientSession, users: Iterator[str], seconds: float) -> tuple[Answers, float]:
    """MAX_NUM_SEQS callers, each with one request at a time; and when they began."""
    answers, began = Answers(), time.perf_counter()

    async def call(place: int) -> None:
        number = 0
        while time.perf_counter() - began < seconds:
            await ask(http, next(users), hash((place, number, began)), answers)
            number += 1

    await asyncio.gather(*(call(place) for place in range(MAX_NUM_SEQS)))
    return answers, began


async def at_rate(http: aiohttp.ClientSession, users: Iterator[str], per_s: float) -> tuple[Answers, float]:
    """Requests at random moments (a Poisson process), for OVERLOAD_S."""
    answers, began, rng, begun, due_s = Answers(), time.perf_counter(), np.random.default_rng(0), [], 0.0
    while due_s < OVERLOAD_S:
        due_s += rng.exponential(1 / per_s)
        await asyncio.sleep(max(0.0, began + due_s - time.perf_counter()))
        begun.append(asyncio.create_task(ask(http, next(users), hash((due_s, began)), answers)))
    ended = time.perf_counter()
    await asyncio.gather(*begun)
    sys.stderr.write(f"the last reply came {time.perf_counter() - ended:.1f} s after the last request\n")
    return answers, began


async def measure(url: str, pid: int) -> dict[str, Any]:
    ids = Bundle.read(DEMO_BUNDLE).user_ids
    users = (ids[number % len(ids)] for number in range(1 << 30))
    server = psutil.Process(pid)

    def memory() -> int:
        return sum(process.memory_info().rss for process in [server, *server.children(recursive=True)])

    unlimited = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=600), connector=unlimited) as http:
        await in_turn(http, users, 10)
        alone, began = await in_turn(http, users, ALONE_S)
        capacity = alone.tokens_per_s(began + SETTLE_S, began + ALONE_S)
        before, per_s = memory(), TIMES * capacity / MAX_TOKENS
        sys.stderr.write(f"capacity {capacity:.0f} tokens/s; {per_s:.0f} requests/s from now on\n")
        flood, began = await at_rate(http, users, per_s)
        during = flood.tokens_per_s(began + SETTLE_S, began + OVERLOAD_S)
        after, ended = await in_turn(http, users, AFTER_S)
    offered = len(flood.replies) + len(flood.refused_s) + len(flood.other)
    return {
        "capacity_tokens_per_s": round(capacity, 1),
        "offered_over_capacity": round(offered * MAX_TOKENS / OVERLOAD_S / capacity, 2),
        "goodput": round(during / capacity, 3),
        "refused": len(flood.refused_s),
        "refused_ms": {f"p{p}": round(1000 * float(np.percentile(flood.refused_s, p)), 1) for p in (50, 95, 99)},
        "other_answers": len(alone.other) + len(flood.other) + len(after.other) + len(after.refused_s),
        "after": round(after.tokens_per_s(ended + SETTLE_S, ended + AFTER_S) / capacity, 3),
        "memory": round(memory() / before, 3),
    }


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = Redis(folder / "redis")
        store.start()
        stack.callback(store.stop)
        log = stack.enter_context((folder / "server.log").open("wb"))
        settings = {"redis_url": store.url, "max_num_seqs": str(MAX_NUM_SEQS)}
        url, process = stack.enter_context(running_server(log, **settings))
        value = asyncio.run(measure(url, process.pid))
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    record("H5-overload", value)


if __name__ == "__main__":
    main()
