"""What was read of users and is still true: for all releases, keyed by bundle and user.

What was read of a user serves until the user changes (idiolect_server/store/changes.py), so that most requests ask
nothing of Redis. While changes cannot be heard every request asks, and what was read last makes do when Redis does not
answer.
"""

import asyncio
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cachetools import LRUCache

from idiolect.user_model import Array
from idiolect_server.errors import StoreError
from idiolect_server.prompt import UserTokens
from idiolect_server.store.changes import Changes
from idiolect_server.users.knowledge import State

CACHE_BYTES = 64 << 20
"""Of users, and as much again of expanded user tokens."""
MAX_AGE_S = 60.0
"""A user who was read longer ago is read again, whatever was heard meanwhile."""
OVERHEAD_BYTES = 650
"""Of what is kept, beside its numbers: objects, key, two places in dictionaries (600 measured for a user)."""

Key = tuple[str, str]
"""Bundle id and user id."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a user's record said when it was read; `code` None is the generic one.

    `user_tokens` are the code's, for as long as they are kept.
    """

    code: Array | None
    user_tokens: "weakref.ref[UserTokens]"
    state: State
    votes: int
    profile: str | None
    epoch: int | None
    read_s: float

    @property
    def n_bytes(self) -> int:
        """In memory, with what the cache needs for it."""
        code = 0 if self.code is None else self.code.nbytes
        return OVERHEAD_BYTES + code + sys.getsizeof(self.profile)


_Outcome = Seen | StoreError | None
"""Of a reading; None: the request that read has left."""


class UserCache:
    """Users as they were read under each bundle, and the user tokens of their codes."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._bundles: set[str] = set()
        self._seen: LRUCache[Key, Seen] = LRUCache(CACHE_BYTES, getsizeof=lambda seen: seen.n_bytes)
        self._reading: dict[Key, asyncio.Future[_Outcome]] = {}
        self._tokens: LRUCache[tuple[str, bytes], UserTokens] = LRUCache(
            CACHE_BYTES, getsizeof=lambda user: OVERHEAD_BYTES + user.rows.nbytes
        )
        self.close = changes.listen(self._outdate)
        """No change is heard after it."""

    @property
    def epoch(self) -> int | None:
        """What is read now holds while this stays the same; None when changes may be missed."""
        return self._changes.epoch

    def add(self, bundle_id: str) -> None:
        self._bundles.add(bundle_id)

    def drop(self, bundle_id: str) -> None:
        """Everything of a bundle."""
        self._bundles.discard(bundle_id)
        for kept in self._kept():
            for key in [key for key in kept if key[0] == bundle_id]:
                del kept[key]

    def count(self, bundle_id: str) -> int:
        """Entries of a bundle, of every kind."""
        return sum(key[0] == bundle_id for kept in self._kept() for key in kept)

    def _kept(self) -> Sequence[MutableMapping[Any, Any]]:
        return self._seen, self._reading, self._tokens

    def fresh(self, key: Key) -> Seen | None:
        """What was read last, if it is still true."""
        seen = self._seen.get(key)
        if seen is None or not seen.epoch == self._changes.epoch is not None:
            return None
        return seen if time.monotonic() - seen.read_s < MAX_AGE_S else None

    def last(self, key: Key) -> Seen | None:
        """What was read last, which may be outdated."""
        return self._seen.get(key)

    async def read(self, key: Key, read: Callable[[], Awaitable[Seen]]) -> Seen:
        """Requests of one user share one reading; when the one that reads leaves, another one reads.

        It reads in its own task: with a task for the reading, it would wait for its turn on the event loop thrice more.
        Raises StoreError as `read` does.
        """
        reading = self._reading.get(key)
        outcome = await (self._lead(key, read) if reading is None else asyncio.shield(reading))
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome or await self.read(key, read)

    def tokens(self, bundle_id: str, digest: bytes, expand: Callable[[], UserTokens]) -> UserTokens:
        """The user tokens of the code with this digest."""
        tokens = self._tokens.get((bundle_id, digest))
        if tokens is None:
            tokens = expand()
            if bundle_id in self._bundles:
                self._tokens[bundle_id, digest] = tokens
        return tokens

    async def _lead(self, key: Key, read: Callable[[], Awaitable[Seen]]) -> Seen | StoreError:
        """Read for all who wait."""
        reading = self._reading[key] = asyncio.get_running_loop().create_future()
        outcome: _Outcome = None
        try:
            outcome = await read()
        except StoreError as error:
            outcome = error
        finally:
            reading.set_result(outcome)
            if self._reading.get(key) is reading:  # or the user has changed since it began
                del self._reading[key]
                if isinstance(outcome, Seen):
                    self._keep(key, outcome)
        return outcome

    def _keep(self, key: Key, seen: Seen) -> None:
        if seen.state == "degraded" or seen.n_bytes > CACHE_BYTES:
            self._seen.pop(key, None)
        else:
            self._seen[key] = seen

    def _outdate(self, user_id: str, erased: bool) -> None:
        """What is kept of a user only makes do from now on; of an erased one nothing is. Readings came too early."""
        for bundle_id in self._bundles:
            key = (bundle_id, user_id)
            self._reading.pop(key, None)
            seen = self._seen.pop(key, None)
            if seen is not None and not erased:
                self._seen[key] = replace(seen, epoch=None)
