"""The streams of votes: how a vote gets in, what of an entry is ours, and the export for training, page by page."""

import base64
import binascii
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from idiolect.text import MAX_USER_ID_CHARS
from idiolect_server.errors import RequestError
from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped
from idiolect_server.store.keyspace import FIRST_ODD_MS, N_SHARDS, OURS

_STREAM_ID = re.compile(rb"([0-9]{1,14})-([0-9]{1,20})")
_ERASURE = re.compile(r"([+?]) ([0-9]+-[0-9]+) (.+)", re.S)
PAGE_BYTES = 4 << 20
"""Of votes looked at for one page of an export."""
STEP_BYTES = 1 << 18
"""Of these, in one step of Redis."""
STEP_ENTRIES = 256
MAX_ENTRY_BYTES = 1 << 20
"""Of an entry of the stream; there was no MAX_VOTE_BYTES once, but a limit on bodies."""


class _StoredMessage(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@with_config(ConfigDict(strict=True, extra="ignore"))
class _StoredVote(TypedDict):
    """An entry of the stream, as `add` writes it."""

    user_id: Annotated[str, StringConstraints(min_length=1, max_length=MAX_USER_ID_CHARS)]
    messages: Annotated[list[_StoredMessage], Field(min_length=1)]
    chosen: Annotated[str, StringConstraints(min_length=1)]
    rejected: Annotated[str, StringConstraints(min_length=1)]
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

_EXPORT = (
    OURS
    + f"""
local last, n_bytes, found = ARGV[1], 0, {{}}
local left = kind(KEYS[1]) == 'stream' and tonumber(ARGV[2]) or 0
while left > 0 and n_bytes < {STEP_BYTES} do
  local entries = redis.call('XRANGE', KEYS[1], last, '({FIRST_ODD_MS}', 'COUNT', math.min(left, 16))
  for _, entry in ipairs(entries) do
    local vote = entry[2][1] == 'vote' and entry[2][2] or ''
    n_bytes = n_bytes + #vote
    found[#found + 1] = {{entry[1], #vote <= {MAX_ENTRY_BYTES} and vote or ''}}
    last, left = '(' .. entry[1], left - 1
    if n_bytes >= {STEP_BYTES} then
      break
    end
  end
  if #entries == 0 then
    break
  end
end
return {{found, n_bytes, kind(KEYS[2]) == 'hash' and redis.call('HGETALL', KEYS[2]) or {{}}}}
"""
)
"""Entries until they have STEP_BYTES; and whose are being erased (erasures.py), who said so before."""


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


async def export(connection: Connection, cursor: str | None, n_entries: int) -> tuple[list[dict[str, Any]], str]:
    """Votes after `cursor` whose users consented, as training reads them, and the cursor after these.

    Looks at `n_entries` votes at most, and at not much more than PAGE_BYTES of them; when the cursor comes back as
    it was, there are no more yet. Raises RequestError for a cursor that is not ours.
    """
    seen = _decode_cursor(cursor)
    votes: list[dict[str, Any]] = []
    n_left, bytes_left = n_entries, PAGE_BYTES
    for number in range(N_SHARDS):
        more = True
        while more and n_left > 0 and bytes_left > 0:
            after = f"({seen[number]}" if number in seen else "-"
            keys = [keyspace.of_shard("votes", number), keyspace.of_shard("erasures", number)]
            async with mapped():
                answer = await call(connection, _EXPORT, keys, after, min(n_left, STEP_ENTRIES))
            entries, n_bytes, erasures = answer
            more = n_bytes >= STEP_BYTES or len(entries) == min(n_left, STEP_ENTRIES)
            n_left, bytes_left = n_left - len(entries), bytes_left - n_bytes
            erased: dict[str, tuple[int, int]] = {}
            for erasure in filter(None, map(Erasure.parse, erasures[1::2])):
                erased[erasure.user_id] = max(erased.get(erasure.user_id, (0, 0)), order(erasure.last.encode()))
            for stream_id, content in entries:
                seen[number] = stream_id.decode()
                vote = parse_vote({b"vote": content})
                if vote is None or not vote.pop("consent", False):
                    continue
                if order(stream_id) > erased.get(vote["user_id"], (0, 0)):
                    milliseconds = order(stream_id)[0]
                    votes.append({**vote, "vote_id": f"{number}-{seen[number]}", "time": milliseconds / 1000})
    return votes, _encode_cursor(seen)


def to_parquet(votes: Sequence[dict[str, Any]]) -> bytes:
    """A file with one row a vote, and the same columns even without any."""
    import pyarrow as pa  # late: half a second that no other request needs
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("vote_id", pa.string()),
            ("time", pa.float64()),
            ("user_id", pa.string()),
            ("messages", pa.list_(message)),
            ("profile", pa.string()),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("generation_id", pa.string()),
            ("bundle_id", pa.string()),
        ]
    )
    rows = [{name: vote.get(name) for name in schema.names} for vote in votes]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file, compression="zstd")
    return file.getvalue()


def parse_vote(fields: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """A stream entry's vote; what we did not write is no vote."""
    try:
        vote: dict[str, Any] = _VOTE.validate_json(fields[b"vote"])
    except (ValidationError, KeyError):
        return None
    return vote


def is_place(stream_id: bytes) -> bool:
    """Whether this can be an id in the stream of votes."""
    found = _STREAM_ID.fullmatch(stream_id)
    return found is not None and int(found[2]) < 1 << 64


def order(stream_id: bytes) -> tuple[int, int]:
    """Of ids in the stream."""
    milliseconds, _, number = stream_id.partition(b"-")
    return int(milliseconds), int(number)


def _encode_cursor(seen: Mapping[int, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(seen, separators=(",", ":"), sort_keys=True).encode()).decode()


def _decode_cursor(cursor: str | None) -> dict[int, str]:
    try:
        seen = json.loads(base64.urlsafe_b64decode(cursor or "e30="))
        places = {int(number): str(stream_id) for number, stream_id in seen.items()}
    except (ValueError, AttributeError, RecursionError, binascii.Error):
        raise RequestError("cursor: not one of ours", hint="start without a cursor") from None
    for number, stream_id in places.items():
        if not (0 <= number < N_SHARDS and is_place(stream_id.encode())):
            raise RequestError("cursor: not one of ours", hint="start without a cursor")
    return places
