"""Votes that wait for their pairs to be scored: a consumer group of the vote streams for each bundle."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from server.store.connection import N_SHARDS, Connection, mapped
from server.store.votes import parse_vote

ABANDONED_MS = 300_000
"""A vote that a scorer took, and has not held on to for so long, goes to another one."""


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

    async def take(self, n_votes: int) -> list[Unscored]:
        """Take up to `n_votes` a shard that no scorer of this bundle has finished: new ones and abandoned ones.

        A bundle starts with the first vote ever given, since its margins are its own. What is taken must be given to
        `done`; a scorer that dies before leaves it to another.
        """
        group, consumer = self._group, self._consumer
        streams = [f"idiolect:{{{number}}}:votes" for number in range(N_SHARDS)]
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for stream in streams:
                # Ids only: what Redis says of an abandoned vote that was taken back differs between versions.
                pipeline.xautoclaim(stream, group, consumer, ABANDONED_MS, count=n_votes, justid=True)
                pipeline.xreadgroup(group, consumer, {stream: ">"}, count=n_votes)
            answers = await pipeline.execute(raise_on_error=False)
            if any(isinstance(answer, ResponseError) and "NOGROUP" in str(answer) for answer in answers):
                pipeline = self._redis.pipeline(transaction=False)
                for stream in streams:
                    pipeline.xgroup_create(stream, group, id="0", mkstream=True)
                await pipeline.execute(raise_on_error=False)  # where it is there already, that is an error
                return []
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        found = []
        for number in range(N_SHARDS):
            for claimed in answers[2 * number]:
                found.append(Unscored((number, claimed.decode()), await self._read(number, claimed)))
            for _, entries in answers[2 * number + 1]:
                found += [Unscored((number, new.decode()), parse_vote(fields)) for new, fields in entries]
        return found

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
