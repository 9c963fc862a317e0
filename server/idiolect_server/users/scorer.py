"""Scores the pairs of organic votes in the background: margins under every code, once for each (pair, bundle).

The engine that writes replies computes them, at low priority and within their share of the time while replies are being
written (idiolect_server/admission.py). Margins are taken against the generic user: the reference model is not there
when the adapter is merged, and a user's code must not depend on how the bundle is served. So the generic user is
thought to be indifferent between the two replies, and what counts is where others differ (docs/new-users.md).

Votes come from a consumer group of their streams. A scorer that dies loses none (the next one gets them) and to score
a vote twice changes nothing, since the margins of a pair are kept as they were first stored.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from cachetools import LRUCache

from idiolect.bank import NO_REPLY, pair_id
from idiolect.bundle import Bundle
from idiolect.errors import LayoutError
from idiolect.learning import DAY_MS, MAX_DAILY_VOTES
from idiolect.votes import Floats
from idiolect_server import metrics
from idiolect_server.admission import Admission
from idiolect_server.engine.base import Adapter, Engine
from idiolect_server.errors import EngineDead, RequestError, StoreError
from idiolect_server.prompt import Placed, UserTokens
from idiolect_server.store.queue import ABANDONED_MS, Unscored
from idiolect_server.store.store import Store

log = logging.getLogger(__name__)

IDLE_S = 0.5
"""Between looks at the streams when there was nothing, while users change or changes cannot be heard."""
QUIET_S = 10.0
"""The same while nobody has changed: only votes that another scorer has abandoned can be there."""
TAKEN_VOTES = 16
"""Taken from a shard at a time."""
REMEMBERED_DAYS = 4096
"""Days of users whose votes are counted, the latest."""
MAX_TRIES = 3
"""Of a pair whose scoring has not ended, perhaps because it ends the engine: the next servers leave it alone."""
HOLD_S = ABANDONED_MS / 1000 / 5
"""Between signs of life for the votes that were taken."""
BACKLOG_S = 5.0
"""Between counts of the votes that wait."""


class Unscorable(Exception):
    """A pair has no margins that could be used."""


class Scorer:
    """Scores under one bundle, which must have a bank: its coordinates are those in which users are inferred."""

    def __init__(
        self, bundle: Bundle, store: Store, engine: Engine, adapter: Adapter | None, admission: Admission
    ) -> None:
        self._bundle, self._store, self._engine, self._adapter = bundle, store, engine, adapter
        self._admission = admission
        self._queue = store.queue(bundle.bundle_id)
        self._changed = asyncio.Event()
        self._scored: LRUCache[tuple[str, int], set[tuple[int, str]]] = LRUCache(REMEMBERED_DAYS)
        """The votes of a user's day (idiolect.learning.DAY_MS) that were scored, or are about to be."""

    async def run(self) -> None:
        """Until cancelled. Outages of the store are waited out; a vote that fails does not hold up others."""
        unlisten = self._store.changes.listen(lambda user_id, erased: self._changed.set())
        try:
            await self._attend_forever()
        finally:
            unlisten()

    async def _attend_forever(self) -> None:
        counted_s = 0.0
        while True:
            self._changed.clear()
            try:
                votes = await self._queue.take(TAKEN_VOTES)
                if time.monotonic() - counted_s > BACKLOG_S:
                    metrics.BACKLOG.set(await self._queue.backlog())
                    counted_s = time.monotonic()
                await self._attend_all(votes)
            except StoreError as error:
                log.warning("scoring waits: %s", error.message)
                await asyncio.sleep(IDLE_S)
                continue
            except EngineDead:
                return  # and the server with it
            if not votes:
                await self._rest()

    async def _rest(self) -> None:
        """Every vote changes its user, and every server hears of that."""
        await asyncio.sleep(IDLE_S)
        if self._store.changes.epoch is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), QUIET_S - IDLE_S)

    async def _attend_all(self, votes: Sequence[Unscored]) -> None:
        """Finish together what needs no score, and then one vote after another, of each user in turn.

        Of a user's day no more votes are scored than count: a flood costs the others as much as a busy day.
        """
        bank = self._bundle.bank
        assert bank is not None
        pairs = {vote.place: _pair(vote) for vote in votes}
        organic = {pair for pair in pairs.values() if pair is not None and pair not in bank.index}
        scored = await self._store.margins.get(self._bundle.bundle_id, sorted(organic))
        unscored = organic - scored.keys()
        left = self._in_turn([vote for vote in votes if pairs[vote.place] in unscored])
        kept = {vote.place for vote in left}
        settled = [vote for vote in votes if vote.place not in kept]
        voters = {vote.vote["user_id"] for vote in settled if vote.vote is not None and pairs[vote.place] in scored}
        await self._store.votes.touch(voters)
        await self._finish(settled)
        holding = asyncio.create_task(self._hold(left))
        try:
            while left:
                await self._attend_or_leave(left[0])
                left.pop(0)
        finally:
            holding.cancel()

    def _in_turn(self, votes: Sequence[Unscored]) -> list[Unscored]:
        """The first vote of each user, the oldest first, then the second of each, and so on; none that cannot count."""
        turns: Counter[str] = Counter()
        found = []
        for vote in sorted(votes, key=lambda vote: vote.given_ms):
            assert vote.vote is not None
            user_id = vote.vote["user_id"]
            day = self._scored.setdefault((user_id, vote.given_ms // DAY_MS), set())
            if vote.place in day or len(day) < MAX_DAILY_VOTES:
                day.add(vote.place)
                found.append((turns[user_id], vote))
                turns[user_id] += 1
        return [vote for _, vote in sorted(found, key=lambda turn: turn[0])]

    async def _hold(self, left: Sequence[Unscored]) -> None:
        """Keep what is left of these votes from other scorers for as long as this one lives."""
        while True:
            await asyncio.sleep(HOLD_S)
            with suppress(StoreError):
                await self._queue.hold(left)

    async def _attend_or_leave(self, vote: Unscored) -> None:
        """A vote that fails stays with this consumer, and is tried again when it counts as abandoned."""
        try:
            await self._attend(vote)
        except (StoreError, EngineDead):
            raise
        except Exception:
            log.exception("a vote cannot be scored; another try in %d s", ABANDONED_MS // 1000)

    async def _attend(self, vote: Unscored) -> None:
        """Score an organic vote's pair unless that was done, and have its user inferred anew."""
        bundle_id, content, pair = self._bundle.bundle_id, vote.vote, _pair(vote)
        assert content is not None
        assert pair is not None
        if not await self._store.margins.get(bundle_id, [pair]):
            sides = sorted((content["chosen"], content["rejected"]))
            try:
                if await self._store.margins.count_try(bundle_id, pair) > MAX_TRIES:
                    raise Unscorable(f"{MAX_TRIES} tries have not ended")
                # Without the profile: the margins are for everybody who is shown this pair.
                margins = await self.score(content["messages"], sides)
                if not np.isfinite(margins).all():
                    raise Unscorable("its margins are not finite")
            except (RequestError, LayoutError, Unscorable) as error:
                # Too long for the model, say: such a vote is kept, and says nothing of the user's code.
                log.warning("a pair cannot be scored, and says nothing of its voters: %s", error)
                margins = np.zeros(0)
            await self._store.margins.put(bundle_id, pair, margins)
        await self._store.votes.touch([content["user_id"]])
        await self._finish([vote])

    async def _finish(self, votes: Sequence[Unscored]) -> None:
        if votes:
            await self._queue.done(votes)
            metrics.LAG.set(max(0.0, time.time() - min(vote.given_ms for vote in votes) / 1000))

    async def score(self, chat: Sequence[Mapping[str, str]], sides: Sequence[str]) -> Floats:
        """Offset and slopes [1 + C] of the margin, in nats, of the first side over the second at z.

        Raises Unscorable when the sides are equal as training sees them, and as Engine.score_reply does.
        """
        bank, user_model = self._bundle.bank, self._bundle.user_model
        assert bank is not None
        one, other = sides
        layout = self._bundle.manifest.layout
        if NO_REPLY not in sides and await self._engine.conversations.are_equal(one, other, layout):
            raise Unscorable("its replies are equal after Unicode normalization (NFC), tokenizing or cutting")
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
        placed = await self._engine.conversations.place(chat, self._bundle.manifest.layout, user)
        one, other = [await self._score(placed, side, bank.length_normalized) for side in sides]
        return one - other

    async def _score(self, placed: Placed, reply: str, per_token: bool) -> float:
        if reply == NO_REPLY:
            return 0.0
        async with self._admission.score():
            logps = await self._engine.score_reply(placed, reply, self._bundle.manifest.layout, self._adapter)
        return float(np.mean(logps) if per_token else np.sum(logps))


def _pair(vote: Unscored) -> str | None:
    """The pair that a vote compares; None when it was taken back."""
    content = vote.vote
    return None if content is None else pair_id(content["messages"], content["chosen"], content["rejected"])
