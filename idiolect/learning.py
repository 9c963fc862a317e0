"""From a user's votes to what is known of the user and what to ask next: the one rule that serves and is measured.

Pure functions of (votes, bank): a vote taken back was never given, and a code can be rebuilt at any time.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from idiolect.bank import Bank, Question
from idiolect.inference.drift import outdated
from idiolect.inference.priors import Prior, next_question
from idiolect.inference.voter import Impression, impression
from idiolect.user_model import Array, UserModel
from idiolect.votes import Belief, Floats, Votes

LEAST_GAIN = 0.02
"""Nats that an answer must promise for its question to be asked: a fair coin that says nothing else is worth 0.69."""
SURE = 0.98
"""Beyond such a probability of one cluster, nothing is asked any more."""
LEAST_VOTES_TO_DOUBT = 8
"""Before so many, that no taste explains a user's votes is no news."""
MAX_VOTES = 512
"""The latest that count: what a user said many hundred votes ago is no longer needed."""
MAX_DAILY_VOTES = 64
"""Votes of one user in one day (UTC) beyond these do not count: most of them would have to be scored by the model."""
DAILY_WEIGHT = 32.0
"""Beyond these, votes of one day weigh less, each alike: a day does not outweigh all others, however many it has."""
DAY_MS = 24 * 3600 * 1000

VoteKind = Literal["comparison", "edit", "thumb", "tie"]
"""Two replies were shown, and one of them was preferred; a reply was changed into a better one; a reply was judged by
itself, against NO_REPLY (idiolect/bank.py); two replies were shown, and neither was preferred."""
WEIGHTS: Mapping[VoteKind, float] = {"comparison": 1.0, "edit": 1.0, "thumb": 0.5, "tie": 1.0}
"""How much a vote of each kind counts: in inference it multiplies the log-likelihood of the vote, in training its loss.

Measured by `make weak-votes` (docs/results/weak-votes.md), but for ties.
"""

NoQuestion = Literal["no_bank", "nothing_worth_asking", "all_skipped"]
"""Why there is no question: the bundle has none, no answer would tell enough, or the user skipped those that would."""


@dataclass(frozen=True)
class GivenVote:
    """What inference needs of a vote: the pair (idiolect.bank.pair_id), and whether its first side was preferred."""

    pair_id: str
    first: bool | None
    """None where neither was: the kind is then a tie."""
    given_ms: int
    """Unix milliseconds."""
    vote_id: str = ""
    """Its name among its user's votes, where it has one."""
    kind: VoteKind = "comparison"
    shown_first: bool | None = None
    """Whether the preferred reply was shown before the other; None when nobody can say, or neither was preferred."""


@dataclass(frozen=True)
class Known:
    """What is known of one user from the votes that count."""

    code: Array
    """What is served: taste as far as the votes speak of one, and of the population as far as they do not."""
    belief: Belief
    """The same in the coordinates of the bank, and how unsure it is."""
    impression: Impression
    explained: bool
    """False when nobody whom we know would vote so: the code is then that from before the votes."""
    effective_votes: int
    outdated_votes: int
    """Older votes that recent ones contradict: they are kept, and do not count."""
    uncertainty: float
    """1 when nothing is known beyond the population, falling towards 0."""
    pairs: frozenset[str]
    """The pairs of the votes that count."""


@dataclass(frozen=True)
class Asked:
    """The next best question for a user, what its answer is expected to tell in nats, and how many were answered."""

    question: Question | None
    gain: float
    n_answered: int
    reason: NoQuestion | None
    """Why there is no question."""


def counting(votes: Iterable[GivenVote]) -> list[GivenVote]:
    """Of one user's votes, the oldest first, those that count, in the same order: for inference, export and training.

    The last answer to a pair replaces the earlier ones; of a day's votes the first MAX_DAILY_VOTES count, of all the
    latest MAX_VOTES. Whoever has only the votes that count finds that all of them do.
    """
    today: Counter[int] = Counter()
    last: dict[str, GivenVote] = {}
    for vote in votes:
        day = vote.given_ms // DAY_MS
        today[day] += 1
        if today[day] <= MAX_DAILY_VOTES:
            last.pop(vote.pair_id, None)
            last[vote.pair_id] = vote
    return list(last.values())[-MAX_VOTES:]


def know(
    bank: Bank,
    user_model: UserModel,
    votes: Iterable[GivenVote],
    margins: Mapping[str, Floats],
    trained: Array | None = None,
    trained_on: Container[GivenVote] = (),
) -> Known | None:
    """What the votes, the oldest first, say of their user; None without a vote that counts and says something new.

    `margins` [1 + C] are offset and slopes of pairs that are not in the bank; votes on other pairs wait for theirs.
    `trained` is the user's code from training, `trained_on` the votes that are in it already. Votes are summed in a
    fixed order, so that codes do not depend on the order in which they came, to the last bit; it matters only to decide
    which votes are outdated (idiolect/inference/drift.py).
    """
    scored = bank.index.keys() | margins.keys()
    counted = [vote for vote in counting(votes) if vote.pair_id in scored and vote not in trained_on]
    if not counted:
        return None
    rows = np.array([_row(bank, vote.pair_id, margins) for vote in counted])
    table = np.array([[-1.0 if vote.first is False else 1.0] for vote in counted]) * rows
    shown = np.array([0.0 if vote.shown_first is None else 1.0 if vote.shown_first else -1.0 for vote in counted])
    given = Votes.of(table[:, 1:], table[:, 0], _weights(counted), shown, _tied(counted))
    prior = bank.prior(user_model, trained)
    n_old = outdated(given, prior, bank.likelihood)
    order = sorted(range(n_old, len(counted)), key=lambda place: counted[place].pair_id)
    seen = impression(prior, given.at(order), bank.likelihood)
    nothing = prior.infer(Votes.none(len(bank.mean)), bank.likelihood)
    explained = seen.familiar >= 0.5 or len(order) < LEAST_VOTES_TO_DOUBT
    served = seen.served(nothing) if explained else nothing
    # A surprising vote may leave more open than nobody's votes do: that is no less than knowing nothing.
    uncertainty = min(1.0, float(served.spread / nothing.spread))
    pairs = frozenset(counted[place].pair_id for place in order)
    before = user_model.generic_code if trained is None else trained
    code = bank.code(user_model, served, trained) if explained else before
    return Known(code, served, seen, explained, len(order), n_old, uncertainty, pairs)


def believed(
    bank: Bank, user_model: UserModel, known: Known | None, trained: Array | None = None
) -> tuple[Prior, Impression]:
    """Who a user may be before any vote, and the impression from those that count."""
    prior = bank.prior(user_model, trained)
    return prior, impression(prior, Votes.none(len(bank.mean)), bank.likelihood) if known is None else known.impression


def ask(bank: Bank, prior: Prior, seen: Impression, answered: Collection[str], skipped: Collection[str] = ()) -> Asked:
    """The question whose answer promises most; none when no question is left that promises LEAST_GAIN, or it is sure.

    `answered` and `skipped` are pairs. Questions that the user does not care about are not asked again: answers to
    them would be coins thrown. What an answer tells is what it tells of the taste, by a voter who slips, and has no
    preference, as often as the user does.
    """
    likelihood, table = replace(bank.likelihood, noise=seen.noise, ties=seen.ties), bank.table
    if seen.ties:
        table = replace(table, tied=-np.ones(len(bank.questions)))
    done, passed = np.zeros((2, len(bank.questions)), bool)
    for places, pairs in ((done, answered), (passed, skipped)):
        places[[bank.index[pair] for pair in pairs if pair in bank.index]] = True
    gains, n_answered = prior.gain(seen.taste, table, likelihood), int(done.sum())
    if prior.sure(seen.taste) >= SURE:
        return Asked(None, 0.0, n_answered, "nothing_worth_asking")
    place = next_question(gains, done | passed, LEAST_GAIN)
    if place is not None:
        return Asked(bank.questions[place], float(gains[place]), n_answered, None)
    left = next_question(gains, done, LEAST_GAIN)
    return Asked(None, 0.0, n_answered, "nothing_worth_asking" if left is None else "all_skipped")


def _weights(votes: Sequence[GivenVote]) -> Floats:
    """What each vote counts, [N]: by its kind, and less where its day has more than DAILY_WEIGHT."""
    days: defaultdict[int, float] = defaultdict(float)
    for vote in votes:
        days[vote.given_ms // DAY_MS] += WEIGHTS[vote.kind]
    return np.array([WEIGHTS[v.kind] * min(1.0, DAILY_WEIGHT / days[v.given_ms // DAY_MS]) for v in votes])


def _tied(votes: Sequence[GivenVote]) -> Floats:
    """Votes.tied, [N]: whoever had no preference once could have had none in every comparison."""
    if all(vote.first is not None for vote in votes):
        return np.zeros(len(votes))
    return np.array([1.0 if v.first is None else -1.0 if v.kind == "comparison" else 0.0 for v in votes])


def _row(bank: Bank, pair: str, margins: Mapping[str, Floats]) -> Floats:
    """Offset and slopes of a pair, [1 + C]."""
    if pair not in bank.index:
        return margins[pair]
    place = bank.index[pair]
    return np.concatenate([bank.offsets[place : place + 1], bank.slopes[place]])
