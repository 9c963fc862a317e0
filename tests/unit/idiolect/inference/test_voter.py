"""Doubt about the voter: slips, sides and strangers, by hand and by simulated people."""

import itertools

import numpy as np
import pytest

from bench.people.newcomers import stranger
from bench.people.world import Newcomer, World
from idiolect.inference.priors import Gaussian, Mixture
from idiolect.inference.voter import CONTRARY_NOISE, FIRM, NOISES, SIDED, SIDED_NOISES, STORIES, UNFAMILIAR, impression
from idiolect.learning import DAILY_WEIGHT, LEAST_VOTES_TO_DOUBT, MAX_DAILY_VOTES, ask, believed
from idiolect.votes import Likelihood, Votes

SHARE = np.array([0.5, 0.3, 0.2])
LIKELIHOOD = Likelihood(temperature=2.0)


def by_hand(votes: Votes) -> tuple[np.ndarray, float]:
    """P(cluster), if it is one that we know; and P(it is one), by going through all that may be, vote by vote."""

    def p(margin: float, noise: float, lean: float, shown: float) -> float:
        meant = 1 / (1 + np.exp(-margin / LIKELIHOOD.temperature))
        return (1 - noise) * meant + noise * (0.5 + (FIRM - 0.5) * lean * shown)

    def product(margins: np.ndarray, noise: float, lean: float) -> float:
        return float(np.prod([p(*one) for one in zip(margins, [noise] * 99, [lean] * 99, votes.shown_first)]))  # noqa: B905

    margins = votes.offsets[:, None] + votes.slopes
    kinds = [(noise, 0.0, (1 - SIDED) * weight) for noise, weight in NOISES.items()]
    leaning = itertools.product(SIDED_NOISES, (1.0, -1.0))
    kinds += [(noise, lean, SIDED / 2 / len(SIDED_NOISES)) for noise, lean in leaning]
    each = [
        share * sum(weight * product(margins[:, k], noise, lean) for noise, lean, weight in kinds)
        for k, share in enumerate(SHARE)
    ]
    generic = margins @ SHARE
    side = 0.5 + (FIRM - 0.5) * votes.shown_first
    stories = {
        "generic": sum(weight * product(generic, noise, 0) for noise, weight in NOISES.items()),
        "coin": 0.5 ** len(generic),
        "contrary": sum(share * product(-margins[:, k], CONTRARY_NOISE, 0) for k, share in enumerate(SHARE)),
        "first": np.prod(side),
        "second": np.prod(1 - side),
    }
    familiar = (1 - UNFAMILIAR) * sum(each)
    nobody = UNFAMILIAR * sum(STORIES[name] * value for name, value in stories.items())
    return np.array(each) / sum(each), familiar / (familiar + nobody)


def test_it_is_bayes_rule_over_all_that_may_be():
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(1, 7))
        shown = rng.choice([-1.0, 1.0, 0.0], size=n)
        shown[0] = 1.0  # of one at least it is known
        votes = Votes.of(5 * rng.standard_normal((n, 3)), rng.standard_normal(n), shown_first=shown)
        seen, (taste, familiar) = impression(Mixture(SHARE), votes, LIKELIHOOD), by_hand(votes)
        assert seen.taste.code == pytest.approx(taste)
        assert seen.familiar == pytest.approx(familiar)


def test_taste_and_ignorance_are_served_together():
    """Code and covariance are those of users drawn from the taste as often as it is familiar, else from the prior."""
    rng = np.random.default_rng(1)
    prior = Gaussian(np.zeros(2), np.eye(2))
    seen = impression(prior, Votes.of(3 * rng.standard_normal((6, 2))), LIKELIHOOD)
    nothing = prior.infer(Votes.none(2), LIKELIHOOD)
    draws = np.where(
        rng.random((200_000, 1)) < seen.familiar,
        rng.multivariate_normal(seen.taste.code, seen.taste.covariance, 200_000),
        rng.multivariate_normal(nothing.code, nothing.covariance, 200_000),
    )
    served = seen.served(nothing)
    assert served.code == pytest.approx(draws.mean(0), abs=0.01)
    assert served.covariance == pytest.approx(np.cov(draws.T), abs=0.02)


def people(name: str, n_votes: int, n_users: int = 25) -> list[Newcomer]:
    """As many users of that name (bench/people/newcomers.py), after so many votes."""
    rng, found = np.random.default_rng(2), []
    for _ in range(n_users):
        world = World.drawn(rng)
        user = Newcomer(world, stranger(name, world, rng)[0], rng)
        for _ in range(n_votes):
            user.answer(user.any_())
        found.append(user)
    return found


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("slips 0 %", 0, 0), ("slips 10 %", 0, 0.1), ("always first", 0.95, 1), ("contrarian", 0.95, 1)],
)
def test_nobody_we_know_is_told_from_somebody(name: str, least: float, most: float):
    found = people(name, 16)
    assert least <= np.mean([not user.known.explained for user in found]) <= most
    for user in found:
        if not user.known.explained:
            assert user.known.code == pytest.approx([0.23] * 4 + [0.04] * 2)
            assert user.known.uncertainty == 1


def test_a_coin_leaves_more_open_than_an_honest_user():
    """However many votes."""
    coins, honest = people("coin", 32), people("slips 0 %", 32)
    assert min(user.known.uncertainty for user in coins) > max(user.known.uncertainty for user in honest)
    assert np.mean([user.known.explained for user in coins]) < 0.25


def test_few_votes_are_no_reason_to_doubt():
    assert all(user.known.explained for user in people("coin", LEAST_VOTES_TO_DOUBT - 1))


def test_how_often_users_slip_and_where_they_lean_is_inferred():
    clean, careless = ([user.known.impression.noise for user in people(f"slips {n} %", 32)] for n in (0, 25))
    assert np.mean(careless) > 0.35 > 0.1 > np.mean(clean)
    for name, expected in (("slips 0 %", 0.0), ("always first", 0.8)):
        assert np.mean([user.known.impression.first for user in people(name, 32)]) == pytest.approx(expected, abs=0.2)


def test_nothing_is_asked_of_somebody_who_is_known():
    for user in people("slips 0 %", 24, 5):
        prior, seen = believed(user.world.bank, user.world.user_model, user.known)
        assert ask(user.world.bank, prior, seen, ()).reason == "nothing_worth_asking"
        assert user.best() is None


def test_a_day_weighs_no_more_than_another_however_many_votes_it_has():
    """Twelve votes for one taste on twelve days, then a flood for another on one."""
    rng = np.random.default_rng(3)
    world = World.drawn(rng, n=12 + MAX_DAILY_VOTES, size=0.3)
    old, new = (world.of_cluster(cluster, 0, rng) for cluster in (0, 1))
    votes = [world.vote(place, old(place, True), place) for place in range(12)]
    flood = [world.vote(place, new(place, True), 12) for place in range(12, 12 + MAX_DAILY_VOTES)]
    spread = [world.vote(place, new(place, True), place) for place in range(12, 12 + MAX_DAILY_VOTES)]
    assert world.known(votes + flood).uncertainty > world.known(votes + spread).uncertainty
    few = world.known(votes + spread[: int(DAILY_WEIGHT)])
    assert world.known(votes + flood).uncertainty == pytest.approx(few.uncertainty, abs=0.1)
