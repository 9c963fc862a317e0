"""Erasing a user: at once out of sight, and then deleted in pieces, between which Redis serves others.

One step puts the user's votes and generations aside, under names that are not the user's, deletes the rest, and writes
down what is left to do. Whoever comes by finishes that: who began it, the next erasure in the shard, or a server that
looks (`finish_all`). Until then the votes are nobody's: they neither count nor are exported (export.py).
"""

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis.exceptions import ResponseError
from redis.typing import EncodableT

from idiolect_server.errors import StoreError
from idiolect_server.store import keyspace
from idiolect_server.store.changes import PUBLISH_CHANGE
from idiolect_server.store.codes import place
from idiolect_server.store.connection import Connection, call, count, digest, mapped, send
from idiolect_server.store.generations import GENERATION_TTL_S
from idiolect_server.store.keyspace import N_SHARDS, OURS
from idiolect_server.store.stream import Erasure

PIECE = 250
"""Votes, or generations, deleted in one step of Redis: about a millisecond."""
GONE_TTL_S = 3600
"""For so long it is remembered that somebody was erased of whom there was nothing: a code, or a reply that is being
written, may be on its way. A mark takes 255 bytes, and nobody has to be known to be erased: a caller with a key who
erases 300 strangers a second (make greedy) fills 280 MB so, and no more.
"""
SHARDS_AT_ONCE = 4
LOOK_S = 30.0
"""Between looks for erasures that were left unfinished."""

_BEGIN = (
    OURS
    + PUBLISH_CHANGE
    + """
local n_votes = kind(KEYS[1]) == 'hash' and redis.call('HLEN', KEYS[1]) or 0
local zset = kind(KEYS[3]) == 'zset'
local n_generations = zset and redis.call('ZCOUNT', KEYS[3], ARGV[5], '+inf') or 0
local top = kind(KEYS[2]) == 'stream' and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local n_counted = number(KEYS[5])
local n_profiles, n_codes = redis.call('UNLINK', KEYS[4]), 0
for i = 12, #KEYS do
  local field = ARGV[i - 5]
  local n = field == '' and redis.call('UNLINK', KEYS[i]) or redis.pcall('HDEL', KEYS[i], field)
  n_codes = n_codes + (tonumber(n) or 0)
end
local n_others = redis.call('UNLINK', KEYS[5], KEYS[6])
local left = n_counted > n_votes
for from, to in pairs({[KEYS[1]] = KEYS[10], [KEYS[3]] = KEYS[11]}) do
  if from == KEYS[1] and n_votes > 0 or from == KEYS[3] and zset then
    redis.call('RENAME', from, to)
    left = true
  else
    n_others = n_others + redis.call('UNLINK', from)
  end
end
if left then
  local listed = n_votes == n_counted and '+ ' or '? '
  make_way(KEYS[8], 'hash')
  redis.call('HSET', KEYS[8], ARGV[1], listed .. (top and top[1] or '0-0') .. ' ' .. ARGV[6])
end
if left or n_profiles + n_codes + n_others > 0 then
  make_way(KEYS[7], 'hash')
  redis.call('HSET', KEYS[7], ARGV[2], ARGV[3])
else
  redis.call('SET', KEYS[9], ARGV[3], 'EX', ARGV[4])
end
publish_change(KEYS[1], 'erased')
return {n_votes, n_generations, n_codes, n_profiles}
"""
)
"""What only frees memory comes first: a Redis that is full lets a script go on that has begun to write."""

_FINISH = (
    OURS
    + """
local cursor = '0'
if kind(KEYS[1]) == 'hash' then
  local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
  cursor = found[1]
  for i = 1, #found[2], 2 do
    local id, value = found[2][i], found[2][i + 1]
    local listed = redis.pcall('XDEL', KEYS[3], id) == 1
    local erasure = not listed and redis.pcall('HGET', KEYS[4], ARGV[5])
    if type(erasure) == 'string' then
      redis.call('HSET', KEYS[4], ARGV[5], '?' .. string.sub(erasure, 2))
    end
    local made = string.match(value, '"key": ?"(%x+)"')
    if made and string.sub(text(ARGV[3] .. made), 33) == id then
      redis.call('UNLINK', ARGV[3] .. made)
    end
    redis.call('HDEL', KEYS[1], id)
  end
else
  redis.call('UNLINK', KEYS[1])
end
if kind(KEYS[2]) == 'zset' then
  local found = redis.call('ZPOPMIN', KEYS[2], ARGV[2])
  for i = 1, #found, 2 do
    redis.call('UNLINK', ARGV[4] .. found[i])
  end
else
  redis.call('UNLINK', KEYS[2])
end
return redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 and cursor or ''
"""
)
"""One piece; where to go on, or nothing when all is done. Deletes an idempotency key only if it stands for the vote.

A vote that is not in the stream is a sign that `given` is not what it was.
"""

_SWEEP = """
local last = ''
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])) do
  last = entry[1]
  if string.sub(entry[2][2] or '', -#ARGV[4]) == ARGV[4] then
    redis.call('XDEL', KEYS[1], last)
  end
end
return last
"""
"""Deletes the user's votes in a piece of the stream, those that `given` does not list, and says where the piece ended.

Votes end with the user's id (`VoteLog.add`).
"""


@dataclass(frozen=True)
class Erased:
    """How much of a user was deleted."""

    votes: int
    generations: int
    codes: int
    profiles: int

    @property
    def anything(self) -> bool:
        return self.votes + self.generations + self.codes + self.profiles > 0


class Erasures:
    """Every method raises StoreError."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self.n_buckets: dict[str, int] = {}
        """Of bundles whose codes this process has stored: their list in Redis may be lost."""

    async def erase(self, user_id: str) -> Erased:
        """Delete everything of a user, but for a digest that keeps trained codes from being stored again."""
        number, who, erasure_id = keyspace.shard(user_id), digest(user_id), uuid.uuid4().hex
        own = [keyspace.of_user("generations", user_id)]
        own += [keyspace.of_user(kind, user_id) for kind in ("profile", "count", "revision")]
        keys = [keyspace.of_user("given", user_id), keyspace.of_shard("votes", number), *own]
        keys += [keyspace.of_shard("erased", number), keyspace.of_shard("erasures", number)]
        keys += [keyspace.gone(user_id, who), *_put_aside(number, erasure_id)]
        fields: list[bytes] = []
        async with mapped():
            for name, n_buckets in await self._tables(number):
                key, field = place(name, n_buckets, user_id)
                keys += [key, keyspace.inferred(name, user_id)]
                fields += [field, b""]
            now = time.time()
            arguments: list[EncodableT] = [erasure_id, who, now, GONE_TTL_S, now - GENERATION_TTL_S, user_id, *fields]
            counts = await call(self._redis, _BEGIN, keys, *arguments)
        await self._finish_shard(number)
        return Erased(*counts)

    async def keep_finishing(self) -> None:
        """`finish_all` until cancelled, at the start and every LOOK_S."""
        while True:
            with suppress(StoreError):
                await self.finish_all()
            await asyncio.sleep(LOOK_S)

    async def finish_all(self) -> None:
        """Finish what others have begun and not ended."""
        for first in range(0, N_SHARDS, SHARDS_AT_ONCE):
            shards = range(first, first + SHARDS_AT_ONCE)
            async with mapped():
                pipeline = self._redis.pipeline(transaction=False)
                for number in shards:
                    pipeline.exists(keyspace.of_shard("erasures", number))
                found = await send(pipeline)
            for number, exists in zip(shards, found, strict=True):
                if exists:
                    await self._finish_shard(number)

    async def _finish_shard(self, number: int) -> None:
        """All that is under way in a shard."""
        async with mapped():
            under_way = await hash_fields(self._redis, keyspace.of_shard("erasures", number))
            for erasure_id in under_way[::2]:
                name, cursor = erasure_id.decode("ascii", "replace"), b"0"
                votes, generations = _put_aside(number, name)
                keys = [votes, generations, *(keyspace.of_shard(kind, number) for kind in ("votes", "erasures"))]
                starts = keyspace.keys_of(number), keyspace.generations_of(number)
                while cursor:
                    cursor = await call(self._redis, _FINISH, keys, cursor, PIECE, *starts, erasure_id)
                erasures = keyspace.of_shard("erasures", number)
                erasure = Erasure.parse(await self._redis.hget(erasures, erasure_id) or b"")
                if erasure is not None and not erasure.listed:
                    await self._sweep(number, erasure)
                await self._redis.hdel(erasures, erasure_id)

    async def _sweep(self, number: int, erasure: Erasure) -> None:
        """Look for the user's votes in the whole stream of the shard: their list is not complete."""
        stream, after = keyspace.of_shard("votes", number), b"-"
        end = f'"user_id": {json.dumps(erasure.user_id, ensure_ascii=False)}}}'
        with suppress(ResponseError):  # of a stream that is none
            while after:
                last = await call(self._redis, _SWEEP, [stream], after, erasure.last, PIECE, end)
                after = b"(" + last if last else b""

    async def _tables(self, number: int) -> list[tuple[str, int]]:
        """Every bundle whose codes were stored, and its buckets a shard."""
        listed = await hash_fields(self._redis, keyspace.of_shard("tables", number))
        pairs = zip(listed[::2], listed[1::2], strict=True)
        found = {name.decode(): count(value) for name, value in pairs if name.isalnum() and name.isascii()}
        return list((found | self.n_buckets).items())


async def hash_fields(connection: Connection, key: str) -> Sequence[bytes]:
    """Fields and values, in turn; none of a key of another type."""
    found: Sequence[bytes] = await call(connection, _FIELDS, [key])
    return found


_FIELDS = OURS + "return kind(KEYS[1]) == 'hash' and redis.call('HGETALL', KEYS[1]) or {}"


def _put_aside(number: int, erasure_id: str) -> tuple[str, str]:
    """Where the votes and generations of an erasure are until they are deleted."""
    return keyspace.erasing(number, erasure_id, "given"), keyspace.erasing(number, erasure_id, "generations")
