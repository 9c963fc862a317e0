"""From votes to code, without a server: replay, order, votes taken back, the daily limit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.learner import DAY_MS, MAX_DAILY_VOTES, Learner
from server.store.store import Store
from server.store.votes import Given, GivenVote
from tests.unit.bundles import small_bundle, with_bank


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
    trained = np.array([0.97, 0.01, 0.01, 0.01], "<f2").tobytes()  # as server/store/codes.py packs it
    strange, known = (learner.know(answers(learner, 1, 2, trained=start), {}) for start in (None, trained))
    assert strange.code[1] > known.code[1]
    many = learner.know(answers(learner, 1, 12, trained=trained), {})
    assert many.code.argmax() == 1


def test_a_broken_trained_code_is_no_code(learner: Learner):
    broken, none = (learner.know(answers(learner, 1, 4, trained=start), {}) for start in (b"junk", None))
    assert broken.code.tobytes() == none.code.tobytes()
