"""From a user id to user tokens: look the code up, check it, expand it. Never fails: the worst case is generic."""

import hashlib
import logging
import time
import weakref
from dataclasses import dataclass, replace

from idiolect.bundle import Bundle
from idiolect.errors import UserCodeError
from idiolect.user_model import Array
from idiolect_server import metrics
from idiolect_server.errors import StoreError
from idiolect_server.prompt import UserTokens
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.record import decode_code
from idiolect_server.store.store import Store, StoredUser
from idiolect_server.users.cache import Seen, UserCache
from idiolect_server.users.knowledge import State
from idiolect_server.users.learner import Learner

log = logging.getLogger(__name__)

_FROM_CACHE, _FROM_STORE = metrics.LOOKUP.labels("cache"), metrics.LOOKUP.labels("store")


@dataclass(frozen=True)
class Personalization:
    """What a request is served with. `votes` is None when the store could not say."""

    user_tokens: UserTokens
    state: State
    bundle_id: str
    votes: int | None
    profile: str | None = None


class Personalizer:
    """Users of one bundle."""

    def __init__(self, bundle: Bundle, store: Store, learner: Learner, cache: UserCache) -> None:
        self._bundle = bundle
        self._store = store
        self._learner = learner
        self._cache = cache
        self._bundle_id = bundle.bundle_id
        self._table = CodeTable.of(bundle)
        self._generic = self._expand(bundle.user_model.generic_code)

    async def find(self, user_id: str | None) -> Personalization:
        """The personalization of a user; generic for None and for unknown users.

        When the store does not answer, what was read last makes do, and the state says so.
        """
        if user_id is None:
            return Personalization(self._generic, "generic", self._bundle_id, 0)
        began, key = time.perf_counter(), (self._bundle_id, user_id)
        seen = self._cache.fresh(key)
        if seen is not None:
            found = self._serve(seen)
            _FROM_CACHE.observe(time.perf_counter() - began)
            return found
        seen = self._cache.last(key)
        try:
            found = self._serve(await self._cache.read(key, lambda: self._read(user_id)))
        except StoreError:
            if seen is None:
                return Personalization(self._generic, "degraded", self._bundle_id, None)
            return replace(self._serve(seen), state="degraded", votes=None)
        _FROM_STORE.observe(time.perf_counter() - began)
        return found

    async def explore(self, user_id: str, who: Personalization) -> Personalization:
        """`who` with a code that the user may have just as well: a draw from what is believed of the user."""
        code = await self._learner.draw(user_id)
        return who if code is None else replace(who, user_tokens=self._expand(code))

    async def _read(self, user_id: str) -> Seen:
        epoch, read_s = self._cache.epoch, time.monotonic()
        user, current = await self._store.user(self._table, user_id), True
        if user.stale and self._learner.infers:
            user, current = await self._refreshed(user_id, user)
        code, state = self._decode(user)
        state, tokens = state if current else "degraded", weakref.ref(self._expand(code))
        return Seen(code, tokens, state, user.votes, user.profile, epoch, read_s)

    async def _refreshed(self, user_id: str, user: StoredUser) -> tuple[StoredUser, bool]:
        """The user inferred anew, or as read when that fails; and whether the store has given all that was asked."""
        try:
            await self._learner.refresh(user_id)
            return await self._store.user(self._table, user_id), True
        except StoreError:
            return user, False
        except Exception:
            log.exception("a user's votes cannot be made sense of; the last code stays in force")
            return user, True

    def _decode(self, user: StoredUser) -> tuple[Array | None, State]:
        try:
            if user.inferred is not None:
                code, origin = decode_code(user.inferred)
                state: State = "unexplained" if origin == "unexplained" else "inferred"
                return self._bundle.user_model.check(code), state
            if user.trained is not None:
                return self._bundle.user_model.check(self._table.decode(user.trained)), "stored"
        except UserCodeError as error:
            log.warning("stored code of a user is unusable, serving generic: %s", error.message)
            return None, "degraded"
        return None, "generic"

    def _serve(self, seen: Seen) -> Personalization:
        tokens = seen.user_tokens() or self._expand(seen.code)
        return Personalization(tokens, seen.state, self._bundle_id, seen.votes, seen.profile)

    def _expand(self, code: Array | None) -> UserTokens:
        if code is None:
            return self._generic
        return self._cache.tokens(
            self._bundle_id,
            hashlib.sha256(code.tobytes()).digest(),
            lambda: UserTokens(self._bundle.user_model.user_tokens(code), self._bundle_id),
        )
