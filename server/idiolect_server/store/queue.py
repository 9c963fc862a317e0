"""Votes that wait for their pairs to be scored: a consumer group of the vote streams for each bundle."""

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from idiolect_server.errors import StoreError
from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, send
from idiolect_server.store.keyspace import N_SHARDS, OURS
from idiolect_server.store.stream import parse_vote

log = logging.getLogger(__name__)

ABANDONED_MS = 300_000
"""A vote that a scorer took, and has not held on to for so long, goes to another one."""
CLAIM_S = 30.0
"""Between looks for votes that were abandoned."""
SHARDS_AT_ONCE = 4
"""Commands for all of them would keep the event loop from everybody else for 5 ms."""

_TAKE = (
    OURS
    + """
if kind(KEYS[1]) ~= 'stream' and kind(KEYS[1]) ~= 'none' then
  return {{}, {}}
end
local stream, group, consumer, n_votes = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
local function ask(...)
  local answer = redis.pcall(...)
  if answer and answer.err then
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    answer = redis.call(...)
  end
  return answer
end
local abandoned = {}
if ARGV[3] ~= '' then
  abandoned = ask('XAUTOCLAIM', stream, group, consumer, ARGV[3], '0-0', 'COUNT', n_votes, 'JUSTID')[2]
end
local new = ask('XREADGROUP', 'GROUP', group, consumer, 'COUNT', n_votes, 'STREAMS', stream, '>')
return {abandoned, new and new[1][2] or {}}
"""
)
"""Of abandoned votes only the ids are asked: what Redis says of one that was taken back differs between versions."""


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
    """One scorer's end of it. Every method raises StoreError."""

    def __init__(self, connection: Connection, bundle_id: str) -> None:
        self._redis, self._group, self._consumer = connection, keyspace.scorers(bundle_id), uuid.uuid4().hex
        self._next_claim_s = 0.0

    async def take(self, n_votes: int) -> list[Unscored]:
        """Take up to `n_votes` a shard that no scorer of this bundle has finished: new ones and abandoned ones.

        A bundle starts with the first vote ever given, since its margins are its own. What is taken must be given to
        `done`; a scorer that dies before leaves it to another.
        """
        found: list[Unscored] = []
        claims = time.monotonic() >= self._next_claim_s
        for first in range(0, N_SHARDS, SHARDS_AT_ONCE):
            try:
                found += await self._take(range(first, min(first + SHARDS_AT_ONCE, N_SHARDS)), n_votes, claims)
            except StoreError:
                if not found:
                    raise
                return found  # these would wait until they count as abandoned
        if claims:
            self._next_claim_s = time.monotonic() + CLAIM_S
        return found

    async def _take(self, shards: range, n_votes: int, claims: bool) -> list[Unscored]:
        """`take` from some shards: first what was abandoned, if it is time to look for that, and then new votes.

        Leaves out shards of a cluster's node that does not answer; raises StoreError when all of them do not.
        """
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for number in shards:
                limits = [ABANDONED_MS if claims else "", n_votes]
                call(pipeline, _TAKE, [keyspace.of_shard("votes", number)], self._group, self._consumer, *limits)
            answers = await pipeline.execute(raise_on_error=False)
            failed = [answer for answer in answers if isinstance(answer, Exception)]
            if len(failed) == len(answers):
                raise failed[0]
        found = []
        for number, answer in zip(shards, answers, strict=True):
            if isinstance(answer, Exception):
                log.warning("votes of shard %d wait for scoring: %s", number, answer)
                continue
            abandoned, new = answer
            for stream_id in abandoned:
                found.append(Unscored((number, stream_id.decode()), await self._read(number, stream_id)))
            for stream_id, fields in new:
                vote = parse_vote(dict(zip(fields[::2], fields[1::2], strict=True)))
                found.append(Unscored((number, stream_id.decode()), vote))
        return found

    async def _read(self, number: int, stream_id: bytes) -> dict[str, Any] | None:
        async with mapped():
            entries = await self._redis.xrange(keyspace.of_shard("votes", number), stream_id, stream_id)
        return parse_vote(entries[0][1]) if entries else None

    async def hold(self, votes: Sequence[Unscored]) -> None:
        """Say that this scorer is alive and will finish these votes."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for number, stream_id in (vote.place for vote in votes):
                stream = keyspace.of_shard("votes", number)
                pipeline.xclaim(
                    stream, self._group, self._consumer, min_idle_time=0, message_ids=[stream_id], justid=True
                )
            await send(pipeline)

    async def done(self, votes: Sequence[Unscored]) -> None:
        """These votes need no more scoring under this bundle."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for number, stream_id in (vote.place for vote in votes):
                pipeline.xack(keyspace.of_shard("votes", number), self._group, stream_id)
            await send(pipeline)

    async def backlog(self) -> int:
        """How many votes scorers of this bundle have yet to finish."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for number in range(N_SHARDS):
                pipeline.xinfo_groups(keyspace.of_shard("votes", number))
            answers = await pipeline.execute(raise_on_error=False)
        name = self._group.encode()
        groups = [group for answer in answers if isinstance(answer, list) for group in answer if group["name"] == name]
        return sum(group["pending"] + (group.get("lag") or 0) for group in groups)
