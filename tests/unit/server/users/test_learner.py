"""From votes to code, without a server: replay, order, votes taken back, the daily limit."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idiolect.learning import DAY_MS, MAX_DAILY_VOTES
from idiolect.trained_votes import TrainedVotes, digest
from idiolect_server.store.store import Store
from idiolect_server.store.votes import Given, in_order
from idiolect_server.users.learner import Learner
from tests.parts.bundles import small_bundle, with_bank

Said = tuple[str, bool]
"""A pair, and whether its first side was preferred."""
TRAINED = np.array([0.97, 0.01, 0.01, 0.01], "<f2").tobytes()  # as idiolect_server/store/codes.py packs it


def given(votes: dict[str, Said], trained: bytes | None = None) -> Given:
    """What the store reads of a user whose votes have these stream ids."""
    listed = {
        stream_id.encode(): json.dumps({"pair": pair, "first": first, "key": "k"}).encode()
        for stream_id, (pair, first) in votes.items()
    }
    return Given(in_order(listed), len(votes), trained)


class Votes:
    """What the store has of one user."""

    def __init__(self, given: Given, margins: dict[str, np.ndarray] | None = None) -> None:
        self._given, self._margins, self.kept = given, margins or {}, []
        self.votes = self.margins = self

    async def given(self, table: object, user_id: str) -> Given:
        return self._given

    async def get(self, bundle_id: str, pairs: list[str]) -> dict[str, np.ndarray]:
        return {pair: row for pair, row in self._margins.items() if pair in pairs}

    async def put_inferred(self, bundle_id: str, user_id: str, record: bytes, revision: int) -> None:
        self.kept.append(record)


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    return Learner(with_bank(small_bundle(tmp_path / "bundle")), Store("redis://nowhere"))


def pairs(learner: Learner) -> list[str]:
    return [question.question_id for question in learner._bundle.bank.questions]


def answers(learner: Learner, cluster: int, n: int, start_ms: int = 1) -> dict[str, Said]:
    """What somebody of the cluster answers to the first n questions."""
    return {f"{start_ms + place}-0": (pair, place % 4 == cluster) for place, pair in enumerate(pairs(learner)[:n])}


def test_answers_lead_to_the_cluster(learner: Learner):
    known = learner.know(given(answers(learner, 2, 8)), {})
    assert known is not None
    assert known.code.argmax() == 2
    assert known.code[2] > 0.8
    assert (known.effective_votes, known.outdated_votes) == (8, 0)
    assert known.uncertainty < 0.5


def test_nothing_is_known_without_votes_that_count(learner: Learner):
    assert learner.know(given({}), {}) is None
    assert learner.know(given({"1-0": ("0" * 16, True)}), {}) is None


def test_the_order_of_votes_changes_not_a_bit(learner: Learner):
    votes = answers(learner, 1, 12)
    expected = learner.know(given(votes), {}).code.tobytes()
    rng = np.random.default_rng(0)
    for _ in range(20):
        shuffled = [list(votes.values())[place] for place in rng.permutation(len(votes))]
        known = learner.know(given(dict(zip(votes, shuffled, strict=True))), {})
        assert known.outdated_votes == 0
        assert known.code.tobytes() == expected


def test_a_vote_taken_back_was_never_given(learner: Learner):
    votes = answers(learner, 3, 6)
    more = votes | {"99-0": (pairs(learner)[20], True), "100-0": (pairs(learner)[0], True)}
    less = {stream_id: vote for stream_id, vote in more.items() if stream_id in votes}
    before, after, back = (learner.know(given(each), {}).code.tobytes() for each in (votes, more, less))
    assert after != before == back


def test_the_last_answer_to_a_question_counts(learner: Learner):
    changed = {"50-0": (pairs(learner)[0], False)}
    known = learner.know(given(answers(learner, 0, 1) | changed), {})
    only = learner.know(given(changed), {})
    assert known.effective_votes == 1
    assert known.code.tobytes() == only.code.tobytes()


def test_organic_pairs_count_when_they_are_scored(learner: Learner):
    organic = given({"1-0": ("f" * 16, True)})
    assert learner.know(organic, {}) is None
    known = learner.know(organic, {"f" * 16: np.array([0.0, 5, -5, -5, -5])})
    assert known.code.argmax() == 0


def test_a_changed_wish_is_followed(learner: Learner):
    old, new = answers(learner, 0, 20), answers(learner, 1, 40, start_ms=1000)
    new_only = {k: vote for k, vote in new.items() if int(k.split("-")[0]) >= 1020}
    known = learner.know(given(old | dict(list(new_only.items())[:16])), {})
    assert known.outdated_votes >= 16
    assert known.code.argmax() == 1


def test_votes_beyond_the_daily_limit_do_not_count(learner: Learner):
    flood = {f"{n + 1}-0": ("e" * 16, True) for n in range(MAX_DAILY_VOTES)}
    late = {f"{MAX_DAILY_VOTES + n}-1": vote for n, vote in enumerate(answers(learner, 2, 8).values(), 1)}
    assert learner.know(given(flood | late), {}) is None
    next_day = {f"{DAY_MS + n}-0": vote for n, vote in enumerate(late.values())}
    assert learner.know(given(flood | next_day), {}).effective_votes == 8


def test_a_trained_code_is_where_its_user_starts(learner: Learner):
    strange, known = (learner.know(given(answers(learner, 1, 2), start), {}) for start in (None, TRAINED))
    assert strange.code[1] > known.code[1]
    many = learner.know(given(answers(learner, 1, 12), TRAINED), {})
    assert many.code.argmax() == 1


def test_a_broken_trained_code_is_no_code(learner: Learner):
    broken, none = (learner.know(given(answers(learner, 1, 4), start), {}) for start in (b"junk", None))
    assert broken.code.tobytes() == none.code.tobytes()


ORGANIC = "f" * 16


@pytest.mark.parametrize(
    ("votes", "margins", "effect"),
    [
        ({"1-0": ORGANIC}, {}, "to_be_scored"),
        ({"1-0": ORGANIC}, {ORGANIC: np.zeros(0)}, "unscorable"),
        ({"1-0": ORGANIC}, {ORGANIC: np.array([0.0, 5, -5, -5, -5])}, "counted"),
        ({f"{n}-0": "e" * 16 for n in range(1, MAX_DAILY_VOTES + 1)} | {"99-0": ORGANIC}, {}, "set_aside"),
        (
            {f"{n}-0": "e" * 16 for n in range(1, MAX_DAILY_VOTES + 1)} | {"99-0": ORGANIC},
            {ORGANIC: np.array([0.0, 5, -5, -5, -5])},
            "set_aside",
        ),
    ],
)
def test_a_vote_says_what_it_does(learner: Learner, votes, margins, effect):
    learner._store = Votes(given({stream_id: (pair, True) for stream_id, pair in votes.items()}), margins)
    learnt = asyncio.run(learner.learn("ann", ORGANIC))
    assert learnt.effect == effect
    assert learnt.state == ("inferred" if effect == "counted" else "generic")


def trained_on(learner: Learner, user_id: str, *said: Said) -> Learner:
    """The learner of a bundle whose code of this user was trained on these answers."""
    votes = TrainedVotes.of(digest(user_id, *each) for each in said)
    return Learner(replace(learner._bundle, trained_votes=votes), learner._store)


def test_a_vote_that_trained_a_code_is_no_evidence_on_top_of_it(learner: Learner):
    said = answers(learner, 1, 4)
    old, new = dict(list(said.items())[:3]), dict(list(said.items())[3:])
    learner = trained_on(learner, "ann", *old.values())
    learner._store = Votes(given(said, TRAINED))
    known, n_trained = asyncio.run(learner.known("ann"))
    assert (known.effective_votes, n_trained) == (1, 3)
    assert known.code.tobytes() == learner.know(given(new, TRAINED), {}).code.tobytes()
    learner._store = Votes(given(old, TRAINED))
    assert asyncio.run(learner.known("ann")) == (None, 3)
    learnt = asyncio.run(learner.learn("ann", pairs(learner)[0]))
    assert (learnt.effect, learnt.state) == ("trained", "stored")
    # Answers are known by their user; without a trained code in force there is nothing that they could be in.
    for who, code in (("bob", TRAINED), ("ann", None), ("ann", b"junk")):
        learner._store = Votes(given(said, code))
        known, n_trained = asyncio.run(learner.known(who))
        assert (known.effective_votes, n_trained) == (4, 0)


def test_a_mind_changed_after_training_counts_and_changed_back_does_not(learner: Learner):
    pair = pairs(learner)[0]
    learner = trained_on(learner, "ann", (pair, True))
    history: dict[str, Said] = {}
    for number, (first, effect) in enumerate([(True, "trained"), (False, "counted"), (True, "trained")], start=1):
        history[f"{number}-0"] = (pair, first)
        learner._store = Votes(given(history, TRAINED))
        assert asyncio.run(learner.learn("ann", pair)).effect == effect


def test_a_vote_beyond_the_daily_limit_says_so_though_its_pair_was_answered_before(learner: Learner):
    flood = {f"{n}-0": ("e" * 16, True) for n in range(2, MAX_DAILY_VOTES + 1)}
    for first in (True, False):
        history = {"1-0": (pairs(learner)[0], True)} | flood | {"99-0": (pairs(learner)[0], first)}
        learner._store = Votes(given(history))
        learnt = asyncio.run(learner.learn("ann", pairs(learner)[0]))
        assert (learnt.effect, learnt.known.effective_votes) == ("set_aside", 1)


def test_a_vote_on_a_question_counts_at_once(learner: Learner):
    learner._store = Votes(given(answers(learner, 2, 3)))
    learnt = asyncio.run(learner.learn("ann", pairs(learner)[0]))
    assert (learnt.effect, learnt.state, learnt.known.effective_votes) == ("counted", "inferred", 3)


def test_why_there_is_no_question(learner: Learner):
    learner._store = Votes(given(answers(learner, 1, 3)))
    asked = asyncio.run(learner.ask("ann"))
    assert asked.question is not None
    assert asked.reason is None
    skipped = asyncio.run(learner.ask("ann", pairs(learner)))
    assert (skipped.question, skipped.reason, skipped.n_answered) == (None, "all_skipped", 3)
    learner._store = Votes(given(answers(learner, 1, len(pairs(learner)))))
    assert asyncio.run(learner.ask("ann")).reason == "nothing_worth_asking"


def test_a_bundle_without_a_bank_says_that_votes_do_not_count(tmp_path: Path):
    learner = Learner(small_bundle(tmp_path / "bundle"), Votes(given({"1-0": (ORGANIC, True)})))
    assert not learner.infers
    assert "no question bank" in learner.why_not
    learnt = asyncio.run(learner.learn("ann", ORGANIC))
    assert (learnt.effect, learnt.state, learnt.known) == ("no_bank", "generic", None)
    assert learner._store.kept == []
    asked = asyncio.run(learner.ask("ann"))
    assert (asked.question, asked.reason) == (None, "no_bank")
