"""A neighbour of a greedy user, in the same shard of the store: votes, and asks for replies, all the while."""

import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from idiolect_server.store import keyspace

RATE_PER_S, AT_ONCE = 300.0, 16
"""As fast as that, and no faster: callers who use up this machine's cores would slow the model, not the server."""
GREEDY = "greedy"
NEIGHBOUR = next(
    name for name in map("neighbour-{}".format, itertools.count()) if keyspace.shard(name) == keyspace.shard(GREEDY)
)


def vote(user_id: str, number: int) -> dict[str, Any]:
    return {"user_id": user_id, "prompt": f"Question {number}?", "chosen": "Yes.", "rejected": "No.", "consent": True}


@dataclass
class Neighbour:
    """Votes and asks in turn: seconds of each, what failed, and the ids of what was acknowledged."""

    http: httpx.AsyncClient
    votes_s: list[float] = field(default_factory=list)
    replies_s: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    refusal: str = "none"
    """The code of an error that a vote may meet now."""

    async def live(self) -> None:
        for number in itertools.count():
            began = time.perf_counter()
            answer = await self.http.post("/feedback", json=vote(NEIGHBOUR, number))
            self.votes_s.append(time.perf_counter() - began)
            if answer.status_code == 200:
                self.acknowledged.add(answer.json()["vote_id"])
            elif answer.json()["error"]["code"] == self.refusal:
                self.refused.append(self.refusal)
            else:
                self.failed.append(answer.text)
            began = time.perf_counter()
            asked = {"user_id": NEIGHBOUR, "prompt": "What is rain?", "max_tokens": 4}
            reply = await self.http.post("/generate", json=asked)
            self.replies_s.append(time.perf_counter() - began)
            if reply.status_code != 200:
                self.failed.append(reply.text)
            await asyncio.sleep(0.25)  # so that the neighbour's own votes stay below the most that one user may have

    async def slowest_s(self, work: Awaitable[Any]) -> tuple[Any, float]:
        """What comes of the work, and the neighbour's slowest vote or reply meanwhile."""
        n_votes, n_replies = len(self.votes_s), len(self.replies_s)
        done = await work
        while len(self.replies_s) <= n_replies:
            await asyncio.sleep(0.01)
        sys.stderr.write(
            f"slowest vote {max(self.votes_s[n_votes:]):.3f} s, reply {max(self.replies_s[n_replies:]):.3f} s\n"
        )
        return done, max(self.votes_s[n_votes:] + self.replies_s[n_replies:])


async def each(n: int, ask: Callable[[int], Awaitable[httpx.Response]]) -> Counter[str]:
    """So many requests, at RATE_PER_S or as AT_ONCE callers can: how many had which status and code."""
    answers, numbers, began = Counter[str](), iter(range(n)), time.perf_counter()

    async def go() -> None:
        for number in numbers:
            await asyncio.sleep(began + number / RATE_PER_S - time.perf_counter())
            answer = await ask(number)
            code = "" if answer.status_code == 200 else f" {answer.json()['error']['code']}"
            answers[f"{answer.status_code}{code}"] += 1

    await asyncio.gather(*(go() for _ in range(AT_ONCE)))
    return answers
