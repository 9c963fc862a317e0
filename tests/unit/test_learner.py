"""From votes to code, without a server: replay, order, votes taken back, the daily limit."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idiolect_server.store.store import Store
from idiolect_server.store.votes import Given, GivenVote
from idiolect_server.users.learner import DAY_MS, MAX_DAILY_VOTES, Learner
from tests.unit.bundles import small_bundle, with_bank


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


def answers(learner: Learner, cluster: int, n: int, start_ms: int = 1, trained: bytes | None = None) -> Given:
    """What somebody of the cluster answers to the first n questions."""
    votes = {
        f"{start_ms + place}-0": GivenVote(pair, first=place % 4 == cluster)
        for place, pair in enumerate(pairs(learner)[:n])
    }
    return Given(votes, revision=n, trained=trained)


def test_answers_lead_to_the_cluster(learner: Learner):
    known = learner.know(answers(learner, 2, 8), {})
    assert known is not None
    assert known.code.argmax() == 2
    assert known.code[2] > 0.8
    assert (known.effective_votes, known.outdated_votes) == (8, 0)
    assert known.uncertainty < 0.5
    assert known.shown_code == known.code.tolist()


def test_nothing_is_known_without_votes_that_count(learner: Learner):
    assert learner.know(Given({}, 0, None), {}) is None
    assert learner.know(Given({"1-0": GivenVote("0" * 16, True)}, 1, None), {}) is None


def test_the_order_of_votes_changes_not_a_bit(learner: Learner):
    given = answers(learner, 1, 12)
    expected = learner.know(given, {}).code.tobytes()
    rng = np.random.default_rng(0)
    for _ in range(20):
        shuffled = dict(zip(given.votes, rng.permutation(list(given.votes.values())), strict=True))
        known = learner.know(replace(given, votes=shuffled), {})
        assert known.outdated_votes == 0
        assert known.code.tobytes() == expected


def test_a_vote_taken_back_was_never_given(learner: Learner):
    given = answers(learner, 3, 6)
    more = given.votes | {"99-0": GivenVote(pairs(learner)[20], True), "100-0": GivenVote(pairs(learner)[0], True)}
    less = {stream_id: vote for stream_id, vote in more.items() if stream_id in given.votes}
    assert learner.know(replace(given, votes=more), {}).code.tobytes() != learner.know(given, {}).code.tobytes()
    assert learner.know(replace(given, votes=less), {}).code.tobytes() == learner.know(given, {}).code.tobytes()


def test_the_last_answer_to_a_question_counts(learner: Learner):
    given = answers(learner, 0, 1)
    changed = given.votes | {"50-0": GivenVote(pairs(learner)[0], False)}
    known = learner.know(replace(given, votes=changed), {})
    only = learner.know(Given({"50-0": GivenVote(pairs(learner)[0], False)}, 1, None), {})
    assert known.effective_votes == 1
    assert known.code.tobytes() == only.code.tobytes()


def test_organic_pairs_count_when_they_are_scored(learner: Learner):
    given = Given({"1-0": GivenVote("f" * 16, first=True)}, 1, None)
    assert learner.know(given, {}) is None
    known = learner.know(given, {"f" * 16: np.array([0.0, 5, -5, -5, -5])})
    assert known.code.argmax() == 0


def test_a_changed_wish_is_followed(learner: Learner):
    old, new = answers(learner, 0, 20), answers(learner, 1, 40, start_ms=1000)
    new_only = {k: vote for k, vote in new.votes.items() if int(k.split("-")[0]) >= 1020}
    known = learner.know(Given(old.votes | dict(list(new_only.items())[:8]), 28, None), {})
    assert known.outdated_votes >= 17
    assert known.code.argmax() == 1


def test_votes_beyond_the_daily_limit_do_not_count(learner: Learner):
    flood = {f"{n + 1}-0": GivenVote("e" * 16, True) for n in range(MAX_DAILY_VOTES)}
    late = {f"{MAX_DAILY_VOTES + n}-1": vote for n, vote in enumerate(answers(learner, 2, 8).votes.values(), 1)}
    assert learner.know(Given(flood | late, 1, None), {}) is None
    next_day = {f"{DAY_MS + n}-0": vote for n, vote in enumerate(late.values())}
    assert learner.know(Given(flood | next_day, 1, None), {}).effective_votes == 8


def test_a_trained_code_is_where_its_user_starts(learner: Learner):
    trained = np.array([0.97, 0.01, 0.01, 0.01], "<f2").tobytes()  # as idiolect_server/store/codes.py packs it
    strange, known = (learner.know(answers(learner, 1, 2, trained=start), {}) for start in (None, trained))
    assert strange.code[1] > known.code[1]
    many = learner.know(answers(learner, 1, 12, trained=trained), {})
    assert many.code.argmax() == 1


def test_a_broken_trained_code_is_no_code(learner: Learner):
    broken, none = (learner.know(answers(learner, 1, 4, trained=start), {}) for start in (b"junk", None))
    assert broken.code.tobytes() == none.code.tobytes()


ORGANIC = "f" * 16


@pytest.mark.parametrize(
    ("votes", "margins", "effect"),
    [
        ({"1-0": ORGANIC}, {}, "to_be_scored"),
        ({"1-0": ORGANIC}, {ORGANIC: np.zeros(0)}, "unscorable"),
        ({"1-0": ORGANIC}, {ORGANIC: np.array([0.0, 5, -5, -5, -5])}, "counted"),
        ({f"{n}-0": "e" * 16 for n in range(1, MAX_DAILY_VOTES + 1)} | {"99-0": ORGANIC}, {}, "to_be_scored"),
        (
            {f"{n}-0": "e" * 16 for n in range(1, MAX_DAILY_VOTES + 1)} | {"99-0": ORGANIC},
            {ORGANIC: np.array([0.0, 5, -5, -5, -5])},
            "set_aside",
        ),
    ],
)
def test_a_vote_says_what_it_does(learner: Learner, votes, margins, effect):
    given = Given({stream_id: GivenVote(pair, True) for stream_id, pair in votes.items()}, 1, None)
    learner._store = Votes(given, margins)
    learnt = asyncio.run(learner.learn("ann", ORGANIC))
    assert learnt.effect == effect
    assert learnt.state == ("inferred" if effect == "counted" else "generic")


def test_a_vote_on_a_question_counts_at_once(learner: Learner):
    learner._store = Votes(answers(learner, 2, 3))
    learnt = asyncio.run(learner.learn("ann", pairs(learner)[0]))
    assert (learnt.effect, learnt.state, learnt.known.effective_votes) == ("counted", "inferred", 3)


def test_why_there_is_no_question(learner: Learner):
    learner._store = Votes(answers(learner, 1, 3))
    asked = asyncio.run(learner.ask("ann"))
    assert asked.question is not None
    assert asked.reason is None
    skipped = asyncio.run(learner.ask("ann", pairs(learner)))
    assert (skipped.question, skipped.reason, skipped.n_answered) == (None, "all_skipped", 3)
    learner._store = Votes(answers(learner, 1, len(pairs(learner))))
    assert asyncio.run(learner.ask("ann")).reason == "nothing_worth_asking"


def test_a_bundle_without_a_bank_says_that_votes_do_not_count(tmp_path: Path):
    learner = Learner(small_bundle(tmp_path / "bundle"), Votes(Given({"1-0": GivenVote(ORGANIC, True)}, 1, None)))
    assert not learner.infers
    assert "no question bank" in learner.why_not
    learnt = asyncio.run(learner.learn("ann", ORGANIC))
    assert (learnt.effect, learnt.state, learnt.known) == ("no_bank", "generic", None)
    assert learner._store.kept == []
    asked = asyncio.run(learner.ask("ann"))
    assert (asked.question, asked.reason) == (None, "no_bank")
