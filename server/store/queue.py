"""Votes that wait for their pairs to be scored: a consumer group of the vote streams for each bundle."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from server.store.connection import N_SHARDS, Connection, mapped
from server.store.votes import parse_vote

ABANDONED_MS = 300_000
"""A vote that a scorer took, and has not held on to for so long, goes to another one."""
CLAIM_S = 30.0
"""Between looks for votes that were abandoned."""
SHARDS_AT_ONCE = 4
"""Commands for all of them would keep the event loop from everybody else for 5 ms."""


@dataclass(frozen=True)
class Unscored:
    """A vote that a scorer has taken: `vote` is None when it was taken back meanwhile."""

    place: tuple[int, str]
    vote: dict[str, Any] | None

    @property
    def given_ms(self) -> int:
        """When it was given, in Unix milliseconds."""
        return int(self.place[1].partition("-")[0])


class Queue:
    """One scorer's end of it. Every method raises StoreUnavailable when Redis does not answer in time."""

    def __init__(self, connection: Connection, bundle_id: str) -> None:
        self._redis, self._group, self._consumer = connection, f"scorer:{bundle_id}", uuid.uuid4().hex
        self._next_claim_s = 0.0

    async def take(self, n_votes: int) -> list[Unscored]:
        """Take up to `n_votes` a shard that no scorer of this bundle has finished: new ones and abandoned ones.

        A bundle starts with the first vote ever given, since its margins are its own. What is taken must be given to
        `done`; a scorer that dies before leaves it to another.
        """
        found: list[Unscored] = []
        claims = time.monotonic() >= self._next_claim_s
        for first in range(0, N_SHARDS, SHARDS_AT_ONCE):
            found += await self._take(range(first, min(first + SHARDS_AT_ONCE, N_SHARDS)), n_votes, claims)
        if claims:
            self._next_claim_s = time.monotonic() + CLAIM_S
        return found

    async def _take(self, shards: range, n_votes: int, claims: bool) -> list[Unscored]:
        """`take` from some shards: first what was abandoned, if it is time to look for that, and then new votes."""
        group, consumer = self._group, self._consumer
        streams = [f"idiolect:{{{number}}}:votes" for number in shards]
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for stream in streams if claims else ():
                # Ids only: what Redis says of an abandoned vote that was taken back differs between versions.
                pipeline.xautoclaim(stream, group, consumer, ABANDONED_MS, count=n_votes, justid=True)
            for stream in streams:
                pipeline.xreadgroup(group, consumer, {stream: ">"}, count=n_votes)
            answers = await pipeline.execute(raise_on_error=False)
            if any(isinstance(answer, ResponseError) and "NOGROUP" in str(answer) for answer in answers):
                await self._create_group(streams)
                return []
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        abandoned, new = answers[: -len(streams)], answers[-len(streams) :]
        found = []
        for number, ids in zip(shards, abandoned, strict=False):
            for claimed in ids:
                found.append(Unscored((number, claimed.decode()), await self._read(number, claimed)))
        for number, replies in zip(shards, new, strict=True):
            for _, entries in replies:
                found += [Unscored((number, one.decode()), parse_vote(fields)) for one, fields in entries]
        return found

    async def _create_group(self, streams: Sequence[str]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for stream in streams:
            pipeline.xgroup_create(stream, self._group, id="0", mkstream=True)
        await pipeline.execute(raise_on_error=False)  # where it is there already, that is an error

    async def _read(self, number: int, stream_id: bytes) -> dict[str, Any] | None:
        async with mapped():
            entries = await self._redis.xrange(f"idiolect:{{{number}}}:votes", stream_id, stream_id)
        return parse_vote(entries[0][1]) if entries else None

    async def hold(self, votes: Sequence[Unscored]) -> None:
        """Say that this scorer is alive and will finish these votes."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for number, stream_id in (vote.place for vote in votes):
                stream = f"idiolect:{{{number}}}:votes"
                pipeline.xclaim(
                    stream, self._group, self._consumer, min_idle_time=0, message_ids=[stream_id], justid=True
                )
            await pipeline.execute()

    async def done(self, votes: Sequence[Unscored]) -> None:
        """These votes need no more scoring under this bundle."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for number, stream_id in (vote.place for vote in votes):
                pipeline.xack(f"idiolect:{{{number}}}:votes", self._group, stream_id)
            await pipeline.execute()

    async def backlog(self) -> int:
        """How many votes scorers of this bundle have yet to finish."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for number in range(N_SHARDS):
                pipeline.xinfo_groups(f"idiolect:{{{number}}}:votes")
            answers = await pipeline.execute(raise_on_error=False)
        name = self._group.encode()
        groups = [group for answer in answers if isinstance(answer, list) for group in answer if group["name"] == name]
        return sum(group["pending"] + (group.get("lag") or 0) for group in groups)
