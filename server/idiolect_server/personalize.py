"""From a user id to user tokens: look the code up, check it, expand it. Never fails: the worst case is generic.

What was read of a user is kept and serves until the user changes (idiolect_server/store/changes.py), so that most
requests ask nothing of Redis. While changes cannot be heard every request asks, and when the store does not answer what
was read last makes do, and the reply says so.
"""

import asyncio
import hashlib
import logging
import sys
import time
import weakref
from dataclasses import dataclass, replace
from typing import Literal

from cachetools import LRUCache

from idiolect.bundle import Bundle
from idiolect.errors import UserCodeError
from idiolect.user_model import Array
from idiolect_server import metrics
from idiolect_server.engine.injection import UserTokens
from idiolect_server.errors import StoreUnavailable
from idiolect_server.learner import Learner
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.record import decode_code
from idiolect_server.store.store import Store, StoredUser

log = logging.getLogger(__name__)

State = Literal["stored", "inferred", "generic", "degraded"]
CACHE_BYTES = 64 << 20
"""Of users, and as much again of expanded user tokens."""
_FROM_CACHE, _FROM_STORE = metrics.LOOKUP.labels("cache"), metrics.LOOKUP.labels("store")
MAX_AGE_S = 60.0
"""A user who was read longer ago is read again, whatever was heard meanwhile."""


@dataclass(frozen=True)
class Personalization:
    """What a request is served with. `votes` is None when the store could not say."""

    user_tokens: UserTokens
    state: State
    bundle_id: str
    votes: int | None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
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


_Outcome = _Seen | StoreUnavailable | None
"""Of a reading; None: the request that read has left."""
OVERHEAD_BYTES = 650
"""Of what is kept, beside its numbers: objects, key, two places in dictionaries (600 measured for a user)."""


class Personalizer:
    """Users of one bundle."""

    def __init__(self, bundle: Bundle, store: Store, learner: Learner) -> None:
        self._bundle = bundle
        self._store = store
        self._learner = learner
        self._table = CodeTable.of(bundle)
        self._seen: LRUCache[str, _Seen] = LRUCache(CACHE_BYTES, getsizeof=lambda seen: seen.n_bytes)
        self._reading: dict[str, asyncio.Future[_Outcome]] = {}
        self._tokens: LRUCache[bytes, UserTokens] = LRUCache(
            CACHE_BYTES, getsizeof=lambda user: OVERHEAD_BYTES + user.rows.nbytes
        )
        self._generic = self._expand(bundle.user_model.generic_code)
        store.changes.listen(self._outdate)

    async def find(self, user_id: str | None) -> Personalization:
        """The personalization of a user; generic for None and for unknown users."""
        if user_id is None:
            return Personalization(self._generic, "generic", self._bundle.bundle_id, 0)
        began = time.perf_counter()
        seen = self._seen.get(user_id)
        if seen is not None and self._holds(seen):
            found = self._serve(seen)
            _FROM_CACHE.observe(time.perf_counter() - began)
            return found
        try:
            found = self._serve(await self._read_once(user_id))
        except StoreUnavailable:
            if seen is None:
                return Personalization(self._generic, "degraded", self._bundle.bundle_id, None)
            return replace(self._serve(seen), state="degraded", votes=None)
        _FROM_STORE.observe(time.perf_counter() - began)
        return found

    async def explore(self, user_id: str, who: Personalization) -> Personalization:
        """`who` with a code that the user may have just as well: a draw from what is believed of the user."""
        code = await self._learner.draw(user_id)
        return who if code is None else replace(who, user_tokens=self._expand(code))

    def _outdate(self, user_id: str, erased: bool) -> None:
        """What is kept of a user only makes do from now on; of an erased one nothing is. Readings came too early."""
        self._reading.pop(user_id, None)
        seen = self._seen.pop(user_id, None)
        if seen is not None and not erased:
            self._seen[user_id] = replace(seen, epoch=None)

    def _holds(self, seen: _Seen) -> bool:
        return seen.epoch == self._store.changes.epoch is not None and time.monotonic() - seen.read_s < MAX_AGE_S

    async def _read_once(self, user_id: str) -> _Seen:
        """Requests of one user share one reading; when the one that reads leaves, another one reads.

        It reads in its own task: with a task for the reading, it would wait for its turn on the event loop thrice more.
        """
        reading = self._reading.get(user_id)
        outcome = await (self._lead(user_id) if reading is None else asyncio.shield(reading))
        if isinstance(outcome, StoreUnavailable):
            raise outcome
        return outcome or await self._read_once(user_id)

    async def _lead(self, user_id: str) -> _Seen | StoreUnavailable:
        """Read for all who wait."""
        reading = self._reading[user_id] = asyncio.get_running_loop().create_future()
        outcome: _Outcome = None
        try:
            outcome = await self._read(user_id)
        except StoreUnavailable as error:
            outcome = error
        finally:
            reading.set_result(outcome)
            if self._reading.get(user_id) is reading:  # or the user has changed since it began
                del self._reading[user_id]
                if isinstance(outcome, _Seen):
                    self._keep(user_id, outcome)
        return outcome

    def _keep(self, user_id: str, seen: _Seen) -> None:
        if seen.state == "degraded" or seen.n_bytes > CACHE_BYTES:
            self._seen.pop(user_id, None)
        else:
            self._seen[user_id] = seen

    async def _read(self, user_id: str) -> _Seen:
        epoch, read_s = self._store.changes.epoch, time.monotonic()
        user, current = await self._store.user(self._table, user_id), True
        if user.stale and self._learner.infers:
            user, current = await self._refreshed(user_id, user)
        code, state = self._decode(user)
        state, tokens = state if current else "degraded", weakref.ref(self._expand(code))
        return _Seen(code, tokens, state, user.votes, user.profile, epoch, read_s)

    async def _refreshed(self, user_id: str, user: StoredUser) -> tuple[StoredUser, bool]:
        """The user inferred anew, or as read when that fails; and whether the store has given all that was asked."""
        try:
            await self._learner.refresh(user_id)
            return await self._store.user(self._table, user_id), True
        except StoreUnavailable:
            return user, False
        except Exception:
            log.exception("a user's votes cannot be made sense of; the last code stays in force")
            return user, True

    def _decode(self, user: StoredUser) -> tuple[Array | None, State]:
        try:
            if user.inferred is not None:
                return self._bundle.user_model.check(decode_code(user.inferred)[0]), "inferred"
            if user.trained is not None:
                return self._bundle.user_model.check(self._table.decode(user.trained)), "stored"
        except UserCodeError as error:
            log.warning("stored code of a user is unusable, serving generic: %s", error.message)
            return None, "degraded"
        return None, "generic"

    def _serve(self, seen: _Seen) -> Personalization:
        tokens = seen.user_tokens() or self._expand(seen.code)
        return Personalization(tokens, seen.state, self._bundle.bundle_id, seen.votes, seen.profile)

    def _expand(self, code: Array | None) -> UserTokens:
        if code is None:
            return self._generic
        key = hashlib.sha256(code.tobytes()).digest()
        tokens = self._tokens.get(key)
        if tokens is None:
            tokens = UserTokens(self._bundle.user_model.user_tokens(code), self._bundle.bundle_id)
            self._tokens[key] = tokens
        return tokens
