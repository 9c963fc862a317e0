"""Votes of a weaker kind in inference: what one counts, by hand, and what many say on the demo bundle."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest

from bench.learning.reply_margins import read_margins
from idiolect.bank import NO_REPLY, pair_id
from idiolect.bundle import Bundle
from idiolect.inference.voter import CONTRARY_NOISE, NOISES, STORIES, UNFAMILIAR
from idiolect.learning import WEIGHTS, GivenVote, VoteKind, counting, know
from idiolect_training.data.everyday import TASTES, shared
from tests.parts.bundles import small_bundle, with_bank

PAIR = pair_id([{"role": "user", "content": "Why?"}], "So.", NO_REPLY)


@pytest.mark.parametrize("kind", ["comparison", "edit", "thumb"])
def test_a_vote_counts_as_much_as_its_kind(tmp_path, kind: VoteKind):
    """Four clusters, equally likely before; a margin of 2 under the first, of -1 under the others. Temperature 1."""
    bundle = with_bank(small_bundle(tmp_path / "bundle"))
    votes, margins = [GivenVote(PAIR, True, 1, kind=kind)], {PAIR: np.array([0, 2, -1, -1, -1.0])}
    known = know(bundle.bank, bundle.user_model, votes, margins)

    def p(margin: float, noises: Mapping[float, float] = NOISES) -> float:
        """Of such a vote, over voters."""
        each = {noise: (1 - noise) / (1 + math.exp(-margin)) + noise / 2 for noise in noises}
        return sum(weight * each[noise] ** WEIGHTS[kind] for noise, weight in noises.items())

    one, other, coin = p(2) / 4, p(-1) / 4, 0.5 ** WEIGHTS[kind]
    # The generic code is the mean of the clusters, and so is its margin.
    contrary = sum(p(-margin, {CONTRARY_NOISE: 1.0}) for margin in (2, -1, -1, -1)) / 4
    stories = {"generic": p(-1 / 4), "coin": coin, "contrary": contrary, "first": coin, "second": coin}
    nobody = UNFAMILIAR * sum(STORIES[name] * value for name, value in stories.items())
    familiar = (1 - UNFAMILIAR) * (one + 3 * other)
    familiar /= familiar + nobody
    taste = np.array([one, other, other, other]) / (one + 3 * other)
    assert known.impression.familiar == pytest.approx(familiar)
    assert known.code == pytest.approx(familiar * taste + (1 - familiar) / 4, rel=1e-6)
    assert (known.effective_votes, known.pairs) == (1, {PAIR})


def test_a_thumb_counts_less_than_a_comparison():
    assert 0 < WEIGHTS["thumb"] <= WEIGHTS["edit"] <= WEIGHTS["comparison"] == 1


def test_up_and_down_are_two_answers_to_one_question():
    up, down = GivenVote(PAIR, False, 1, "1-0", "thumb"), GivenVote(PAIR, True, 2, "2-0", "thumb")
    assert counting([up, down]) == [down]
    assert counting([down, up]) == [up]
    assert pair_id([{"role": "user", "content": "Why?"}], NO_REPLY, "So.") == PAIR


@pytest.fixture(scope="module")
def margins(demo_bundle: Bundle) -> np.ndarray:
    return read_margins(demo_bundle.bundle_id)


def test_who_gives_thumbs_alone_ends_with_the_right_taste(demo_bundle: Bundle, margins):
    """A thumb at every reply to eight prompts, up where two of the three words are right: a day's votes.

    Of 480 such strangers 478 are right; all were when every voter was taken to slip in one of forty votes, which is a
    bet that people who do slip have to pay for.
    """
    right = []
    for taste, seed in itertools.product(TASTES, range(10)):
        draw = np.random.default_rng(seed)
        votes, rows = [], {}
        for prompt in draw.permutation(len(margins))[:8]:
            for reply in draw.permutation(len(TASTES)):
                pair = f"{prompt * len(TASTES) + reply:016x}"
                votes.append(GivenVote(pair, shared(taste, TASTES[reply]) >= 2, len(votes), kind="thumb"))
                rows[pair] = np.concatenate([[0.0], margins[prompt, reply]])
        known = know(demo_bundle.bank, demo_bundle.user_model, votes, rows)
        right.append(demo_bundle.manifest.cluster_names[known.code.argmax()] == taste.replace("-", ", "))
    assert np.mean(right) >= 0.975
