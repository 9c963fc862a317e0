"""From a user's votes to the user's code: a pure function of (votes, bundle), kept in the store, rebuilt when stale.

Only votes on pairs of the bundle's question bank count so far: their margins are known without asking the model. A
repeated answer to one question replaces the earlier one. Votes are put in a fixed order before they are summed, so
that codes do not depend on the order in which votes came, to the last bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from idiolect.bank import Question
from idiolect.bundle import Bundle
from idiolect.errors import UserCodeError
from idiolect.inference import Belief, Votes, next_question
from idiolect.user_model import Array
from server.errors import UnknownQuestion
from server.store.record import decode_code, encode_code
from server.store.store import Given, GivenVote, Store

LEAST_GAIN = 0.02
"""Nats that an answer must promise for its question to be asked: a fair coin that says nothing else is worth 0.69."""


@dataclass(frozen=True)
class Known:
    """What is known of one user from the votes that count."""

    code: Array
    belief: Belief
    effective_votes: int
    uncertainty: float
    """1 when nothing is known beyond the population, falling towards 0."""


class Learner:
    """Infers users under one bundle. A bundle without a bank infers nobody, and all its methods say so."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle, self._store = bundle, store

    @property
    def infers(self) -> bool:
        return self._bundle.bank is not None

    def question(self, question_id: str) -> Question:
        """Raises UnknownQuestion for an id that is not in the bank."""
        bank = self._bundle.bank
        if bank is None or question_id not in bank.index:
            raise UnknownQuestion(f"question {question_id} is not in this bundle's bank")
        return bank.questions[bank.index[question_id]]

    async def refresh(self, user_id: str) -> tuple[Known | None, Given]:
        """What the user's votes say now, stored unless a newer vote overtakes it. None without votes that count."""
        given = await self._store.given(self._bundle.bundle_id, user_id)
        known = self.know(given)
        record = b"" if known is None else encode_code(known.code, "inferred")
        await self._store.put_inferred(self._bundle.bundle_id, user_id, record, given.revision)
        return known, given

    async def ask(self, user_id: str) -> tuple[Question | None, float, int]:
        """The next best question for the user, its expected gain in nats, and how many were answered.

        None when no question is left that promises LEAST_GAIN.
        """
        bank = self._bundle.bank
        if bank is None:
            return None, 0.0, 0
        given = await self._store.given(self._bundle.bundle_id, user_id)
        prior = bank.prior(self._bundle.user_model, self._trained(given))
        belief = prior.infer(self._votes(given.votes), bank.likelihood)
        asked = np.zeros(len(bank.questions), bool)
        asked[[bank.index[vote.pair_id] for vote in given.votes.values() if vote.pair_id in bank.index]] = True
        gains = prior.gain(belief, bank.table, bank.likelihood)
        place = next_question(gains, asked, LEAST_GAIN)
        if place is None:
            return None, 0.0, int(asked.sum())
        return bank.questions[place], float(gains[place]), int(asked.sum())

    def know(self, given: Given) -> Known | None:
        """The code that the votes lead to; None without a bank or without votes that count."""
        bank = self._bundle.bank
        votes = self._votes(given.votes)
        if bank is None or not len(votes.offsets):
            return None
        trained = self._trained(given)
        prior = bank.prior(self._bundle.user_model, trained)
        nothing = prior.infer(Votes.none(len(bank.mean)), bank.likelihood)
        belief = prior.infer(votes, bank.likelihood)
        code = bank.code(self._bundle.user_model, belief, trained)
        return Known(code, belief, len(votes.offsets), float(belief.spread / nothing.spread))

    def _votes(self, given: Mapping[str, GivenVote]) -> Votes:
        bank = self._bundle.bank
        if bank is None:
            return Votes.none(1)
        last: dict[str, bool] = {}
        for _, vote in sorted(given.items(), key=lambda item: _when(item[0])):
            if vote.pair_id in bank.index:
                last[vote.pair_id] = vote.first
        places = np.array([bank.index[pair] for pair in sorted(last)], np.int64)
        signs = np.array([1.0 if last[pair] else -1.0 for pair in sorted(last)])
        return Votes.of(signs[:, None] * bank.slopes[places], signs * bank.offsets[places])

    def _trained(self, given: Given) -> Array | None:
        """The user's code from training, when there is a good one."""
        if given.trained is None:
            return None
        try:
            return self._bundle.user_model.check(decode_code(given.trained)[0])
        except UserCodeError:
            return None


def _when(vote_id: str) -> tuple[int, int]:
    """A stream id as numbers: milliseconds, then a counter within them."""
    milliseconds, _, count = vote_id.partition("-")
    return int(milliseconds), int(count or 0)
