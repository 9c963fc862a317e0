"""Users in Redis. Votes are the record (store/votes.py); codes can be rebuilt from a bundle and the votes.

All keys of one user carry the same hash tag, so that every operation is one slot of a Redis Cluster:

    idiolect:{N}:votes                    stream   votes of every user whose id hashes to shard N
    idiolect:{N}:given:USER               hash     the user's votes: stream id -> pair, side, idempotency key
    idiolect:{N}:count:USER               string   how many votes the user has given
    idiolect:{N}:revision:USER            string   raised by whatever changes what the user's votes say
    idiolect:{N}:key:DIGEST               string   an idempotency key -> the vote it made
    idiolect:{N}:profile:USER             string   what the user says in words
    idiolect:{N}:code:BUNDLE:USER         string   the user's trained code under one bundle (store/record.py)
    idiolect:{N}:inferred:BUNDLE:USER     string   the code inferred from votes, after the revision it was inferred at
    idiolect:{N}:generation:ID            string   prompt and reply of a user's generation, for later feedback
    idiolect:{N}:generations:USER         zset     the ids of these, by the time they were made
    idiolect:{N}:erased                   hash     SHA-256 of an erased user's id -> when, in Unix seconds
    idiolect:{N}:margins:BUNDLE           hash     a pair whose id hashes to shard N -> its margins (server/scorer.py)
    idiolect:{N}:tries:BUNDLE:PAIR        string   how often the pair has been tried to score lately
    idiolect:loaded:BUNDLE                string   set when all trained codes of a bundle are stored
    idiolect:bundles                      set      every bundle whose codes were stored here
"""

import asyncio
import hashlib
import json
import logging
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from redis.exceptions import RedisError, ResponseError

from idiolect.user_model import Array
from idiolect.votes import Floats
from server.store.connection import N_SHARDS, connect, count, mapped, shard
from server.store.queue import Queue
from server.store.record import encode_code
from server.store.votes import VoteLog

log = logging.getLogger(__name__)

GENERATION_TTL_S = 24 * 3600
TRIES_TTL_S = 24 * 3600
REWRITE_RETRY_S = 1.0
PIPELINE_BYTES = 1 << 18
"""Small enough that one pipeline is sent well within the timeout, whatever the size of a code."""

_PUT_INFERRED = """
if (redis.call('GET', KEYS[1]) or '0') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
"""Whoever inferred from fewer votes than there are now has been overtaken."""

_REMEMBER = """
local erased = redis.call('HGET', KEYS[3], ARGV[4])
if erased and tonumber(erased) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2] - ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
"""
"""A generation that was being made while its user was erased is not kept."""

_ERASE = """
local n_votes, n_generations, n_codes = 0, 0, 0
local given = redis.call('HGETALL', KEYS[1])
for i = 1, #given, 2 do
  redis.call('XDEL', KEYS[2], given[i])
  redis.call('DEL', ARGV[1] .. 'key:' .. cjson.decode(given[i + 1])['key'])
  n_votes = n_votes + 1
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  n_generations = n_generations + redis.call('DEL', ARGV[1] .. 'generation:' .. id)
end
for i = 8, #KEYS do
  n_codes = n_codes + redis.call('DEL', KEYS[i])
end
local n_profiles = redis.call('DEL', KEYS[4])
redis.call('DEL', KEYS[1], KEYS[3], KEYS[5], KEYS[6])
redis.call('HSET', KEYS[7], ARGV[2], ARGV[3])
return {n_votes, n_generations, n_codes, n_profiles}
"""

_REVISION = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredUser:
    """What Redis holds of a user: the code's record, unchecked, the number of votes, and the profile.

    `stale` when votes have changed since the code was inferred, or none was.
    """

    record: bytes | None
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
        self.votes = VoteLog(self._redis)
        self._put_inferred = self._redis.register_script(_PUT_INFERRED)
        self._remember = self._redis.register_script(_REMEMBER)
        self._erase = self._redis.register_script(_ERASE)
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

    async def user(self, bundle_id: str, user_id: str) -> StoredUser:
        """A user's record under a bundle, in one round trip."""
        names = (f"code:{bundle_id}", f"inferred:{bundle_id}", "count", "revision", "profile")
        async with mapped():
            trained, inferred, votes, revision, profile = await self._redis.mget(_keys(user_id, *names))
        seen, record = 0, trained if isinstance(trained, bytes) else None
        if isinstance(inferred, bytes) and len(inferred) >= _REVISION.size:
            seen = _REVISION.unpack_from(inferred)[0]
            record = inferred[_REVISION.size :] or record
        words = profile.decode("utf-8", "replace") if isinstance(profile, bytes) else None
        return StoredUser(record, count(votes), seen != count(revision), words)

    async def put_inferred(self, bundle_id: str, user_id: str, record: bytes, revision: int) -> bool:
        """Store the code that was inferred from the votes at `revision`; False when votes have changed since.

        An empty record says that nothing could be inferred: the trained code, if any, stays in force.
        """
        keys = _keys(user_id, "revision", f"inferred:{bundle_id}")
        async with mapped():
            return bool(await self._put_inferred(keys, [str(revision), _REVISION.pack(revision) + record]))

    async def put_profile(self, user_id: str, profile: str | None) -> None:
        """What the user says in words; None forgets it."""
        (key,) = _keys(user_id, "profile")
        async with mapped():
            await (self._redis.delete(key) if profile is None else self._redis.set(key, profile))

    async def load_codes(self, bundle_id: str, users: Iterable[tuple[str, Array]]) -> None:
        """Store every trained code of a bundle, but for erased users; returns at once when that was done before."""
        async with mapped():
            if await self._redis.exists(f"idiolect:loaded:{bundle_id}"):
                return
            await self._redis.sadd("idiolect:bundles", bundle_id)
            erased = await self._erased()
            kept: dict[str, str] = {}
            pipeline, n_bytes = self._redis.pipeline(transaction=False), 0
            for user_id, code in users:
                digest = _digest(user_id)
                if digest in erased:
                    continue
                record = encode_code(code)
                (key,) = _keys(user_id, f"code:{bundle_id}")
                kept[digest] = key
                pipeline.set(key, record)
                n_bytes += len(record)
                if n_bytes >= PIPELINE_BYTES:
                    await pipeline.execute()
                    n_bytes = 0
            await pipeline.execute()
            for digest in await self._erased() - erased:  # while the codes were on their way
                if digest in kept:
                    await self._redis.delete(kept[digest])
            await self._redis.set(f"idiolect:loaded:{bundle_id}", 1)

    async def _erased(self) -> set[str]:
        """Digests of the users who were erased."""
        found = [await self._redis.hkeys(f"idiolect:{{{number}}}:erased") for number in range(N_SHARDS)]
        return {digest.decode() for digests in found for digest in digests}

    async def margins(self, bundle_id: str, pair_ids: Sequence[str]) -> dict[str, Floats]:
        """What `put_margins` stored of these pairs; those that were never scored are absent."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for pair in pair_ids:
                pipeline.hget(f"idiolect:{shard(pair)}:margins:{bundle_id}", pair)
            found = await pipeline.execute()
        return {
            pair: np.frombuffer(value, "<f8").astype(np.float64)
            for pair, value in zip(pair_ids, found, strict=True)
            if isinstance(value, bytes) and len(value) % 8 == 0
        }

    async def put_margins(self, bundle_id: str, pair: str, margins: Floats) -> None:
        """Numbers that tell a pair's margins under every code of a bundle; the first to come are kept."""
        async with mapped():
            value = np.asarray(margins, "<f8").tobytes()
            await self._redis.hsetnx(f"idiolect:{shard(pair)}:margins:{bundle_id}", pair, value)

    async def count_try(self, bundle_id: str, pair: str) -> int:
        """How often this pair has been tried to score under a bundle, this time included, within TRIES_TTL_S."""
        key = f"idiolect:{shard(pair)}:tries:{bundle_id}:{pair}"
        async with mapped():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.incr(key)
            pipeline.expire(key, TRIES_TTL_S)
            return int((await pipeline.execute())[0])

    async def remember(self, user_id: str, generation_id: str, generation: Mapping[str, Any], began_s: float) -> None:
        """Keep a user's generation for feedback, for GENERATION_TTL_S. `began_s` is when it began, in Unix seconds."""
        tag = shard(user_id)
        keys = [f"idiolect:{tag}:generation:{generation_id}", *_keys(user_id, "generations"), f"idiolect:{tag}:erased"]
        values = [json.dumps(generation), began_s, GENERATION_TTL_S, _digest(user_id), generation_id]
        async with mapped():
            await self._remember(keys, values)

    async def generation(self, user_id: str, generation_id: str) -> dict[str, Any] | None:
        """What `remember` kept of this user, or None."""
        async with mapped():
            found = await self._redis.get(f"idiolect:{shard(user_id)}:generation:{generation_id}")
        try:
            values = json.loads(found or b"null")
        except ValueError:
            return None  # whatever this is, it is no generation of ours
        ours = isinstance(values, dict) and {"user_id", "messages", "profile"} <= values.keys()
        return values if ours and values["user_id"] == user_id else None

    async def erase(self, user_id: str) -> Erased:
        """Delete everything of a user in one step, but a digest that keeps trained codes from being stored again."""
        tag = shard(user_id)
        given, *others = _keys(user_id, "given", "generations", "profile", "count", "revision")
        keys = [given, f"idiolect:{tag}:votes", *others, f"idiolect:{tag}:erased"]
        async with mapped():
            for bundle in await self._redis.smembers("idiolect:bundles"):
                keys += _keys(user_id, f"code:{bundle.decode()}", f"inferred:{bundle.decode()}")
            counts = await self._erase(keys, [f"idiolect:{tag}:", _digest(user_id), time.time()])
        self._rewrite_wanted.set()
        if self._rewriting is None:
            self._rewriting = asyncio.create_task(self._rewrite_log())
        return Erased(*counts)

    async def _rewrite_log(self) -> None:
        """What is deleted stays in Redis's append-only file until that is written anew, after each erasure."""
        while True:
            await self._rewrite_wanted.wait()
            try:
                await self._redis.bgrewriteaof()
                self._rewrite_wanted.clear()
            except ResponseError as error:
                if "in progress" not in str(error):
                    log.warning(
                        "Redis does not rewrite its append-only file: %s", error
                    )  # the command is reserved, say
                    self._rewrite_wanted.clear()
            except RedisError as error:
                log.debug("redis: %s", type(error).__name__)
            await asyncio.sleep(REWRITE_RETRY_S)


def _keys(user_id: str, *names: str) -> list[str]:
    return [f"idiolect:{shard(user_id)}:{name}:{user_id}" for name in names]


def _digest(user_id: str) -> str:
    return hashlib.sha256(user_id.encode()).hexdigest()
