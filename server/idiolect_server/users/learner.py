"""From a user's votes to the user's code: a pure function of (votes, bundle), kept in the store, rebuilt when stale.

A vote counts when the margins of its pair are known: from the bundle's question bank, or from the scorer, which asks
the model once for each pair (users/scorer.py). A repeated answer replaces the earlier one. Votes are summed in a fixed
order, so that codes do not depend on the order in which votes came, to the last bit; the order matters only
to decide which votes are outdated (idiolect/drift.py).
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from idiolect.bank import Question
from idiolect.bundle import Bundle
from idiolect.drift import outdated
from idiolect.errors import UserCodeError
from idiolect.inference import Prior, next_question
from idiolect.user_model import Array
from idiolect.votes import Belief, Floats, Votes
from idiolect_server import metrics
from idiolect_server.errors import UnknownQuestion
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.record import encode_code
from idiolect_server.store.store import Store
from idiolect_server.store.votes import Given
from idiolect_server.users.knowledge import Asked, Effect, Known, Learnt

LEAST_GAIN = 0.02
"""Nats that an answer must promise for its question to be asked: a fair coin that says nothing else is worth 0.69."""
MAX_VOTES = 512
"""The latest that count: what a user said many hundred votes ago is no longer needed."""
MAX_DAILY_VOTES = 64
"""Votes of one user in one day (UTC) beyond these do not count: a script cannot talk somebody into a new taste."""
MAX_INLINE_VOTES = 64
"""Of cluster users, which take half a millisecond. A thread has to wait for the interpreter, up to 5 ms at times."""
DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class _Looked:
    """A user's votes, the margins that are stored of their pairs, and what follows."""

    given: Given
    margins: Mapping[str, Floats]
    known: Known | None


class Learner:
    """Infers users under one bundle. A bundle without a bank infers nobody, and all its methods say so."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle, self._store = bundle, store
        self._table = CodeTable.of(bundle)

    @property
    def infers(self) -> bool:
        return self._bundle.bank is not None

    @property
    def why_not(self) -> str | None:
        """Why votes change nothing, in words; None when they count."""
        if self.infers:
            return None
        return "the bundle has no question bank: votes are kept, and count under a bundle trained with `bank`"

    def question(self, question_id: str) -> Question:
        """Raises UnknownQuestion for an id that is not in the bank."""
        bank = self._bundle.bank
        if bank is None or question_id not in bank.index:
            raise UnknownQuestion(f"question {question_id} is not in this bundle's bank")
        return bank.questions[bank.index[question_id]]

    def in_words(self, known: Known) -> dict[str, float] | None:
        """The weights of a cluster code by the names that the bundle gives its clusters, the heaviest first."""
        names = self._bundle.manifest.cluster_names
        if names is None:
            return None
        weights = sorted(zip(names, known.code.tolist(), strict=True), key=lambda item: -item[1])
        return {name: round(weight, 4) for name, weight in weights}

    async def refresh(self, user_id: str) -> None:
        """Store what the user's votes say now, unless a newer vote overtakes it."""
        await self._store_known(user_id, await self._look(user_id))

    async def learn(self, user_id: str, pair_id: str) -> Learnt:
        """`refresh` after a vote on the pair, and what the vote did."""
        looked = await self._look(user_id)
        await self._store_known(user_id, looked)
        state: Literal["stored", "generic"] = "generic" if self._trained(looked.given) is None else "stored"
        return Learnt(looked.known, "inferred" if looked.known else state, self._effect(pair_id, looked))

    async def _store_known(self, user_id: str, looked: _Looked) -> None:
        known, revision = looked.known, looked.given.revision
        if not revision or not self.infers:
            return
        record = b"" if known is None else encode_code(known.code, "inferred")
        await self._store.put_inferred(self._bundle.bundle_id, user_id, record, revision)
        if known is not None and known.outdated_votes:
            metrics.DRIFTED.inc()

    def _effect(self, pair_id: str, looked: _Looked) -> Effect:
        bank = self._bundle.bank
        if bank is None:
            return "no_bank"
        if looked.known is not None and pair_id in looked.known.pairs:
            return "counted"
        if pair_id in bank.index:
            return "set_aside"
        if pair_id not in looked.margins:
            return "to_be_scored"
        return "set_aside" if self._usable(looked.margins[pair_id]) else "unscorable"

    async def known(self, user_id: str) -> Known | None:
        """What the user's votes say now; None without votes that count."""
        return (await self._look(user_id)).known

    async def ask(self, user_id: str, skip: Collection[str] = ()) -> Asked:
        """The next best question for the user; none when no question is left that promises LEAST_GAIN.

        Questions in `skip`, which the user does not care about, are not asked: answers to them would be coins thrown.
        """
        bank = self._bundle.bank
        if bank is None:
            return Asked(None, 0.0, 0, "no_bank")
        looked = await self._look(user_id)
        prior, belief = self._belief(looked.given, looked.known)
        votes = looked.given.votes.values()
        answered, skipped = np.zeros((2, len(bank.questions)), bool)
        answered[[bank.index[vote.pair_id] for vote in votes if vote.pair_id in bank.index]] = True
        skipped[[bank.index[question_id] for question_id in skip if question_id in bank.index]] = True
        gains, n_answered = prior.gain(belief, bank.table, bank.likelihood), int(answered.sum())
        place = next_question(gains, answered | skipped, LEAST_GAIN)
        if place is not None:
            return Asked(bank.questions[place], float(gains[place]), n_answered, None)
        left = next_question(gains, answered, LEAST_GAIN)
        return Asked(None, 0.0, n_answered, "nothing_worth_asking" if left is None else "all_skipped")

    async def draw(self, user_id: str) -> Array | None:
        """A code at random from what is believed of the user (Thompson sampling); None without a bank."""
        bank = self._bundle.bank
        if bank is None:
            return None
        looked = await self._look(user_id)
        prior, belief = self._belief(looked.given, looked.known)
        drawn = prior.draw(belief, np.random.default_rng())
        return bank.code(self._bundle.user_model, drawn, self._trained(looked.given))

    async def _look(self, user_id: str) -> _Looked:
        """The user's votes, and what they say. In a thread when that takes longer than others should wait."""
        given = await self._store.votes.given(self._table, user_id)
        margins = await self._margins(given)
        usable = {pair: row for pair, row in margins.items() if self._usable(row)}
        if self._bundle.user_model.kind == "cluster" and len(given.votes) <= MAX_INLINE_VOTES:
            return _Looked(given, margins, self.know(given, usable))
        return _Looked(given, margins, await asyncio.to_thread(self.know, given, usable))

    def _belief(self, given: Given, known: Known | None) -> tuple[Prior, Belief]:
        """The user's prior and what is believed after the votes."""
        bank = self._bundle.bank
        assert bank is not None
        prior = bank.prior(self._bundle.user_model, self._trained(given))
        return prior, prior.infer(Votes.none(len(bank.mean)), bank.likelihood) if known is None else known.belief

    def know(self, given: Given, margins: Mapping[str, Floats]) -> Known | None:
        """The code that the votes lead to; None without a bank or without votes that count.

        `margins` [1 + C] are offset and slopes of the pairs that are not in the bank.
        """
        bank = self._bundle.bank
        if bank is None:
            return None
        pairs, votes = self._counted(given, margins)
        if not pairs:
            return None
        trained = self._trained(given)
        prior = bank.prior(self._bundle.user_model, trained)
        n_old = outdated(votes, prior, bank.likelihood)
        order = [place for place in sorted(range(len(pairs)), key=pairs.__getitem__) if place >= n_old]
        belief = prior.infer(Votes.of(votes.slopes[order], votes.offsets[order]), bank.likelihood)
        nothing = prior.infer(Votes.none(len(bank.mean)), bank.likelihood)
        code = bank.code(self._bundle.user_model, belief, trained)
        # A surprising vote may leave more open than nobody's votes do: that is no less than knowing nothing.
        uncertainty = min(1.0, float(belief.spread / nothing.spread))
        return Known(code, belief, len(order), n_old, uncertainty, frozenset(pairs[place] for place in order))

    def _counted(self, given: Given, margins: Mapping[str, Floats]) -> tuple[list[str], Votes]:
        """The pairs that count, in the order of their last vote, and those votes."""
        bank = self._bundle.bank
        assert bank is not None
        today: Counter[int] = Counter()
        last: dict[str, bool] = {}
        for stream_id, vote in sorted(given.votes.items(), key=lambda item: _when(item[0])):
            day = _when(stream_id)[0] // DAY_MS
            today[day] += 1
            if today[day] <= MAX_DAILY_VOTES and (vote.pair_id in bank.index or vote.pair_id in margins):
                last.pop(vote.pair_id, None)
                last[vote.pair_id] = vote.first
        pairs = list(last)[-MAX_VOTES:]
        rows = [self._row(pair, margins) for pair in pairs]
        signs = np.array([1.0 if last[pair] else -1.0 for pair in pairs])
        table = signs[:, None] * np.array(rows).reshape(len(pairs), 1 + len(bank.mean))
        return pairs, Votes.of(table[:, 1:], table[:, 0])

    def _row(self, pair: str, margins: Mapping[str, Floats]) -> Floats:
        bank = self._bundle.bank
        assert bank is not None
        if pair not in bank.index:
            return margins[pair]
        place = bank.index[pair]
        return np.concatenate([bank.offsets[place : place + 1], bank.slopes[place]])

    async def _margins(self, given: Given) -> dict[str, Floats]:
        """What is stored of the user's pairs that are not in the bank, as far as they have been scored."""
        bank = self._bundle.bank
        if bank is None:
            return {}
        pairs = sorted({vote.pair_id for vote in given.votes.values()} - bank.index.keys())
        return await self._store.margins.get(self._bundle.bundle_id, pairs) if pairs else {}

    def _usable(self, row: Floats) -> bool:
        """Whether a row is offset and slopes; that of a pair that cannot be scored is empty."""
        bank = self._bundle.bank
        assert bank is not None
        return row.shape == (1 + len(bank.mean),) and bool(np.isfinite(row).all())

    def _trained(self, given: Given) -> Array | None:
        """The user's code from training, when there is a good one."""
        if given.trained is None:
            return None
        try:
            return self._bundle.user_model.check(self._table.decode(given.trained))
        except UserCodeError:
            return None


def _when(stream_id: str) -> tuple[int, int]:
    """A stream id as numbers: milliseconds, then a counter within them."""
    milliseconds, _, count = stream_id.partition("-")
    return int(milliseconds), int(count or 0)
