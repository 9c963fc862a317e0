"""The votes that count, for training: page by page, each page as it is when it is asked for."""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from idiolect.learning import counting
from idiolect_server.errors import RequestError
from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, send
from idiolect_server.store.keyspace import N_SHARDS
from idiolect_server.store.votes import STREAM_ID, in_order, parse_vote

USERS_AT_ONCE = 16
"""Whose votes are read together: each may have given thousands."""

_LISTED = """
local given = redis.pcall('HGETALL', KEYS[1])
return given.err and {} or given
"""
"""A key of another type is nothing that we wrote."""


class Export:
    """Every method raises StoreUnavailable when Redis does not answer in time."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    async def page(self, cursor: str | None, n_entries: int) -> tuple[list[dict[str, Any]], str]:
        """Votes after `cursor` that count and whose users consented, as training reads them; the cursor after these.

        Looks at `n_entries` votes at most; when the cursor comes back as it was, there are no more yet. What an earlier
        call gave may count no more by now; calls from the first to the last vote, while nobody votes, give all that
        counts (idiolect.learning.counting), once.
        Raises RequestError for a cursor that is not ours.
        """
        seen = _decode_cursor(cursor)
        votes: list[dict[str, Any]] = []
        left = n_entries
        for number in range(N_SHARDS):
            if left == 0:
                break
            after = f"({seen[number]}" if number in seen else "-"
            async with mapped():
                entries = await self._redis.xrange(keyspace.of_shard("votes", number), min=after, count=left)
            left -= len(entries)
            consented: list[tuple[str, dict[str, Any]]] = []
            for stream_id, fields in entries:
                seen[number] = stream_id.decode()
                vote = parse_vote(fields)
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
                    call(pipeline, _LISTED, [keyspace.of_user("given", user_id)])
                answers = await send(pipeline)
            # In a thread, since a user with very many votes would keep the event loop from everybody else.
            counted = await asyncio.to_thread(lambda answers: [_that_count(listed) for listed in answers], answers)
            found |= zip(chunk, counted, strict=True)
        return found


def _that_count(listed: Sequence[bytes]) -> set[str]:
    votes = in_order(dict(zip(listed[::2], listed[1::2], strict=True)))
    return {vote.vote_id for vote in counting(votes)}


def _encode_cursor(seen: Mapping[int, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(seen, separators=(",", ":"), sort_keys=True).encode()).decode()


def _decode_cursor(cursor: str | None) -> dict[int, str]:
    try:
        seen = json.loads(base64.urlsafe_b64decode(cursor or "e30="))
        places = {int(number): str(stream_id) for number, stream_id in seen.items()}
    except (ValueError, AttributeError, RecursionError, binascii.Error):
        raise RequestError("cursor: not one of ours", hint="start without a cursor") from None
    for number, stream_id in places.items():
        if not (0 <= number < N_SHARDS and re.fullmatch(STREAM_ID, stream_id)):
            raise RequestError("cursor: not one of ours", hint="start without a cursor")
    return places
