"""The votes: an append-only stream a shard is the record, and a hash a user says which of them are the user's.

A stream entry holds a whole vote as JSON. Votes leave it only when their user takes them back or is erased.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from idiolect.bank import pair_id
from idiolect.learning import WEIGHTS, GivenVote
from idiolect_server.errors import IdempotencyConflict, TooManyVotes, VoteTooLarge
from idiolect_server.store import keyspace
from idiolect_server.store.changes import PUBLISH_CHANGE, Changes
from idiolect_server.store.codes import READ_CODE, CodeTable
from idiolect_server.store.connection import Connection, call, count, mapped, send
from idiolect_server.store.keyspace import OURS
from idiolect_server.store.stream import APPEND, is_place, order

KEY_TTL_S = 30 * 24 * 3600
_PAIR = re.compile("[0-9a-f]{16}")
INLINE_VOTES = 64
"""As many are parsed at once; more, in a thread."""
MAX_VOTE_BYTES = 32 * 1024
"""Of a vote as it is stored, with its conversation."""
MAX_USER_VOTES = 2048
"""Of one user, at a time: a year of five and a half a day. What counts are the latest 512 (idiolect/learning.py)."""
SCAN_VOTES = 500
"""Of a user who has more than that, since before the limit, read in one step."""
_RAISE_REVISION = (
    OURS
    + PUBLISH_CHANGE
    + """
local function raise_revision(key)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  redis.call('SET', key, string.format('%.0f', math.max(now, number(key) + 1)))
  publish_change(key, 'changed')
end
"""
)
"""Revisions are times in microseconds, so that one from before an erasure never comes back."""

_ADD = (
    _RAISE_REVISION
    + APPEND
    + """
local seen = text(KEYS[2])
local exists = string.match(seen, '^%x+%-%d+$') and redis.pcall('HEXISTS', KEYS[4], string.sub(seen, 33)) == 1
local n_given = kind(KEYS[4]) == 'hash' and redis.call('HLEN', KEYS[4]) or 0
if exists then
  return {'seen', seen, n_given}
end
if n_given >= tonumber(ARGV[5]) then
  return {'too many', '', n_given}
end
make_way(KEYS[1], 'stream')
make_way(KEYS[4], 'hash')
local id = append(KEYS[1], ARGV[1])
local made = ARGV[2] .. id
redis.call('SET', KEYS[2], made, 'EX', ARGV[3])
redis.call('HSET', KEYS[4], id, ARGV[4])
raise_revision(KEYS[5])
local count = math.max(number(KEYS[3]), n_given) + 1
redis.call('SET', KEYS[3], count)
return {'new', made, count}
"""
)
"""Look up the key, append the vote, remember the key and count, in one step: no crash leaves some of them done.

A key whose vote is not, or no longer, the user's says nothing. A count above what `given` lists is kept: votes of the
user's are in the stream that are not listed, which an erasure has to look for.
"""

_TAKE_BACK = (
    _RAISE_REVISION
    + """
local given = redis.pcall('HGET', KEYS[1], ARGV[1])
if type(given) ~= 'string' then
  return -1
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.pcall('XDEL', KEYS[2], ARGV[1])
local digest = string.match(given, '"key": ?"(%x+)"')
if digest and string.sub(text(ARGV[2] .. digest), 33) == ARGV[1] then
  redis.call('UNLINK', ARGV[2] .. digest)
end
raise_revision(KEYS[4])
local left = math.max(number(KEYS[3]) - 1, redis.call('HLEN', KEYS[1]))
redis.call('SET', KEYS[3], left)
return left
"""
)

_GIVEN = (
    OURS
    + READ_CODE
    + """
local n_votes = kind(KEYS[1]) == 'hash' and redis.call('HLEN', KEYS[1]) or 0
local listed = n_votes > 0 and n_votes <= tonumber(ARGV[2]) and redis.call('HGETALL', KEYS[1]) or {}
return {n_votes, listed, text(KEYS[2]), read_code(KEYS[3], ARGV[1])}
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
    """Every method raises StoreError. `patient` is another connection, for what may take its time."""

    def __init__(self, connection: Connection, patient: Connection, changes: Changes) -> None:
        self._redis, self._patient, self._changes = connection, patient, changes

    async def add(self, user_id: str, key: str, vote: Mapping[str, Any]) -> Receipt:
        """Append a vote, once for each (user, key).

        Raises IdempotencyConflict when the key came with another vote before, VoteTooLarge, and TooManyVotes beyond
        MAX_USER_VOTES. When this raises StoreUnavailable the vote may or may not be stored; repeating it with the same
        key settles that without counting it twice.
        """
        number = keyspace.shard(user_id)
        payload = json.dumps({"user_id": user_id, **vote}, sort_keys=True, ensure_ascii=False).encode()
        if len(payload) > MAX_VOTE_BYTES:
            raise VoteTooLarge(
                f"the vote takes {len(payload)} bytes with its conversation, at most {MAX_VOTE_BYTES} are kept",
                hint="leave out early messages",
            )
        # Not by what the server adds to it: the same request is the same vote when another bundle is served meanwhile.
        said = {"user_id": user_id} | {name: vote[name] for name in vote.keys() - {"bundle_id", "chosen_first"}}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
        name = hashlib.sha256(f"{user_id}\0{key}".encode()).hexdigest()[:32]
        pair = pair_id(vote["messages"], vote["chosen"], vote["rejected"])
        more = {name: vote[field] for name, field in (("kind", "kind"), ("shown", "chosen_first")) if field in vote}
        given = json.dumps({"pair": pair, "first": vote["chosen"] < vote["rejected"], "key": name} | more)
        keys = [keyspace.of_shard("votes", number), keyspace.idempotency(user_id, name)]
        keys += [keyspace.of_user(kind, user_id) for kind in ("count", "given", "revision")]
        async with mapped():
            answer = await call(self._redis, _ADD, keys, payload, digest, KEY_TTL_S, given, MAX_USER_VOTES)
        outcome, made, n_votes = answer
        if outcome == b"too many":
            raise TooManyVotes(
                f"the user has {n_votes} votes, at most {MAX_USER_VOTES} are kept of one user",
                hint="take some back, or erase the user",
            )
        self._changes.heard(user_id)
        seen, stream_id = made.decode()[:32], made.decode()[32:]
        if seen != digest:
            raise IdempotencyConflict(
                "this idempotency key was used for another vote", hint="use a fresh key for each vote"
            )
        return Receipt(f"{number}-{stream_id}", n_votes, outcome == b"seen")

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
        """A user's votes, in one round trip and at one moment; the latest MAX_USER_VOTES of somebody who has more."""
        key, field = table.place(user_id)
        async with mapped():
            names = [keyspace.of_user("given", user_id), keyspace.of_user("revision", user_id), key]
            answer = await call(self._redis, _GIVEN, names, field, MAX_USER_VOTES)
        n_votes, listed, revision, trained = answer
        votes = dict(zip(listed[::2], listed[1::2], strict=True))
        if n_votes > MAX_USER_VOTES:
            votes = await latest(self._patient, names[0])
        found = await asyncio.to_thread(in_order, votes) if len(votes) > INLINE_VOTES else in_order(votes)
        return Given(found, count(revision), trained)

    async def touch(self, user_ids: Collection[str]) -> None:
        """Have these users' codes inferred anew: pairs of theirs have been scored."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for user_id in user_ids:
                call(pipeline, _TOUCH, [keyspace.of_user("revision", user_id)])
            await send(pipeline)
        for user_id in user_ids:
            self._changes.heard(user_id)


async def latest(connection: Connection, key: str) -> dict[bytes, bytes]:
    """The latest MAX_USER_VOTES of a hash `given` that has too many, in steps between which Redis serves others.

    Raises StoreError.
    """
    found: dict[bytes, bytes] = {}
    cursor = 0
    while True:
        async with mapped():
            cursor, some = await connection.hscan(key, cursor, count=SCAN_VOTES)
        found |= some
        if not cursor or len(found) > 2 * MAX_USER_VOTES:
            kept = sorted(filter(is_place, found), key=order)[-MAX_USER_VOTES:]
            found = {stream_id: found[stream_id] for stream_id in kept}
        if not cursor:
            return found


def in_order(votes: Mapping[bytes, bytes]) -> list[GivenVote]:
    """The hash `given` as votes, the oldest first; what we did not write is no vote."""
    found = []
    for stream_id in sorted(filter(is_place, votes), key=order):
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            fields = json.loads(votes[stream_id])
            pair, kind = fields["pair"], fields.get("kind", "comparison")
            if _PAIR.fullmatch(pair) and kind in WEIGHTS:
                first, shown = None if kind == "tie" else fields["first"] is True, fields.get("shown")
                shown_first = shown if isinstance(shown, bool) and first is not None else None
                found.append(GivenVote(pair, first, order(stream_id)[0], stream_id.decode(), kind, shown_first))
    return found
