"""Outdated votes: found when a wish has changed, left alone when it has not."""

import numpy as np
import pytest

from idiolect.inference.drift import LEAST_VOTES, outdated
from idiolect.inference.priors import Gaussian, Mixture, Simplex
from idiolect.votes import Likelihood, Votes

CENTER = np.full(4, 0.25)
PRIORS = {"mixture": Mixture(CENTER), "simplex": Simplex(CENTER, 2.0), "gaussian": Gaussian(np.zeros(4), np.eye(4))}
NOISY = Likelihood(temperature=1.0, noise=0.1)
ONE, OTHER = np.eye(4)[:2]


def votes(seed: int, z: np.ndarray, n: int, scale: float = 4.0) -> Votes:
    """n votes of a user at z who answers as the likelihood says."""
    rng = np.random.default_rng(seed)
    slopes = scale * rng.standard_normal((n, 4))
    agrees = rng.random(n) < NOISY.probability(slopes @ z)
    return Votes.of(np.where(agrees, 1, -1)[:, None] * slopes)


def believed(votes: Votes, name: str) -> np.ndarray:
    """The code from the votes that are not outdated."""
    rest = votes.slopes[outdated(votes, PRIORS[name], NOISY) :]
    return PRIORS[name].infer(Votes.of(rest), NOISY).code


@pytest.mark.parametrize("name", PRIORS)
def test_a_changed_wish_is_followed_sooner(name: str):
    """Sixteen votes after the change, against 24 before it: with and without putting votes aside."""
    followed, without = [], []
    for seed in range(60):
        both = np.concatenate([votes(seed, ONE, 24).slopes, votes(seed + 100, OTHER, 16).slopes])
        followed.append(believed(Votes.of(both), name)[:2].argmax() == 1)
        without.append(PRIORS[name].infer(Votes.of(both), NOISY).code[:2].argmax() == 1)
    assert np.mean(followed) >= np.mean(without) + {"mixture": 0.35, "simplex": 0.0, "gaussian": 0.15}[name]


@pytest.mark.parametrize("name", PRIORS)
def test_a_wish_that_stays_is_left_alone(name: str):
    alarms = [outdated(votes(seed, np.eye(4)[seed % 4], 32), PRIORS[name], NOISY) > 0 for seed in range(200)]
    assert np.mean(alarms) <= 0.05


@pytest.mark.parametrize("name", PRIORS)
def test_slips_in_a_row_change_nobody(name: str):
    """Four votes of another taste after 60 are slips, and so are four every now and then."""
    changed = []
    for seed in range(40):
        often = [votes(seed, ONE, 60).slopes, votes(seed + 100, OTHER, 4).slopes]
        changed.append(believed(Votes.of(np.concatenate(often)), name)[:2].argmax() == 1)
    assert np.mean(changed) <= 0.05


def test_few_votes_are_never_outdated():
    for n in range(LEAST_VOTES + 1):
        assert outdated(votes(0, ONE, n), PRIORS["mixture"], NOISY) == 0
