"""A load generator with a user dimension: callers who ask for replies at once, each for the next of many users.

Windows are compared in pairs, in turns (A B, B A, A B, ...), since a machine's speed drifts: what is published is the
median of their ratios, with all of them beside it.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import aiohttp
import numpy as np

Body = Callable[[str], dict[str, Any]]
"""The request for a user."""
Measure = Callable[[], Awaitable[float]]
MAX_WINDOWS = 5


@dataclass(frozen=True)
class Window:
    """What one window of load measured."""

    n_tokens: int
    seconds: float
    latencies_s: tuple[float, ...]

    @property
    def tokens_per_s(self) -> float:
        return self.n_tokens / self.seconds


def uniform(n_users: int, seed: int) -> Iterator[str]:
    """User ids without end, each as often as the others."""
    rng = np.random.default_rng(seed)
    while True:
        yield from (f"user-{number:07d}" for number in rng.integers(n_users, size=1000))


def everyone(n_users: int, first: int = 0) -> Iterator[str]:
    """User ids without end, nobody twice before all were there."""
    while True:
        yield from (f"user-{(first + number) % n_users:07d}" for number in range(n_users))


def zipf(n_users: int, seed: int, exponent: float = 1.1) -> Iterator[str]:
    """User ids without end, the k-th as often as k ** -exponent."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, n_users + 1) ** -exponent
    cumulative = np.cumsum(weights / weights.sum())
    while True:
        yield from (f"user-{number:07d}" for number in np.searchsorted(cumulative, rng.random(1000)))


@dataclass
class _Caller:
    """Asks for replies and checks them."""

    http: aiohttp.ClientSession
    path: str
    body: Body
    n_tokens: int = 0
    latencies_s: list[float] = field(default_factory=list)

    async def ask(self, user: str) -> None:
        asked, began = self.body(user), time.perf_counter()
        async with self.http.post(self.path, json=asked) as answer:
            text = await answer.text()
        self.latencies_s.append(time.perf_counter() - began)
        assert answer.status == 200, text
        reply = json.loads(text)
        self.n_tokens += reply["usage"]["completion_tokens"]
        if "user_id" in asked:
            assert reply["personalization"]["state"] == "stored", reply

    def window(self, seconds: float) -> Window:
        return Window(self.n_tokens, seconds, tuple(self.latencies_s))


def _session(url: str) -> aiohttp.ClientSession:
    """As light a client as there is in Python: on two cores what it computes is taken from the server."""
    timeout, as_many_as_it_takes = aiohttp.ClientTimeout(total=600), aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(url, timeout=timeout, connector=as_many_as_it_takes)


async def drive(url: str, path: str, body: Body, users: Iterator[str], n_requests: int, n_callers: int) -> Window:
    """`n_requests` from `n_callers` callers, each with one request under way at a time."""
    async with _session(url) as http:
        caller, left, began = _Caller(http, path, body), iter(range(n_requests)), time.perf_counter()

        async def call() -> None:
            for _ in left:
                await caller.ask(next(users))

        await asyncio.gather(*(call() for _ in range(n_callers)))
        return caller.window(time.perf_counter() - began)


async def full(measure: Callable[[], Awaitable[Window]], n_tokens: int) -> Window:
    """A window in which every reply ran into its limit, so that all wrote `n_tokens`; measured again otherwise.

    A reply that ends early leaves its caller out of step, and in the end the others without company: a window of 3,025
    tokens instead of 4,096 had 166 tokens per second instead of about 210.
    """
    for _ in range(MAX_WINDOWS):
        window = await measure()
        if window.n_tokens == n_tokens:
            return window
        sys.stderr.write(f"measured again: {window.n_tokens} tokens instead of {n_tokens}\n")
    raise AssertionError("replies end early")


async def at_random(work: Iterator[Coroutine[Any, Any, None]], n: int, per_second: float) -> None:
    """Begin `n` works at random moments (a Poisson process), as many callers do who know nothing of each other."""
    gc.collect()
    gc.freeze()  # a garbage collection here would hold the works back, and then let them go all at once
    began, begun = time.perf_counter(), []
    for due_s in np.cumsum(np.random.default_rng(0).exponential(1 / per_second, size=n)):
        await asyncio.sleep(max(0.0, began + due_s - time.perf_counter()))
        begun.append(asyncio.create_task(next(work)))
    await asyncio.gather(*begun)
    gc.unfreeze()


async def arrive(url: str, path: str, body: Body, users: Iterator[str], n_requests: int, per_second: float) -> Window:
    """`n_requests` at random moments."""
    async with _session(url) as http:
        caller, began = _Caller(http, path, body), time.perf_counter()
        await at_random((caller.ask(user) for user in users), n_requests, per_second)
        return caller.window(time.perf_counter() - began)


async def paired(a: Measure, b: Measure, n_pairs: int) -> dict[str, Any]:
    """Ratios of `a` over `b` of neighbouring windows, after one window of each that does not count."""
    await a(), await b()
    ratios = []
    for number in range(n_pairs):
        if number % 2:
            below, above = await b(), await a()
        else:
            above, below = await a(), await b()
        ratios.append(above / below)
        sys.stderr.write(f"{above:.4g} / {below:.4g} = {ratios[-1]:.4f}\n")
    return {"median": round(median(ratios), 4), "ratios": [round(ratio, 4) for ratio in ratios]}
