"""Users of K clusters seen through their margins alone, and somebody new who answers, as the server infers them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from idiolect.bank import Bank, Question
from idiolect.learning import DAY_MS, GivenVote, Known, ask, believed, know
from idiolect.user_model import UserModel
from idiolect.votes import Floats, Likelihood

SHARE = np.array([0.23] * 4 + [0.04] * 2)
"""Four kinds of users, and two clusters that are nearly empty, as trained ones are."""
Says = Callable[[int, bool], bool]
"""Whether a user prefers the first side of a question, by its place and by whether that side is shown first."""


@dataclass(frozen=True)
class World:
    """A bank of questions, and other pairs to test on."""

    bank: Bank
    user_model: UserModel
    tests: Floats  # [n, K] margins, in temperatures

    @classmethod
    def drawn(
        cls, rng: np.random.Generator, share: Floats = SHARE, size: float | None = None, n: int = 96, n_tests: int = 200
    ) -> "World":
        """K = len(share) clusters and `n` questions. The signs of margins are coins.

        Their size is `size` temperatures, or Gamma distributed with a mean of 4, of which a bundle is sure, yet not of
        all alike.
        """
        k = len(share)

        def margins(n: int) -> Floats:
            sizes = rng.gamma(2, 2, size=(n, k)) if size is None else np.full((n, k), size)
            return np.asarray(sizes * rng.choice([-1.0, 1.0], size=(n, k)), np.float64)

        question = Question(messages=({"role": "user", "content": "?"},), first="a", second="b")
        bank = Bank(
            tuple(question.model_copy(update={"second": f"b{number}"}) for number in range(n)),
            slopes=margins(n),
            offsets=np.zeros(n),
            origin=np.zeros(k),
            directions=np.eye(k),
            mean=share,
            covariance=np.eye(k),
            likelihood=Likelihood(),
        )
        model = UserModel("cluster", np.zeros((k, 1, 1), np.float32), share.astype(np.float32))
        return cls(bank, model, margins(n_tests))

    def vote(self, place: int, first: bool, day: int, shown_first: bool | None = None) -> GivenVote:
        """On a day of its own: no limit is met."""
        pair = self.bank.questions[place].question_id
        return GivenVote(pair, first, day * DAY_MS, shown_first=shown_first)

    def known(self, votes: Sequence[GivenVote]) -> Known:
        """What the server knows by them."""
        known = know(self.bank, self.user_model, votes, {})
        assert known is not None
        return known

    def of_cluster(self, cluster: int, slips: float, rng: np.random.Generator) -> Says:
        """Wants what the cluster wants, but for a share of `slips`."""
        wants = self.bank.slopes[:, cluster] > 0
        return lambda place, _: bool(wants[place] != (rng.random() < slips))


class Newcomer:
    """Somebody who answers questions, whose sides are shown in an order that is drawn."""

    def __init__(self, world: World, says: Says, rng: np.random.Generator) -> None:
        self.world, self._says, self._rng = world, says, rng
        self._left, self._votes = list(rng.permutation(len(world.bank.questions))), list[GivenVote]()
        self.known: Known | None = None

    def best(self) -> int | None:
        """The question that the server asks now; None when it has stopped."""
        bank = self.world.bank
        prior, seen = believed(bank, self.world.user_model, self.known)
        asked = ask(bank, prior, seen, {vote.pair_id for vote in self._votes}).question
        return None if asked is None else bank.index[asked.question_id]

    def any_(self) -> int:
        """A question that was not asked, at random."""
        return int(self._left[-1])

    def answer(self, place: int) -> None:
        first_shown = bool(self._rng.random() < 0.5)
        first = self._says(place, first_shown)
        self._left.remove(place)
        self._votes.append(self.world.vote(place, first, len(self._votes), first == first_shown))
        self.known = self.world.known(self._votes)
