"""From a user id to user tokens: look the code up, check it, expand it. Never fails: the worst case is generic."""

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import Literal

from cachetools import LRUCache

from idiolect.bundle import Bundle
from idiolect.errors import UserCodeError
from idiolect.user_model import Array
from server.engine.injection import UserTokens
from server.errors import StoreUnavailable
from server.learner import Learner
from server.store.record import decode_code
from server.store.store import Store, StoredUser

log = logging.getLogger(__name__)

State = Literal["stored", "inferred", "generic", "degraded"]
CACHE_BYTES = 64 << 20


@dataclass(frozen=True)
class Personalization:
    """What a request is served with. `votes` and `profile` are None also when the store could not say."""

    user_tokens: UserTokens
    state: State
    bundle_id: str
    votes: int | None
    profile: str | None = None


class Personalizer:
    """Users of one bundle.

    The store is asked for every request, so that a new code is felt at once; what it said last is kept for the time
    when it does not answer. A degraded reply says so, whether it used a kept code or the generic one.
    """

    def __init__(self, bundle: Bundle, store: Store, learner: Learner) -> None:
        self._bundle = bundle
        self._store = store
        self._learner = learner
        self._last_codes: LRUCache[str, Array] = LRUCache(CACHE_BYTES, getsizeof=lambda code: code.nbytes)
        self._tokens: LRUCache[bytes, UserTokens] = LRUCache(CACHE_BYTES, getsizeof=lambda user: user.rows.nbytes)
        self._generic = self._expand(bundle.user_model.generic_code)

    async def find(self, user_id: str | None) -> Personalization:
        """The personalization of a user; generic for None and for unknown users."""
        bundle_id = self._bundle.bundle_id
        if user_id is None:
            return Personalization(self._generic, "generic", bundle_id, 0)
        try:
            user = await self._store.user(bundle_id, user_id)
            if user.stale and self._learner.infers:
                user = await self._refreshed(user_id, user)
        except StoreUnavailable:
            code = self._last_codes.get(user_id)
            tokens = self._generic if code is None else self._expand(code)
            return Personalization(tokens, "degraded", bundle_id, None)
        if user.record is None:
            self._last_codes.pop(user_id, None)
            return Personalization(self._generic, "generic", bundle_id, user.votes, user.profile)
        try:
            code, origin = decode_code(user.record)
            tokens = self._expand(code)
        except UserCodeError as error:
            log.warning("stored code of a user is unusable, serving generic: %s", error.message)
            return Personalization(self._generic, "degraded", bundle_id, user.votes, user.profile)
        self._last_codes[user_id] = code
        state: State = "stored" if origin == "trained" else "inferred"
        return Personalization(tokens, state, bundle_id, user.votes, user.profile)

    async def _refreshed(self, user_id: str, user: StoredUser) -> StoredUser:
        try:
            await self._learner.refresh(user_id)
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("a user's votes cannot be made sense of; the last code stays in force")
            return user
        return await self._store.user(self._bundle.bundle_id, user_id)

    async def explore(self, user_id: str, who: Personalization) -> Personalization:
        """`who` with a code that the user may have just as well: a draw from what is believed of the user."""
        code = await self._learner.draw(user_id)
        return who if code is None else replace(who, user_tokens=self._expand(code))

    def forget(self, user_id: str) -> None:
        """Nothing of this user is kept here any more."""
        self._last_codes.pop(user_id, None)

    def _expand(self, code: Array) -> UserTokens:
        key = hashlib.sha256(code.tobytes()).digest()
        tokens = self._tokens.get(key)
        if tokens is None:
            tokens = UserTokens(self._bundle.user_model.user_tokens(code), self._bundle.bundle_id)
            self._tokens[key] = tokens
        return tokens
