"""The votes that count, for training: page by page, each page as it is when it is asked for."""

import asyncio
import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from idiolect.learning import counting
from idiolect_server.errors import RequestError
from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, send
from idiolect_server.store.keyspace import FIRST_ODD_MS, N_SHARDS, OURS
from idiolect_server.store.stream import is_place, parse_vote
from idiolect_server.store.votes import MAX_USER_VOTES, in_order, latest

USERS_AT_ONCE = 16
"""Whose votes are read together: each may have given thousands."""

PAGE_BYTES = 4 << 20
"""Of votes looked at for one page of an export."""
STEP_BYTES = 1 << 18
"""Of these, in one step of Redis."""
STEP_ENTRIES = 256
MAX_ENTRY_BYTES = 1 << 20
"""Of an entry of the stream; there was no MAX_VOTE_BYTES once, but a limit on bodies."""

_LISTED = (
    OURS
    + """
local n_votes = kind(KEYS[1]) == 'hash' and redis.call('HLEN', KEYS[1]) or 0
return {n_votes, n_votes > 0 and n_votes <= tonumber(ARGV[1]) and redis.call('HGETALL', KEYS[1]) or {}}
"""
)

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
return {{found, n_bytes}}
"""
)
"""Entries until they have STEP_BYTES."""


class Export:
    """Every method raises StoreError."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    async def page(self, cursor: str | None, n_entries: int) -> tuple[list[dict[str, Any]], str]:
        """Votes after `cursor` that count and whose users consented, as training reads them; the cursor after these.

        Looks at `n_entries` votes at most, and at not much more than PAGE_BYTES of them; when the cursor comes back as
        it was, there are no more yet. What an earlier call gave may count no more by now; calls from the first to the
        last vote, while nobody votes, give all that
        counts (idiolect.learning.counting), once.
        Raises RequestError for a cursor that is not ours.
        """
        seen = _decode_cursor(cursor)
        votes: list[dict[str, Any]] = []
        n_left, bytes_left = n_entries, PAGE_BYTES
        for number in range(N_SHARDS):
            more = True
            while more and n_left > 0 and bytes_left > 0:
                after, n_asked = f"({seen[number]}" if number in seen else "-", min(n_left, STEP_ENTRIES)
                async with mapped():
                    entries, n_bytes = await call(
                        self._redis, _EXPORT, [keyspace.of_shard("votes", number)], after, n_asked
                    )
                more = n_bytes >= STEP_BYTES or len(entries) == n_asked
                n_left, bytes_left = n_left - len(entries), bytes_left - n_bytes
                consented: list[tuple[str, dict[str, Any]]] = []
                for stream_id, content in entries:
                    seen[number] = stream_id.decode()
                    vote = parse_vote({b"vote": content})
                    if vote is not None and vote.pop("consent", False):
                        consented.append((seen[number], vote))
                counted = await self._counted([vote["user_id"] for _, vote in consented])
                for place, vote in consented:
                    if place in counted[vote["user_id"]]:
                        milliseconds = int(place.partition("-")[0])
                        votes.append({**vote, "vote_id": f"{number}-{place}", "time": milliseconds / 1000})
        return votes, _encode_cursor(seen)

    async def _counted(self, user_ids: Sequence[str]) -> dict[str, set[str]]:
        """The stream ids of each user's votes that count."""
        found: dict[str, set[str]] = {}
        left = sorted(set(user_ids))
        while left:
            chunk, left = left[:USERS_AT_ONCE], left[USERS_AT_ONCE:]
            async with mapped():
                pipeline = self._redis.pipeline(transaction=False)
                for user_id in chunk:
                    call(pipeline, _LISTED, [keyspace.of_user("given", user_id)], MAX_USER_VOTES)
                answers = await send(pipeline)
            given = []
            for user_id, (n_votes, listed) in zip(chunk, answers, strict=True):
                votes = dict(zip(listed[::2], listed[1::2], strict=True))
                too_many = n_votes > MAX_USER_VOTES
                given.append(await latest(self._redis, keyspace.of_user("given", user_id)) if too_many else votes)
            # In a thread, since a user with very many votes would keep the event loop from everybody else.
            counted = await asyncio.to_thread(lambda given: [_that_count(votes) for votes in given], given)
            found |= zip(chunk, counted, strict=True)
        return found


def _that_count(votes: Mapping[bytes, bytes]) -> set[str]:
    return {vote.vote_id for vote in counting(in_order(votes))}


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
            ("kind", pa.string()),
            ("generation_id", pa.string()),
            ("bundle_id", pa.string()),
        ]
    )
    rows = [{name: vote.get(name) for name in schema.names} for vote in votes]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file, compression="zstd")
    return file.getvalue()


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
