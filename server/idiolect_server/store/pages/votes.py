"""What a user's votes say, page by page: a hash names them, and the stream has them whole."""

from collections.abc import Sequence
from typing import Any

from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, send
from idiolect_server.store.keyspace import OURS
from idiolect_server.store.pages import cursor as cursors
from idiolect_server.store.stream import is_place, order, parse_vote

AT_ONCE = 16
"""Votes that are read in one step, of at most 32 kB each."""
_ENTRY = (
    OURS
    + """
return kind(KEYS[1]) == 'stream' and redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) or {}
"""
)


class VotePages:
    """Every method raises StoreError."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    async def whole(self, user_id: str, stream_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The user's votes of these ids, by id; those that are gone meanwhile, or are no votes, are left out."""
        stream = keyspace.of_shard("votes", keyspace.shard(user_id))
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(stream_ids), AT_ONCE):
            chunk = stream_ids[start : start + AT_ONCE]
            async with mapped():
                pipeline = self._redis.pipeline(transaction=False)
                for stream_id in chunk:
                    call(pipeline, _ENTRY, [stream], stream_id)
                answers = await send(pipeline)
            for stream_id, entries in zip(chunk, answers, strict=True):
                for _, (name, content, *_) in entries:
                    vote = parse_vote({name: content})
                    if vote is not None and vote["user_id"] == user_id:
                        found[stream_id] = vote
        return found


def page(stream_ids: Sequence[str], cursor: str | None, n_votes: int) -> tuple[Sequence[str], str | None]:
    """Of ids from the oldest to the newest, the newest before the cursor, the newest first; and the next cursor.

    Raises RequestError for a cursor that is not ours.
    """
    before = None if cursor is None else _place(cursor)
    left = [one for one in stream_ids if before is None or order(one.encode()) < before]
    found = left[: -n_votes - 1 : -1]
    return found, cursors.encode(found[-1]) if len(left) > n_votes else None


def vote_id(user_id: str, stream_id: str) -> str:
    """As a vote is named outside the store."""
    return f"{keyspace.shard(user_id)}-{stream_id}"


def _place(cursor: str) -> tuple[int, int]:
    match cursors.decode(cursor):
        case [str(stream_id)] if stream_id.isascii() and is_place(stream_id.encode()):
            return order(stream_id.encode())
    raise cursors.unknown()
