"""Scores the pairs of organic votes in the background: margins under every code, once for each (pair, bundle).

The engine that writes replies computes them, at low priority and for at most SHARE of the time while replies are being
written. Margins are taken against the generic user: the reference model is not there when the adapter is merged, and a
user's code must not depend on how the bundle is served. So the generic user is thought to be indifferent between the
two replies, and what counts is where others differ (docs/new-users.md).

Votes come from a consumer group of their streams. A scorer that dies loses none (the next one gets them) and to score
a vote twice changes nothing, since the margins of a pair are kept as they were first stored.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np

from idiolect.bank import pair_id
from idiolect.bundle import Bundle
from idiolect.errors import LayoutError
from idiolect.votes import Floats
from server import metrics
from server.engine.engine import Engine
from server.engine.injection import Placed, UserTokens
from server.errors import EngineDead, RequestError, StoreUnavailable
from server.store.queue import ABANDONED_MS, Unscored
from server.store.store import Store

log = logging.getLogger(__name__)

IDLE_S = 0.5
"""Between looks at the streams when there was nothing."""
TAKEN_VOTES = 4
"""Taken from a shard at a time."""
SHARE = 0.03
"""Of the time, while replies are being written: what is slower for the scorer must not be slow for users."""


class Scorer:
    """Scores under one bundle, which must have a bank: its coordinates are those in which users are inferred."""

    def __init__(self, bundle: Bundle, store: Store, engine: Engine) -> None:
        self._bundle, self._store, self._engine = bundle, store, engine
        self._queue = store.queue(bundle.bundle_id)

    async def run(self) -> None:
        """Until cancelled. Outages of the store are waited out; a vote that fails does not hold up others."""
        while True:
            try:
                votes = await self._queue.take(TAKEN_VOTES)
                metrics.BACKLOG.set(await self._queue.backlog())
                votes.sort(key=lambda vote: vote.given_ms)
                for place, vote in enumerate(votes):
                    await self._attend_or_leave(vote)
                    await self._queue.hold(votes[place + 1 :])
            except StoreUnavailable as error:
                log.warning("scoring waits: %s", error.message)
                votes = []
            except EngineDead:
                return  # and the server with it
            if not votes:
                await asyncio.sleep(IDLE_S)

    async def _attend_or_leave(self, vote: Unscored) -> None:
        """A vote that fails stays with this consumer, and is tried again when it counts as abandoned."""
        try:
            await self._attend(vote)
        except (StoreUnavailable, EngineDead):
            raise
        except Exception:
            log.exception("a vote cannot be scored; another try in %d s", ABANDONED_MS // 1000)

    async def _attend(self, vote: Unscored) -> None:
        """Score the vote's pair unless that was done, and have its user inferred anew."""
        bank, bundle_id = self._bundle.bank, self._bundle.bundle_id
        assert bank is not None
        content = vote.vote
        if content is not None:
            pair = pair_id(content["messages"], content["chosen"], content["rejected"])
            if pair not in bank.index:
                if not await self._store.margins(bundle_id, [pair]):
                    sides = sorted((content["chosen"], content["rejected"]))
                    try:
                        # Without the profile: the margins are for everybody who is shown this pair.
                        margins = await self.score(content["messages"], sides)
                    except (RequestError, LayoutError) as error:
                        # Too long for the model, say: such a vote is kept, and says nothing of the user's code.
                        log.warning("a pair cannot be scored: %s", error.code)
                        margins = np.zeros(0)
                    if not np.isfinite(margins).all():
                        log.warning("a pair has margins that are not finite; it says nothing of its voters")
                        margins = np.zeros(0)
                    await self._store.put_margins(bundle_id, pair, margins)
                await self._store.votes.touch(content["user_id"])
        await self._queue.done(vote)
        metrics.LAG.set(max(0.0, time.time() - vote.given_ms / 1000))

    async def score(self, chat: Sequence[Mapping[str, str]], sides: Sequence[str]) -> Floats:
        """Offset and slopes [1 + C] of the margin, in nats, of the first side over the second at z.

        Raises as Engine.score_reply does.
        """
        bank, user_model = self._bundle.bank, self._bundle.user_model
        assert bank is not None
        n = len(bank.mean)
        cluster = user_model.kind == "cluster"
        # Clusters: the vertices. Others: one standard deviation of the trained users to each side of the generic one.
        scale = np.ones(n) if cluster else np.sqrt(np.diag(bank.covariance))
        ends = [scale[j] * np.eye(n)[j] for j in range(n)]
        found = np.array([await self._difference(chat, sides, z) for z in ends])
        metrics.SCORED.inc()
        if cluster:
            return np.concatenate([[0.0], found - found @ user_model.generic_code.astype(np.float64)])
        others = np.array([await self._difference(chat, sides, -z) for z in ends])
        return np.concatenate([[0.0], (found - others) / (2 * scale)])

    async def _difference(self, chat: Sequence[Mapping[str, str]], sides: Sequence[str], z: Floats) -> float:
        """How much more likely the first side is than the second for a user at z, in nats."""
        bank = self._bundle.bank
        assert bank is not None
        code = (bank.origin + z @ bank.directions).astype(np.float32)
        user = UserTokens(self._bundle.user_model.user_tokens(code), self._bundle.bundle_id)
        prompt = self._engine.encode_chat(chat)
        placed = Placed(prompt, self._bundle.manifest.layout.offset(prompt), user)
        logps = [await self._politely(placed, side) for side in sides]
        reduce = np.mean if bank.length_normalized else np.sum
        return float(reduce(logps[0]) - reduce(logps[1]))

    async def _politely(self, placed: Placed, reply: str) -> list[float]:
        """Engine.score_reply, and then a pause that keeps to SHARE if anybody waited for a reply meanwhile."""
        busy, began = self._engine.n_replies > 0, time.monotonic()
        logps = await self._engine.score_reply(placed, reply)
        if busy or self._engine.n_replies > 0:
            await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
        return logps
