"""The streams of votes: how a vote gets in, what of an entry is ours, and up to which entry somebody is erased."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from idiolect.bank import NO_REPLY
from idiolect.learning import VoteKind
from idiolect.text import MAX_USER_ID_CHARS
from idiolect_server.store.keyspace import FIRST_ODD_MS

_ERASURE = re.compile(r"([+?]) ([0-9]+-[0-9]+) (.+)", re.S)
_STREAM_ID = re.compile(rb"([0-9]{1,14})-([0-9]{1,20})")


class _StoredMessage(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@with_config(ConfigDict(strict=True, extra="ignore"))
class _StoredVote(TypedDict):
    """An entry of the stream, as `add` writes it."""

    user_id: Annotated[str, StringConstraints(min_length=1, max_length=MAX_USER_ID_CHARS)]
    messages: Annotated[list[_StoredMessage], Field(min_length=1)]
    chosen: str
    rejected: str
    kind: NotRequired[VoteKind]
    profile: NotRequired[str | None]
    generation_id: NotRequired[str | None]
    bundle_id: NotRequired[str | None]
    consent: NotRequired[bool]


_VOTE: TypeAdapter[Any] = TypeAdapter(_StoredVote)

APPEND = (
    f"""
local FIRST_ODD_MS = '{FIRST_ODD_MS}'
"""
    + """
local function is_odd(id)
  return #string.match(id, '^%d+') >= #FIRST_ODD_MS
end
local function remove_odd_ends(stream)
  local odd
  repeat
    odd = redis.call('XRANGE', stream, FIRST_ODD_MS, '+', 'COUNT', 100)
    for _, entry in ipairs(odd) do
      redis.call('XDEL', stream, entry[1])
    end
  until #odd == 0
  local top = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local last = top and top[1] or '0-1'
  redis.call('XSETID', stream, last)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local name, delivered = group[2], group[8]
    if is_odd(delivered) then
      redis.call('XGROUP', 'SETID', stream, name, last)
    end
  end
end
local function append(stream, vote)
  local id = redis.pcall('XADD', stream, '*', 'vote', vote)
  if type(id) == 'string' and not is_odd(id) then
    return id
  end
  if type(id) == 'string' or string.find(id.err, 'exhausted', 1, true) then
    remove_odd_ends(stream)
  end
  return redis.call('XADD', stream, '*', 'vote', vote)
end
"""
)
"""For scripts: `append(stream, vote)` and its id. Entries at the end whose ids are not times would give every later
vote an id that is none, or let none in: they go first."""


def parse_vote(fields: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """A stream entry's vote; what we did not write is no vote."""
    try:
        vote: dict[str, Any] = _VOTE.validate_json(fields[b"vote"])
    except (ValidationError, KeyError):
        return None
    n_absent = (vote["chosen"], vote["rejected"]).count(NO_REPLY)
    return vote if n_absent == (vote.get("kind") == "thumb") else None


def is_place(stream_id: bytes) -> bool:
    """Whether this can be an id in the stream of votes."""
    found = _STREAM_ID.fullmatch(stream_id)
    return found is not None and int(found[2]) < 1 << 64


def order(stream_id: bytes) -> tuple[int, int]:
    """Of ids in the stream."""
    milliseconds, _, number = stream_id.partition(b"-")
    return int(milliseconds), int(number)


@dataclass(frozen=True)
class Erasure:
    """What the hash `erasures` says of one: whose votes, up to which. `listed`: all of them are in the hash `given`."""

    user_id: str
    last: str
    listed: bool

    @classmethod
    def parse(cls, value: bytes) -> Self | None:
        """None for anything else."""
        found = _ERASURE.fullmatch(value.decode("utf-8", "replace"))
        return cls(found[3], found[2], found[1] == "+") if found and is_place(found[2].encode()) else None
