"""Users in Redis. Votes are the record (votes.py); codes can be rebuilt from a bundle and the votes."""

import asyncio
import logging
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError
from tqdm import tqdm

from idiolect.user_model import Array
from idiolect_server.store import keyspace
from idiolect_server.store.breaker import Breaker
from idiolect_server.store.changes import PUBLISH_CHANGE, Changes
from idiolect_server.store.codes import READ_CODE, CodeTable, place
from idiolect_server.store.connection import (
    STORE_ERRORS,
    call,
    connect,
    count,
    digest,
    mapped,
    nodes,
    send,
)
from idiolect_server.store.export import Export
from idiolect_server.store.generations import Generations
from idiolect_server.store.keyspace import CHANNEL, N_SHARDS
from idiolect_server.store.leftovers import clear
from idiolect_server.store.margins import MarginTable
from idiolect_server.store.queue import Queue
from idiolect_server.store.votes import VoteLog

log = logging.getLogger(__name__)

REWRITE_RETRY_S = 1.0
PIPELINE_BYTES = 1 << 18
"""Small enough that one pipeline is sent well within the timeout, whatever the size of a code."""

_USER = (
    READ_CODE
    + """
return {read_code(KEYS[1], ARGV[1]), unpack(redis.call('MGET', unpack(KEYS, 2)))}
"""
)
"""A script and no pipeline: a cluster's client closes its connections to all nodes when one is silent in a pipeline."""

_PUT_INFERRED = (
    PUBLISH_CHANGE
    + """
if (redis.call('GET', KEYS[1]) or '0') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2])
publish_change(KEYS[1], 'changed')
return 1
"""
)
"""Whoever inferred from fewer votes than there are now has been overtaken."""

_PUT_PROFILE = (
    PUBLISH_CHANGE
    + """
if ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('DEL', KEYS[1])
end
publish_change(KEYS[1], 'changed')
"""
)

_ERASE = (
    PUBLISH_CHANGE
    + """
local n_votes, n_generations, n_codes = 0, 0, 0
local given = redis.call('HGETALL', KEYS[1])
for i = 1, #given, 2 do
  redis.call('XDEL', KEYS[2], given[i])
  redis.call('DEL', ARGV[1] .. cjson.decode(given[i + 1])['key'])
  n_votes = n_votes + 1
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  n_generations = n_generations + redis.call('DEL', ARGV[2] .. id)
end
for i = 8, #KEYS do
  local field = ARGV[i - 3]
  n_codes = n_codes + (field == '' and redis.call('DEL', KEYS[i]) or redis.call('HDEL', KEYS[i], field))
end
local n_profiles = redis.call('DEL', KEYS[4])
redis.call('DEL', KEYS[1], KEYS[3], KEYS[5], KEYS[6])
redis.call('HSET', KEYS[7], ARGV[3], ARGV[4])
publish_change(KEYS[1], 'erased')
return {n_votes, n_generations, n_codes, n_profiles}
"""
)

_REVISION = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredUser:
    """What Redis holds of a user: the trained and the inferred code, unchecked, the number of votes, and the profile.

    `stale` when votes have changed since a code was inferred, or none was.
    """

    trained: bytes | None
    inferred: bytes | None
    votes: int
    stale: bool
    profile: str | None


@dataclass(frozen=True)
class Erased:
    """How much of a user was deleted."""

    votes: int
    generations: int
    codes: int
    profiles: int


class Store:
    """Every method raises StoreUnavailable when Redis does not answer in time."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)
        self._breaker = Breaker(self._redis)
        self.changes = Changes(self._redis, self._breaker)
        self.votes = VoteLog(self._redis, self.changes)
        self.export = Export(self._redis)
        self.generations = Generations(self._redis, self._breaker)
        self.margins = MarginTable(self._redis)
        self._rewrite_wanted = asyncio.Event()
        self._rewriting: asyncio.Task[None] | None = None

    def queue(self, bundle_id: str) -> Queue:
        """The votes that wait for scoring under a bundle, for one scorer."""
        return Queue(self._redis, bundle_id)

    async def close(self) -> None:
        if self._rewriting is not None:
            self._rewriting.cancel()
        await self._redis.aclose()

    async def ping(self) -> None:
        async with mapped():
            await self._redis.ping()

    async def user(self, table: CodeTable, user_id: str) -> StoredUser:
        """What is known of a user under a bundle, in one round trip."""
        key, field = table.place(user_id)
        others = [keyspace.of_user(kind, user_id) for kind in ("count", "revision", "profile")]
        names = [keyspace.inferred(table.bundle_id, user_id), *others]
        async with self._breaker.spared(key):
            trained, inferred, votes, revision, profile = await call(self._redis, _USER, [key, *names], field)
        seen, record = 0, b""
        if isinstance(inferred, bytes) and len(inferred) >= _REVISION.size:
            seen, record = _REVISION.unpack_from(inferred)[0], inferred[_REVISION.size :]
        words = profile.decode("utf-8", "replace") if isinstance(profile, bytes) else None
        return StoredUser(trained, record or None, count(votes), seen != count(revision), words)

    async def put_inferred(self, bundle_id: str, user_id: str, record: bytes, revision: int) -> bool:
        """Store the code that was inferred from the votes at `revision`; False when votes have changed since.

        An empty record says that nothing could be inferred: the trained code, if any, stays in force.
        """
        keys = [keyspace.of_user("revision", user_id), keyspace.inferred(bundle_id, user_id)]
        async with mapped():
            packed = _REVISION.pack(revision) + record
            current = bool(await call(self._redis, _PUT_INFERRED, keys, str(revision), packed))
        self.changes.heard(user_id)
        return current

    async def put_profile(self, user_id: str, profile: str | None) -> None:
        """What the user says in words; None forgets it."""
        keys = [keyspace.of_user("profile", user_id)]
        async with mapped():
            await call(self._redis, _PUT_PROFILE, keys, *([] if profile is None else [profile]))
        self.changes.heard(user_id)

    async def load_codes(self, table: CodeTable, user_ids: Sequence[str], codes: Array) -> None:
        """Store every trained code of a bundle, but for erased users; returns at once when that was done before."""
        async with mapped():
            if await self._redis.exists(keyspace.loaded(table.bundle_id)):
                return
            pipeline, n_bytes = self._redis.pipeline(transaction=False), 0
            for number in range(N_SHARDS):
                pipeline.hset(keyspace.of_shard("tables", number), table.bundle_id, str(table.n_buckets))
            await send(pipeline)
            with tqdm(total=len(user_ids), desc="user codes", unit="user", disable=None) as bar:
                for key, fields in table.entries(user_ids, codes):
                    pipeline.hset(key, mapping=fields) if table.n_buckets else pipeline.set(key, fields[b""])
                    n_bytes += sum(map(len, fields.values()))
                    if n_bytes >= PIPELINE_BYTES:
                        await send(pipeline)
                        n_bytes = 0
                    bar.update(len(fields))
                await send(pipeline)
            # Last, so that it holds for whoever was erased while the codes were on their way, too.
            if erased := await self._erased():
                for user_id in user_ids:
                    if digest(user_id) in erased:
                        key, field = table.place(user_id)
                        await (self._redis.hdel(key, field) if field else self._redis.delete(key))
            await self._redis.set(keyspace.loaded(table.bundle_id), 1)
            await self._redis.publish(CHANNEL, "all")
        self.changes.heard_of_all()

    async def _erased(self) -> set[str]:
        """Digests of the users who were erased."""
        found = [await self._redis.hkeys(keyspace.of_shard("erased", number)) for number in range(N_SHARDS)]
        return {who.decode() for everyone in found for who in everyone}

    async def erase(self, user_id: str) -> Erased:
        """Delete everything of a user in one step, but a digest that keeps trained codes from being stored again."""
        number = keyspace.shard(user_id)
        others = [keyspace.of_user(kind, user_id) for kind in ("generations", "profile", "count", "revision")]
        keys = [keyspace.of_user("given", user_id), keyspace.of_shard("votes", number), *others]
        keys += [keyspace.of_shard("erased", number)]
        async with mapped():
            fields: list[bytes] = []
            for name, n_buckets in (await self._redis.hgetall(keyspace.of_shard("tables", number))).items():
                key, field = place(name.decode(), count(n_buckets), user_id)
                keys += [key, keyspace.inferred(name.decode(), user_id)]
                fields += [field, b""]
            starts = keyspace.idempotency(user_id), keyspace.generation(user_id)
            counts = await call(self._redis, _ERASE, keys, *starts, digest(user_id), time.time(), *fields)
        self.changes.heard(user_id, erased=True)
        self._rewrite_wanted.set()
        if self._rewriting is None:
            self._rewriting = asyncio.create_task(self._rewrite_logs())
        return Erased(*counts)

    async def forget(self, bundle_id: str) -> int:
        """Delete what a bundle that nobody serves any more has left here: how many keys. Votes and profiles stay."""
        return await clear(self._redis, bundle_id)

    async def _rewrite_logs(self) -> None:
        """What is deleted stays in a node's append-only file until that is written anew, after each erasure."""
        while True:
            await self._rewrite_wanted.wait()
            self._rewrite_wanted.clear()
            left = set(nodes(self._redis))
            while left := {name for name in left & nodes(self._redis).keys() if not await self._rewrites_log(name)}:
                await asyncio.sleep(REWRITE_RETRY_S)

    async def _rewrites_log(self, name: str) -> bool:
        """Whether a node has begun to, or never will."""
        try:
            await self._redis.bgrewriteaof(**nodes(self._redis)[name])
        except ResponseError as error:
            if "in progress" in str(error):
                return False
            # Whoever runs this Redis has reserved the command, say.
            log.warning("Redis does not rewrite its append-only file: %s", error)
        except STORE_ERRORS as error:
            log.debug("redis: %s", type(error).__name__)
            return False
        return True
