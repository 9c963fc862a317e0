"""Users and votes in Redis. Votes are the record; codes can be rebuilt from a bundle and the votes.

All keys of one user carry the same hash tag, so that every operation is one slot of a Redis Cluster:

    idiolect:{N}:votes                    stream   votes of every user whose id hashes to shard N
    idiolect:{N}:given:USER               hash     the user's votes: stream id -> pair, side, idempotency key
    idiolect:{N}:count:USER               string   how many votes the user has given
    idiolect:{N}:revision:USER            string   raised by whatever changes the user's votes
    idiolect:{N}:key:DIGEST               string   an idempotency key -> the vote it made
    idiolect:{N}:code:BUNDLE:USER         string   the user's trained code under one bundle (store/record.py)
    idiolect:{N}:inferred:BUNDLE:USER     string   the code inferred from votes, after the revision it was inferred at
    idiolect:loaded:BUNDLE                string   set when all trained codes of a bundle are stored
    idiolect:generation:ID                string   prompt and reply of a generation, for later feedback
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from idiolect.bank import pair_id
from idiolect.user_model import Array
from server.errors import IdempotencyConflict, StoreUnavailable
from server.store.record import encode_code

N_SHARDS = 64
TIMEOUT_S = 0.5
KEY_TTL_S = 30 * 24 * 3600
GENERATION_TTL_S = 24 * 3600
PIPELINE_BYTES = 1 << 18
"""Small enough that one pipeline is sent well within TIMEOUT_S, whatever the size of a code."""

_ADD_VOTE = """
local seen = redis.call('GET', KEYS[2])
if seen then
  return {1, seen, redis.call('GET', KEYS[3]) or '0'}
end
local count = redis.call('GET', KEYS[3])
if count and not string.match(count, '^%d+$') then
  redis.call('DEL', KEYS[3])
end
local id = redis.call('XADD', KEYS[1], '*', 'vote', ARGV[1])
local made = ARGV[2] .. id
redis.call('SET', KEYS[2], made, 'EX', ARGV[3])
redis.call('HSET', KEYS[4], id, ARGV[4])
redis.call('INCR', KEYS[5])
return {0, made, tostring(redis.call('INCR', KEYS[3]))}
"""
"""Look up the key, append the vote, remember the key and count, in one step: no crash leaves some of them done."""

_DELETE_VOTE = """
local given = redis.call('HGET', KEYS[1], ARGV[1])
if not given then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('XDEL', KEYS[2], ARGV[1])
redis.call('DECR', KEYS[3])
redis.call('INCR', KEYS[4])
return given
"""

_PUT_INFERRED = """
if (redis.call('GET', KEYS[1]) or '0') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
"""Whoever inferred from fewer votes than there are now has been overtaken."""

_REVISION = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredUser:
    """What Redis holds of a user: the code's record, unchecked, and the number of votes.

    `stale` when votes have changed since the code was inferred, or none was.
    """

    record: bytes | None
    votes: int
    stale: bool


@dataclass(frozen=True)
class GivenVote:
    """What inference needs of a vote: the pair (idiolect.bank.pair_id), and whether its first side was preferred."""

    pair_id: str
    first: bool


@dataclass(frozen=True)
class Given:
    """All votes of a user by their stream ids, at one revision; and the record of the user's trained code."""

    votes: dict[str, GivenVote]
    revision: int
    trained: bytes | None


@dataclass(frozen=True)
class Receipt:
    """An accepted vote. `duplicate` when the same key had brought it before."""

    vote_id: str
    votes: int
    duplicate: bool


class Store:
    """Every method raises StoreUnavailable when Redis does not answer within TIMEOUT_S."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            # One more try: the first may have met a connection that a restarted Redis has closed.
            retry=Retry(ConstantBackoff(0), 1),
        )
        self._add_vote = self._redis.register_script(_ADD_VOTE)
        self._delete_vote = self._redis.register_script(_DELETE_VOTE)
        self._put_inferred = self._redis.register_script(_PUT_INFERRED)

    async def close(self) -> None:
        await self._redis.aclose()

    async def ping(self) -> None:
        async with _mapped():
            await self._redis.ping()

    async def user(self, bundle_id: str, user_id: str) -> StoredUser:
        """A user's record under a bundle, in one round trip."""
        tag = _tag(user_id)
        names = (f"code:{bundle_id}", f"inferred:{bundle_id}", "count", "revision")
        async with _mapped():
            trained, inferred, votes, revision = await self._redis.mget(
                f"idiolect:{tag}:{name}:{user_id}" for name in names
            )
        now = _count(revision)
        seen, record = 0, trained if isinstance(trained, bytes) else None
        if isinstance(inferred, bytes) and len(inferred) >= _REVISION.size:
            seen = _REVISION.unpack_from(inferred)[0]
            record = inferred[_REVISION.size :] or record
        return StoredUser(record, _count(votes), seen != now)

    async def given(self, bundle_id: str, user_id: str) -> Given:
        """A user's votes, in one round trip and at one moment."""
        tag = _tag(user_id)
        async with _mapped():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hgetall(f"idiolect:{tag}:given:{user_id}")
            pipeline.mget(f"idiolect:{tag}:revision:{user_id}", f"idiolect:{tag}:code:{bundle_id}:{user_id}")
            votes, (revision, trained) = await pipeline.execute()
        found = {vote_id.decode(): _given_vote(value) for vote_id, value in votes.items()}
        return Given({vote_id: vote for vote_id, vote in found.items() if vote}, _count(revision), trained)

    async def put_inferred(self, bundle_id: str, user_id: str, record: bytes, revision: int) -> bool:
        """Store the code that was inferred from the votes at `revision`; False when votes have changed since.

        An empty record says that nothing could be inferred: the trained code, if any, stays in force.
        """
        tag = _tag(user_id)
        keys = [f"idiolect:{tag}:revision:{user_id}", f"idiolect:{tag}:inferred:{bundle_id}:{user_id}"]
        async with _mapped():
            return bool(await self._put_inferred(keys, [str(revision), _REVISION.pack(revision) + record]))

    async def delete_vote(self, user_id: str, vote_id: str) -> bool:
        """Take one vote back, as if it had never been given; False when there is no such vote."""
        tag, name = _tag(user_id), vote_id.partition("-")[2]
        keys = [
            f"idiolect:{tag}:given:{user_id}",
            f"idiolect:{tag}:votes",
            f"idiolect:{tag}:count:{user_id}",
            f"idiolect:{tag}:revision:{user_id}",
        ]
        async with _mapped():
            given = await self._delete_vote(keys, [name])
            if not given:
                return False
            await self._redis.delete(f"idiolect:{tag}:key:{json.loads(given)['key']}")
        return True

    async def load_codes(self, bundle_id: str, users: Iterable[tuple[str, Array]]) -> None:
        """Store every trained code of a bundle; returns at once when that was done before."""
        async with _mapped():
            if await self._redis.exists(f"idiolect:loaded:{bundle_id}"):
                return
            pipeline, n_bytes = self._redis.pipeline(transaction=False), 0
            for user_id, code in users:
                record = encode_code(code)
                pipeline.set(f"idiolect:{_tag(user_id)}:code:{bundle_id}:{user_id}", record)
                n_bytes += len(record)
                if n_bytes >= PIPELINE_BYTES:
                    await pipeline.execute()
                    n_bytes = 0
            await pipeline.execute()
            await self._redis.set(f"idiolect:loaded:{bundle_id}", 1)

    async def add_vote(self, user_id: str, key: str, vote: Mapping[str, Any]) -> Receipt:
        """Append a vote, once for each (user, key).

        Raises IdempotencyConflict when the key came with another vote before. When this raises StoreUnavailable the
        vote may or may not be stored; repeating it with the same key settles that without counting it twice.
        """
        tag = _tag(user_id)
        payload = json.dumps({"user_id": user_id, **vote}, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(payload.encode()).hexdigest()[:32]
        name = hashlib.sha256(f"{user_id}\0{key}".encode()).hexdigest()[:32]
        given = json.dumps(
            {"pair": pair_id(vote["messages"], vote["chosen"], vote["rejected"]), "key": name}
            | {"first": vote["chosen"] < vote["rejected"]}
        )
        keys = [f"idiolect:{tag}:votes", f"idiolect:{tag}:key:{name}"]
        keys += [f"idiolect:{tag}:{kind}:{user_id}" for kind in ("count", "given", "revision")]
        async with _mapped():
            duplicate, made, votes = await self._add_vote(keys, [payload, digest, KEY_TTL_S, given])
        seen, vote_id = made.decode()[:32], made.decode()[32:]
        if seen != digest:
            raise IdempotencyConflict(
                "this idempotency key was used for another vote", hint="use a fresh key for each vote"
            )
        return Receipt(f"{tag[1:-1]}-{vote_id}", _count(votes), bool(duplicate))

    async def remember(self, generation_id: str, generation: Mapping[str, Any]) -> None:
        """Keep a generation for feedback, for GENERATION_TTL_S."""
        async with _mapped():
            await self._redis.set(f"idiolect:generation:{generation_id}", json.dumps(generation), ex=GENERATION_TTL_S)

    async def generation(self, generation_id: str) -> dict[str, Any] | None:
        """What `remember` kept, or None."""
        async with _mapped():
            found = await self._redis.get(f"idiolect:generation:{generation_id}")
        try:
            values = json.loads(found or b"null")
        except ValueError:
            return None  # whatever this is, it is no generation of ours
        return values if isinstance(values, dict) and {"user_id", "messages", "profile"} <= values.keys() else None


class _mapped:
    """Redis's errors become ours, here and nowhere else."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RedisError | OSError | TimeoutError):
            raise StoreUnavailable("the user store does not answer", hint="try again shortly") from error


def _count(value: object) -> int:
    """A counter as read; anything but digits was not written by us and counts as nothing."""
    return int(value) if isinstance(value, bytes) and value.isdigit() else 0


def _given_vote(value: bytes) -> GivenVote | None:
    """A vote as read; what we did not write is no vote."""
    try:
        fields = json.loads(value)
        return GivenVote(str(fields["pair"]), bool(fields["first"]))
    except (ValueError, KeyError, TypeError):
        return None


def _tag(user_id: str) -> str:
    return f"{{{zlib.crc32(user_id.encode()) % N_SHARDS}}}"
