"""Every key in Redis is spelled here and nowhere else.

All keys of one user carry the same hash tag, so that every operation is one slot of a Redis Cluster:

    idiolect:{N}:votes                    stream   votes of every user whose id hashes to shard N
    idiolect:{N}:given:USER               hash     the user's votes: stream id -> pair, side, idempotency key
    idiolect:{N}:count:USER               string   how many votes the user has given
    idiolect:{N}:revision:USER            string   raised by whatever changes what the user's votes say
    idiolect:{N}:key:DIGEST               string   an idempotency key -> the vote it made
    idiolect:{N}:profile:USER             string   what the user says in words
    idiolect:{N}:code:BUNDLE:USER         string   the user's trained code under one bundle (codes.py), or
    idiolect:{N}:codes:BUNDLE:BUCKET      hash     the codes of about 64 users, by a digest of their ids
    idiolect:{N}:inferred:BUNDLE:USER     string   the code inferred from votes, after the revision it was inferred at
    idiolect:{N}:generation:ID            string   prompt and reply of a user's generation, for later feedback
    idiolect:{N}:generations:USER         zset     the ids of these, by the time they were made
    idiolect:{N}:erased                   hash     SHA-256 of an erased user's id -> when, in Unix seconds
    idiolect:{N}:gone:DIGEST              string   the same for somebody of whom there was nothing, for a day
    idiolect:{N}:erasures                 hash     ID of an erasure under way -> last vote, user (erasures.py)
    idiolect:{N}:erasing:ID:given         hash     what is left to delete: the votes, as in `given`,
    idiolect:{N}:erasing:ID:generations   zset     and the generations
    idiolect:{N}:margins:BUNDLE           hash     a pair whose id hashes to shard N -> its margins (margins.py)
    idiolect:{N}:tries:BUNDLE:PAIR        string   how often the pair has been tried to score lately
    idiolect:{N}:tables                   hash     every bundle whose codes were stored here -> its buckets per shard
    idiolect:loaded:BUNDLE                string   set when all trained codes of a bundle are stored
"""

import re
import zlib
from typing import Literal

N_SHARDS = 64
CHANNEL = "idiolect:changed"
"""Messages: `changed USER`, `erased USER`, or `all`."""
USER_OF_KEY = "^idiolect:{%d+}:%a+:(.*)$"
"""Lua pattern: the user's id at the end of any of the user's own keys."""

OfUser = Literal["given", "count", "revision", "profile", "generations"]
OfShard = Literal["votes", "erased", "erasures", "tables"]

FIRST_ODD_MS = 10**14
"""Ids in the stream of votes begin with Unix milliseconds: those of the year 5138 and later are not ours."""
MAX_NUMBER = 1 << 52
"""Counters and revisions stay below: Lua counts in doubles."""

OURS = f"""
local function kind(key)
  return redis.call('TYPE', key).ok
end
local function make_way(key, wanted)
  local found = kind(key)
  if found ~= wanted and found ~= 'none' then
    redis.call('UNLINK', key)
  end
end
local function text(key)
  local value = redis.pcall('GETRANGE', key, 0, 127)
  return type(value) == 'string' and value or ''
end
local function number(key)
  local digits = string.match(text(key), '^%d+$')
  local value = digits and #digits <= 16 and tonumber(digits) or 0
  return value < {MAX_NUMBER} and value or 0
end
"""
"""For scripts: what we did not write is nothing, of whatever type it is. Small values are read by `text` (none: empty)
and `number` (none: 0); before the first write to a key, `make_way` removes what is not of the key's type."""


PROBE = "idiolect:probe"
"""Never there."""
EVERYBODY_GONE = "idiolect:*:gone:*", re.compile(rb"idiolect:\{\d+\}:gone:([0-9a-f]{64})")
"""A glob that finds the keys `gone`, and what of its finds are such."""


def shard(name: str) -> int:
    """That of a user, or of a pair."""
    return zlib.crc32(name.encode()) % N_SHARDS


def of_shard(kind: OfShard, number: int) -> str:
    return f"idiolect:{{{number}}}:{kind}"


def of_user(kind: OfUser, user_id: str) -> str:
    return f"idiolect:{{{shard(user_id)}}}:{kind}:{user_id}"


def idempotency(user_id: str, digest: str = "") -> str:
    """Without a digest: what the keys of all users of the shard begin with."""
    return keys_of(shard(user_id)) + digest


def generation(user_id: str, generation_id: str = "") -> str:
    """Without an id: what the keys of all generations of the shard begin with."""
    return generations_of(shard(user_id)) + generation_id


def keys_of(number: int) -> str:
    """What the idempotency keys of all users of a shard begin with."""
    return f"idiolect:{{{number}}}:key:"


def generations_of(number: int) -> str:
    """What the keys of all generations of a shard begin with."""
    return f"idiolect:{{{number}}}:generation:"


def gone(user_id: str, digest: str) -> str:
    return f"idiolect:{{{shard(user_id)}}}:gone:{digest}"


def erasing(number: int, erasure_id: str, kind: Literal["given", "generations"]) -> str:
    return f"idiolect:{{{number}}}:erasing:{erasure_id}:{kind}"


def code(bundle_id: str, user_id: str) -> str:
    return f"idiolect:{{{shard(user_id)}}}:code:{bundle_id}:{user_id}"


def codes(bundle_id: str, user_id: str, bucket: int) -> str:
    return f"idiolect:{{{shard(user_id)}}}:codes:{bundle_id}:{bucket}"


def inferred(bundle_id: str, user_id: str) -> str:
    return f"idiolect:{{{shard(user_id)}}}:inferred:{bundle_id}:{user_id}"


def margins(bundle_id: str, number: int) -> str:
    return f"idiolect:{{{number}}}:margins:{bundle_id}"


def tries(bundle_id: str, pair: str) -> str:
    return f"idiolect:{{{shard(pair)}}}:tries:{bundle_id}:{pair}"


def loaded(bundle_id: str) -> str:
    return f"idiolect:loaded:{bundle_id}"


def scorers(bundle_id: str) -> str:
    """The consumer group of a bundle's scorers, on the vote streams."""
    return f"scorer:{bundle_id}"


def under_bundle(bundle_id: str) -> tuple[str, re.Pattern[bytes]]:
    """Keys of users, buckets and pairs under a bundle: a glob that finds them, and what of its finds are such."""
    ours = rb"idiolect:\{\d+\}:(code|codes|inferred|tries):%s:" % bundle_id.encode()
    return f"idiolect:*:{bundle_id}:*", re.compile(ours)
