"""The users of whom the store has votes or a profile, without an index: Redis is walked from node to node.

A walk from the first page to the last gives every such user who was there all the time; one who came or went meanwhile
may be in it or not, and one may come twice while Redis resizes its table (SCAN's guarantee). A user counts once, by
the number of votes, or by the profile where there is none.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from redis.asyncio.cluster import RedisCluster

from idiolect.text import UserId
from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, send
from idiolect_server.store.keyspace import OURS
from idiolect_server.store.pages import cursor as cursors

MAX_STEPS = 64
"""Of a walk, for one page: most keys are none of these, and a page may come back with less than was asked for."""
_KEYS = "idiolect:*:[cp]*o*:*"
_OF_USER = re.compile(rb"idiolect:\{(\d+)\}:(count|profile):(.+)", re.S)
_HAS = OURS + "return {number(KEYS[1]), kind(KEYS[2]) == 'string' and 1 or 0}"
_user_id: TypeAdapter[str] = TypeAdapter(UserId)


@dataclass(frozen=True)
class Listed:
    """A user, and what the store has of the user."""

    user_id: str
    votes: int
    has_profile: bool


class UserPages:
    """Every method raises StoreError."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    async def page(self, cursor: str | None, n_users: int) -> tuple[list[Listed], str | None]:
        """About `n_users` users, in no order, and the cursor of the next page; None when there is none.

        A step of Redis cannot be cut, so a page may hold some more, and it may hold less, even nobody. Raises
        RequestError for a cursor that is not ours, or of a store that had other nodes.
        """
        async with mapped():
            await self._redis.initialize()
        nodes = sorted(_nodes(self._redis))
        # Names of nodes are nobody's business.
        known = zlib.crc32("\n".join(nodes).encode())
        number, place = _place(cursor, known, len(nodes))
        found: list[Listed] = []
        for _ in range(MAX_STEPS):
            place, keys = await self._step(nodes[number], place, n_users)
            found += await self._listed(keys)
            if not place:
                number += 1
            if number == len(nodes):
                return found, None
            if len(found) >= n_users:
                break
        return found, cursors.encode(number, str(place), known)

    async def _step(self, node: str, place: int, n_keys: int) -> tuple[int, Sequence[bytes]]:
        target = _nodes(self._redis).get(node, {})
        async with mapped():
            after, keys = await self._redis.execute_command(
                "SCAN", place, "MATCH", _KEYS, "COUNT", max(n_keys, 10), **target
            )
        return int(next(iter(after.values())) if isinstance(after, dict) else after), keys

    async def _listed(self, keys: Sequence[bytes]) -> list[Listed]:
        named = [(name, user_id) for key in keys for name, user_id in [_user_of(key)] if user_id is not None]
        if not named:
            return []
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for _, user_id in named:
                call(pipeline, _HAS, [keyspace.of_user("count", user_id), keyspace.of_user("profile", user_id)])
            answers = await send(pipeline)
        both = zip(named, answers, strict=True)
        return [
            Listed(user_id, votes, bool(profile))
            for (name, user_id), (votes, profile) in both
            if (votes if name == b"count" else profile and not votes)
        ]


def _nodes(connection: Connection) -> dict[str, dict[str, Any]]:
    """Of all that have keys of their own, by name: arguments of a command that is for it."""
    if not isinstance(connection, RedisCluster):
        return {"": {}}
    return {str(node.name): {"target_nodes": node} for node in connection.get_primaries()}


def _place(cursor: str | None, known: int, n_nodes: int) -> tuple[int, int]:
    """Which node is walked, and Redis's own cursor there."""
    if cursor is None:
        return 0, 0
    match cursors.decode(cursor):
        case [int(number), str(place), int(their)] if (
            their == known and 0 <= number < n_nodes and place.isdecimal() and place.isascii() and len(place) <= 20
        ):
            return number, min(int(place), (1 << 64) - 1)
    raise cursors.unknown()


def _user_of(key: bytes) -> tuple[bytes, str | None]:
    """Which kind of key of which user this is; None where it is no such, and not ours."""
    found = _OF_USER.fullmatch(key)
    if found is None:
        return b"", None
    try:
        user_id = _user_id.validate_python(found[3].decode())
    except (UnicodeDecodeError, ValidationError):
        return b"", None
    return found[2], user_id if found[1] == str(keyspace.shard(user_id)).encode() else None
