"""What the store has of a user's votes, made sense of (idiolect/learning.py) and kept in the store.

A vote counts when the margins of its pair are known: from the bundle's question bank, or from the scorer, which asks
the model once for each pair (users/scorer.py).
"""

import asyncio
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from idiolect.bank import Bank, Question
from idiolect.bundle import Bundle
from idiolect.errors import UserCodeError
from idiolect.inference.priors import Prior
from idiolect.inference.voter import Impression
from idiolect.learning import Asked, GivenVote, Known, ask, believed, counting, know
from idiolect.user_model import Array
from idiolect.votes import Floats
from idiolect_server import metrics
from idiolect_server.errors import UnknownQuestion
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.record import encode_code
from idiolect_server.store.store import Store
from idiolect_server.store.votes import Given
from idiolect_server.users.knowledge import Effect, Learnt
from idiolect_server.users.together import Together

MAX_INLINE_VOTES = 64
"""Of cluster users, which take half a millisecond. A thread has to wait for the interpreter, up to 5 ms at times."""


@dataclass(frozen=True)
class _Looked:
    """A user's votes, those that the user's code was trained on, the margins that are stored, and what follows."""

    given: Given
    trained_on: frozenset[GivenVote]
    margins: Mapping[str, Floats]
    known: Known | None


class Learner:
    """Infers users under one bundle. A bundle without a bank infers nobody, and all its methods say so."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle, self._store = bundle, store
        self._table = CodeTable.of(bundle)
        self._together = Together[_Looked]()

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
        await self._refreshed(user_id)

    async def learn(self, user_id: str, pair_id: str) -> Learnt:
        """`refresh` after a vote on the pair, and what the vote did."""
        looked = await self._refreshed(user_id)
        known = looked.known
        before: Literal["stored", "generic"] = "generic" if self._trained(looked.given) is None else "stored"
        state = before if known is None else "inferred" if known.explained else "unexplained"
        said = next((vote for vote in reversed(looked.given.votes) if vote.pair_id == pair_id), None)
        effect = self._effect(said, pair_id, looked, counting(looked.given.votes))
        return Learnt(known, state, effect)

    async def effects(self, user_id: str) -> list[tuple[GivenVote, Effect]]:
        """All votes of a user, the oldest first, and what each of them does now."""
        looked = await self._look(user_id)
        counted = frozenset(counting(looked.given.votes))
        return [(vote, self._effect(vote, vote.pair_id, looked, counted)) for vote in looked.given.votes]

    async def _refreshed(self, user_id: str) -> _Looked:
        async def refresh() -> _Looked:
            looked = await self._look(user_id)
            await self._store_known(user_id, looked)
            return looked

        return await self._together.do(user_id, refresh)

    async def _store_known(self, user_id: str, looked: _Looked) -> None:
        known, revision = looked.known, looked.given.revision
        if not revision or not self.infers:
            return
        record = b"" if known is None else encode_code(known.code, "inferred" if known.explained else "unexplained")
        await self._store.put_inferred(self._bundle.bundle_id, user_id, record, revision)
        if known is not None and known.outdated_votes:
            metrics.DRIFTED.inc()
        if known is not None and not known.explained:
            metrics.UNEXPLAINED.inc()

    def _effect(self, said: GivenVote | None, pair_id: str, looked: _Looked, counted: Collection[GivenVote]) -> Effect:
        """What a vote on the pair does, `counted` being those of its user that count at all."""
        bank = self._bundle.bank
        if bank is None:
            return "no_bank"
        if said in looked.trained_on:
            return "trained"
        if said not in counted:
            return "set_aside"
        if looked.known is not None and pair_id in looked.known.pairs:
            return "counted"
        if pair_id in bank.index:
            return "set_aside"
        if pair_id not in looked.margins:
            return "to_be_scored"
        return "set_aside" if self._usable(looked.margins[pair_id]) else "unscorable"

    async def known(self, user_id: str) -> tuple[Known | None, int]:
        """What the user's votes say now, None without votes that count; and how many the user's code was trained on."""
        looked = await self._look(user_id)
        return looked.known, len(looked.trained_on)

    async def ask(self, user_id: str, skip: Collection[str] = ()) -> Asked:
        """The next best question for the user, but for those in `skip`."""
        bank = self._bundle.bank
        if bank is None:
            return Asked(None, 0.0, 0, "no_bank")
        looked = await self._look(user_id)
        prior, seen = self._believed(bank, looked)
        return ask(bank, prior, seen, {vote.pair_id for vote in looked.given.votes}, skip)

    async def draw(self, user_id: str) -> Array | None:
        """A code at random from what is believed of the user (Thompson sampling); None without a bank."""
        bank = self._bundle.bank
        if bank is None:
            return None
        looked = await self._look(user_id)
        prior, seen = self._believed(bank, looked)
        drawn = prior.draw(seen.taste, np.random.default_rng())
        return bank.code(self._bundle.user_model, drawn, self._trained(looked.given))

    async def _look(self, user_id: str) -> _Looked:
        """The user's votes, and what they say. In a thread when that takes longer than others should wait."""
        given = await self._store.votes.given(self._table, user_id)
        margins = await self._margins(given)
        usable = {pair: row for pair, row in margins.items() if self._usable(row)}

        def look() -> _Looked:
            trained_on = self._trained_on(user_id, given)
            return _Looked(given, trained_on, margins, self.know(given, usable, trained_on))

        if self._bundle.user_model.kind == "cluster" and len(given.votes) <= MAX_INLINE_VOTES:
            return look()
        return await asyncio.to_thread(look)

    def _believed(self, bank: Bank, looked: _Looked) -> tuple[Prior, Impression]:
        return believed(bank, self._bundle.user_model, looked.known, self._trained(looked.given))

    def know(self, given: Given, margins: Mapping[str, Floats], trained_on: Container[GivenVote] = ()) -> Known | None:
        """The code that the votes lead to; None without a bank or without votes that count.

        `margins` [1 + C] are offset and slopes of the pairs that are not in the bank, `trained_on` votes that are in
        the user's trained code.
        """
        bank = self._bundle.bank
        if bank is None:
            return None
        return know(bank, self._bundle.user_model, given.votes, margins, self._trained(given), trained_on)

    def _trained_on(self, user_id: str, given: Given) -> frozenset[GivenVote]:
        """The votes that count and are in the trained code that the user starts from; none where there is no such."""
        trained_votes = self._bundle.trained_votes
        if trained_votes is None or self._trained(given) is None:
            return frozenset()
        return trained_votes.among(user_id, counting(given.votes))

    async def _margins(self, given: Given) -> dict[str, Floats]:
        """What is stored of the pairs that count and are not in the bank, as far as they have been scored."""
        bank = self._bundle.bank
        if bank is None:
            return {}
        pairs = sorted({vote.pair_id for vote in counting(given.votes)} - bank.index.keys())
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
