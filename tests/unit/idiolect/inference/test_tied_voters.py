"""Voters who have no preference at times: by hand, in drift, and in what the server's one rule makes of it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bench.people.world import World
from idiolect.inference.drift import outdated
from idiolect.inference.priors import Gaussian, Mixture
from idiolect.inference.voter import (
    CONTRARY_NOISE,
    FIRM,
    HABITS,
    NOISES,
    SIDED,
    SIDED_NOISES,
    STORIES,
    UNFAMILIAR,
    impression,
)
from idiolect.learning import DAY_MS, GivenVote, ask, believed, counting, know
from idiolect.votes import Likelihood, Votes, davidson

LIKELIHOOD = Likelihood(temperature=1.5, noise=0.1, ties=0.8)
SHARE = np.array([0.5, 0.3, 0.2])


def by_hand(votes: Votes) -> tuple[np.ndarray, float]:
    """P(cluster), and P(it is one that we know), by going through all voters that may be, vote by vote."""

    def product(margins: np.ndarray, noise: float, lean: float, habit: float) -> float:
        total = 1.0
        for margin, shown, tied in zip(margins, votes.shown_first, votes.tied, strict=True):
            ties = habit * LIKELIHOOD.ties if tied else 0.0
            better, worse = np.exp(margin / 3), np.exp(-margin / 3)
            side = 0.5 + (FIRM - 0.5) * lean * shown
            if tied > 0:
                p = (1 - noise) * ties / (better + worse + ties) + noise * ties / (2 + ties)
            else:
                p = (1 - noise) * better / (better + worse + ties) + noise * side * 2 / (2 + ties)
            total *= p
        return total

    margins = votes.offsets[:, None] + votes.slopes
    kinds = [(noise, 0.0, (1 - SIDED) * weight) for noise, weight in NOISES.items()]
    leaning = itertools.product(SIDED_NOISES, (1.0, -1.0))
    kinds += [(noise, lean, SIDED / 2 / len(SIDED_NOISES)) for noise, lean in leaning]
    each = [
        share
        * sum(
            w * v * product(margins[:, k], noise, lean, habit)
            for noise, lean, w in kinds
            for habit, v in HABITS.items()
        )
        for k, share in enumerate(SHARE)
    ]
    zero = np.zeros(len(margins))
    stories = {
        "generic": sum(w * v * product(margins @ SHARE, n, 0, h) for n, w in NOISES.items() for h, v in HABITS.items()),
        "coin": sum(v * product(zero, 1, 0, h) for h, v in HABITS.items()),
        "contrary": sum(
            share * v * product(-margins[:, k], CONTRARY_NOISE, 0, h)
            for k, share in enumerate(SHARE)
            for h, v in HABITS.items()
        ),
        "first": sum(v * product(zero, 1, 1, h) for h, v in HABITS.items()),
        "second": sum(v * product(zero, 1, -1, h) for h, v in HABITS.items()),
    }
    familiar = (1 - UNFAMILIAR) * sum(each)
    nobody = UNFAMILIAR * sum(STORIES[name] * value for name, value in stories.items())
    return np.array(each) / sum(each), familiar / (familiar + nobody)


def test_an_impression_is_bayes_rule_over_voters_and_their_habits():
    rng = np.random.default_rng(4)
    for n in (1, 2, 3, 5, 6):
        tied = rng.choice([1.0, -1.0, 0.0], size=n)
        tied[0] = 1.0
        shown = np.where(tied > 0, 0.0, rng.choice([-1.0, 1.0, 0.0], size=n))
        shown[-1] = shown[-1] or float(n > 1)  # of one at least it is known
        votes = Votes.of(3 * rng.standard_normal((n, 3)), rng.standard_normal(n), shown_first=shown, tied=tied)
        if not shown.any():
            continue
        seen, (taste, familiar) = impression(Mixture(SHARE), votes, LIKELIHOOD), by_hand(votes)
        assert seen.taste.code == pytest.approx(taste)
        assert seen.familiar == pytest.approx(familiar)


def test_how_readily_somebody_has_no_preference_is_inferred():
    rng, slopes = np.random.default_rng(5), 3 * np.random.default_rng(6).standard_normal((60, 3))
    for ties, least, most in ((0.2, 0.2, 0.6), (4.0, 1.8, 2.4)):
        p = np.stack(davidson(slopes[:, 0] / 1.5, ties))
        said = np.array([rng.choice(3, p=p[:, n]) for n in range(60)])
        votes = Votes.of(np.where(said == 1, -1, 1)[:, None] * slopes, tied=np.where(said == 2, 1.0, -1.0))
        seen = impression(Mixture(SHARE), votes, LIKELIHOOD)
        assert least <= seen.ties <= most
        assert seen.taste.code[0] > 0.9


@pytest.mark.parametrize("prior", [Mixture(SHARE), Gaussian(np.zeros(3), np.eye(3))])
def test_nothing_changes_for_whoever_never_had_no_preference(prior: Mixture | Gaussian):
    """To the last bit, whatever the bundle says of ties."""
    votes = Votes.of(np.random.default_rng(7).standard_normal((20, 3)))
    one, other = (impression(prior, votes, replace(LIKELIHOOD, ties=ties)) for ties in (0.1, 9.0))
    assert (one.taste.code == other.taste.code).all()
    assert (one.familiar, one.ties) == (other.familiar, 0.0)


def test_ties_alone_change_no_wish_and_hide_no_change():
    """Twenty votes of one cluster and twelve of another, with ties between them, are a change; twelve ties are none."""
    rng, prior = np.random.default_rng(8), Mixture(np.full(4, 0.25))
    slopes = 6 * rng.choice([-1.0, 1.0], size=(48, 4))
    owner = np.where(np.arange(48) < 30, 0, 1)
    sign = np.sign(slopes[np.arange(48), owner])[:, None]
    none = np.arange(48) % 4 == 0
    changed = Votes.of(sign * slopes, tied=np.where(none, 1.0, -1.0))
    assert 20 <= outdated(changed, prior, LIKELIHOOD) <= 34
    steady = np.sign(slopes[:, :1]) * slopes
    tied_at_last = Votes.of(steady, tied=np.where(np.arange(48) >= 36, 1.0, -1.0))
    assert outdated(tied_at_last, prior, LIKELIHOOD) == 0


def in_world(seed: int) -> tuple[World, list[GivenVote]]:
    """Somebody of the first cluster who has no preference where the margin is small."""
    rng = np.random.default_rng(seed)
    world = World.drawn(rng)
    wants = world.bank.slopes[:, 0]
    votes = []
    for place in range(24):
        question = world.bank.questions[place].question_id
        first = None if abs(wants[place]) < 2 else bool(wants[place] > 0)
        votes.append(GivenVote(question, first, place * DAY_MS, kind="comparison" if first is not None else "tie"))
    return world, votes


def test_ties_tell_of_a_taste():
    """The same answers, with the ties and without them."""
    surer = []
    for seed in range(20):
        world, votes = in_world(seed)
        ties = [vote for vote in votes if vote.first is None]
        if not ties:
            continue
        few = votes[:6] + [vote for vote in votes[6:] if vote.first is None]
        chosen = [vote for vote in few if vote.first is not None]
        with_ties, without = (know(world.bank, world.user_model, said, {}) for said in (few, chosen))
        surer.append(float(with_ties.impression.taste.code[0] - without.impression.taste.code[0]))
    assert len(surer) > 15
    assert np.mean(surer) > 0


def test_thumbs_and_edits_are_choices_for_everybody():
    """Nobody can have no preference there: a tie on another pair does not make a thumb mean more."""
    world, votes = in_world(0)
    tie = next(vote for vote in votes if vote.first is None)
    thumbs = [replace(vote, kind="thumb") for vote in votes[:6] if vote.first is not None]
    known = know(world.bank, world.user_model, [tie, *thumbs], {})
    said = [tie, *(replace(vote, kind="comparison") for vote in thumbs)]
    other = know(world.bank, world.user_model, said, {})
    assert known.impression.ties != other.impression.ties


def test_the_last_answer_to_a_pair_counts_whatever_it_was():
    pair = "0123456789abcdef"
    one, none, other = (
        GivenVote(pair, True, 1, "1-0"),
        GivenVote(pair, None, 2, "2-0", "tie"),
        GivenVote(pair, False, 3, "3-0"),
    )
    assert counting([one, none]) == [none]
    assert counting([one, none, other]) == [other]
    assert counting([none, other, replace(none, given_ms=4)]) == [replace(none, given_ms=4)]


def test_who_has_had_no_preference_is_asked_what_three_answers_tell_most_of():
    world, votes = in_world(1)
    known = know(world.bank, world.user_model, [*votes[:4], GivenVote(votes[4].pair_id, None, 4, kind="tie")], {})
    prior, seen = believed(world.bank, world.user_model, known)
    assert seen.ties > 0
    answered = {vote.pair_id for vote in votes[:5]}
    table = replace(world.bank.table, tied=-np.ones(len(world.bank.questions)))
    gains = prior.gain(seen.taste, table, replace(world.bank.likelihood, noise=seen.noise, ties=seen.ties))
    open_ = [n for n, question in enumerate(world.bank.questions) if question.question_id not in answered]
    asked = ask(world.bank, prior, seen, answered)
    assert asked.question == world.bank.questions[max(open_, key=lambda n: gains[n])]
    assert asked.gain == pytest.approx(gains.max(where=np.isin(np.arange(len(gains)), open_), initial=0))
