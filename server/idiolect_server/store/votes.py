"""The votes: an append-only stream a shard is the record, and a hash a user says which of them are the user's.

A stream entry holds a whole vote as JSON. Votes leave it only when their user takes them back or is erased.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from idiolect.bank import pair_id
from idiolect.learning import GivenVote
from idiolect_server.errors import IdempotencyConflict
from idiolect_server.store import keyspace
from idiolect_server.store.changes import PUBLISH_CHANGE, Changes
from idiolect_server.store.codes import READ_CODE, CodeTable
from idiolect_server.store.connection import Connection, call, count, mapped, send

KEY_TTL_S = 30 * 24 * 3600
STREAM_ID = "[0-9]{1,16}-[0-9]{1,16}"

_RAISE_REVISION = (
    PUBLISH_CHANGE
    + """
local function raise_revision(key)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local before = tonumber(redis.call('GET', key) or '0') or 0
  redis.call('SET', key, string.format('%.0f', math.max(now, before + 1)))
  publish_change(key, 'changed')
end
"""
)
"""Revisions are times in microseconds, so that one from before an erasure never comes back."""

_ADD = (
    _RAISE_REVISION
    + """
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
raise_revision(KEYS[5])
return {0, made, tostring(redis.call('INCR', KEYS[3]))}
"""
)
"""Look up the key, append the vote, remember the key and count, in one step: no crash leaves some of them done."""

_TAKE_BACK = (
    _RAISE_REVISION
    + """
local given = redis.call('HGET', KEYS[1], ARGV[1])
if not given then
  return -1
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('XDEL', KEYS[2], ARGV[1])
redis.call('DEL', ARGV[2] .. cjson.decode(given)['key'])
raise_revision(KEYS[4])
return redis.call('DECR', KEYS[3])
"""
)

_GIVEN = (
    READ_CODE
    + """
return {redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2]), read_code(KEYS[3], ARGV[1])}
"""
)
"""A script, since a cluster's client blocks the event loop in transactions."""

_TOUCH = (
    _RAISE_REVISION
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then
  raise_revision(KEYS[1])
end
"""
)
"""The user's votes mean something new. A user who was erased meanwhile stays erased."""


@dataclass(frozen=True)
class Receipt:
    """An accepted vote. `duplicate` when the same key had brought it before."""

    vote_id: str
    votes: int
    duplicate: bool


@dataclass(frozen=True)
class Given:
    """All votes of a user, the oldest first, at one revision (0: never voted); and the record of the trained code."""

    votes: Sequence[GivenVote]
    revision: int
    trained: bytes | None


class VoteLog:
    """Every method raises StoreUnavailable when Redis does not answer in time."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._redis, self._changes = connection, changes

    async def add(self, user_id: str, key: str, vote: Mapping[str, Any]) -> Receipt:
        """Append a vote, once for each (user, key).

        Raises IdempotencyConflict when the key came with another vote before. When this raises StoreUnavailable the
        vote may or may not be stored; repeating it with the same key settles that without counting it twice.
        """
        number = keyspace.shard(user_id)
        payload = json.dumps({"user_id": user_id, **vote}, sort_keys=True, ensure_ascii=False)
        # Not by the bundle: the same request is the same vote when another one is served meanwhile.
        said = {"user_id": user_id} | {field: value for field, value in vote.items() if field != "bundle_id"}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
        name = hashlib.sha256(f"{user_id}\0{key}".encode()).hexdigest()[:32]
        pair = pair_id(vote["messages"], vote["chosen"], vote["rejected"])
        given = json.dumps({"pair": pair, "first": vote["chosen"] < vote["rejected"], "key": name})
        keys = [keyspace.of_shard("votes", number), keyspace.idempotency(user_id, name)]
        keys += [keyspace.of_user(kind, user_id) for kind in ("count", "given", "revision")]
        async with mapped():
            duplicate, made, votes = await call(self._redis, _ADD, keys, payload, digest, KEY_TTL_S, given)
        self._changes.heard(user_id)
        seen, stream_id = made.decode()[:32], made.decode()[32:]
        if seen != digest:
            raise IdempotencyConflict(
                "this idempotency key was used for another vote", hint="use a fresh key for each vote"
            )
        return Receipt(f"{number}-{stream_id}", count(votes), bool(duplicate))

    async def take_back(self, user_id: str, vote_id: str) -> int | None:
        """Remove one vote, as if it had never been given: how many are left; None when the user has no such vote."""
        number, _, stream_id = vote_id.partition("-")
        if number != str(keyspace.shard(user_id)):
            return None
        keys = [keyspace.of_user("given", user_id), keyspace.of_shard("votes", int(number))]
        keys += [keyspace.of_user("count", user_id), keyspace.of_user("revision", user_id)]
        async with mapped():
            left = int(await call(self._redis, _TAKE_BACK, keys, stream_id, keyspace.idempotency(user_id)))
        self._changes.heard(user_id)
        return None if left < 0 else left

    async def given(self, table: CodeTable, user_id: str) -> Given:
        """A user's votes, in one round trip and at one moment."""
        key, field = table.place(user_id)
        async with mapped():
            names = [keyspace.of_user("given", user_id), keyspace.of_user("revision", user_id), key]
            listed, revision, trained = await call(self._redis, _GIVEN, names, field)
        votes = dict(zip(listed[::2], listed[1::2], strict=True))
        return Given(in_order(votes), count(revision), trained)

    async def touch(self, user_ids: Collection[str]) -> None:
        """Have these users' codes inferred anew: pairs of theirs have been scored."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for user_id in user_ids:
                call(pipeline, _TOUCH, [keyspace.of_user("revision", user_id)])
            await send(pipeline)
        for user_id in user_ids:
            self._changes.heard(user_id)


def parse_vote(fields: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """A stream entry's vote; what we did not write is no vote."""
    try:
        vote = json.loads(fields[b"vote"])
    except (ValueError, KeyError):
        return None
    complete = isinstance(vote, dict) and {"user_id", "messages", "chosen", "rejected"} <= vote.keys()
    return vote if complete and isinstance(vote["user_id"], str) else None


def in_order(votes: Mapping[bytes, bytes]) -> list[GivenVote]:
    """The hash `given` as votes, the oldest first; what we did not write is no vote."""
    found: dict[tuple[int, int], GivenVote] = {}
    for stream_id, value in votes.items():
        text = stream_id.decode("ascii", "replace")
        if not re.fullmatch(STREAM_ID, text):
            continue
        milliseconds, _, number = text.partition("-")
        with suppress(ValueError, KeyError, TypeError):
            fields = json.loads(value)
            vote = GivenVote(str(fields["pair"]), bool(fields["first"]), int(milliseconds), text)
            found[int(milliseconds), int(number)] = vote
    return [found[place] for place in sorted(found)]
