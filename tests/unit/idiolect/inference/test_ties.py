"""No preference as an answer: Davidson's ties by hand, and the priors against numerical integration."""

from dataclasses import replace

import numpy as np
import pytest

from idiolect.inference.priors import Gaussian, Mixture, Simplex
from idiolect.votes import Likelihood, Votes, davidson

LIKELIHOOD = Likelihood(temperature=1.5, noise=0.1, ties=0.8)
SHARE = np.array([0.5, 0.3, 0.2])
MARGINS = np.linspace(-9, 9, 37)


def drawn(seed: int, n: int, n_coordinates: int) -> Votes:
    """A third of them ties; for some no preference was no answer."""
    rng = np.random.default_rng(seed)
    tied = rng.choice([1.0, -1.0, 0.0], size=n)
    tied[0] = 1.0
    return Votes.of(
        2 * rng.standard_normal((n, n_coordinates)), rng.standard_normal(n), rng.uniform(0.5, 1, n), tied=tied
    )


def test_answers_are_as_davidson_has_them():
    """In the words of the model: e^m/2 : e^-m/2 : ties; careless ones are those of a margin of zero."""
    first, second, tie = LIKELIHOOD.answers(MARGINS, np.array(1.0))
    odds = np.stack([np.exp(MARGINS / 3), np.exp(-MARGINS / 3), np.full(len(MARGINS), 0.8)])
    meant = odds / odds.sum(0)
    careless = np.array([1, 1, 0.8]) / 2.8
    assert np.stack([first, second, tie]) == pytest.approx(0.9 * meant + 0.1 * careless[:, None])
    assert first + second + tie == pytest.approx(1)
    exact = replace(LIKELIHOOD, noise=0.0)
    first, second, _ = exact.answers(MARGINS, np.array(-1.0))
    assert first / (first + second) == pytest.approx(exact.probability(MARGINS))


@pytest.mark.parametrize("tied", [0.0, 1.0])
def test_slopes_are_derivatives(tied: float):
    leaning, step = replace(LIKELIHOOD, careless=0.8), 1e-5
    ahead, behind = (leaning.answers(MARGINS + sign * step, np.array(tied)) for sign in (1, -1))
    assert leaning.slopes(MARGINS, np.array(tied)) == pytest.approx((ahead - behind) / (2 * step), abs=1e-8)


def test_margins_of_any_size_have_answers():
    each = davidson(np.array([-1e6, -800.0, 0.0, 800.0, 1e6]), 3.0)
    assert np.isfinite(each).all()
    assert np.sum(each, 0) == pytest.approx(1)
    assert each[2] == pytest.approx([0, 0, 0.6, 0, 0])


@pytest.mark.parametrize("seed", range(5))
def test_a_gaussian_belief_is_the_integral(seed: int):
    """Mode on a grid; evidence, mean and variance by quadrature, which Laplace's method comes near."""
    prior, votes = Gaussian(np.array([0.3]), np.array([[1.5]])), drawn(seed, 6, 1)
    z = np.linspace(-8, 8, 20_001)
    p = LIKELIHOOD.probability(votes.offsets + z[:, None] * votes.slopes[:, 0], votes.tied)
    density = np.exp((votes.weights * np.log(p)).sum(1) - (z - 0.3) ** 2 / 3) / np.sqrt(2 * np.pi * 1.5)
    total = np.trapezoid(density, z)
    found = prior.infer(votes, LIKELIHOOD)
    assert found.code[0] == pytest.approx(z[density.argmax()], abs=2e-3)
    assert float(prior.evidence(votes, LIKELIHOOD)) == pytest.approx(np.log(total), abs=0.35)
    mean = np.trapezoid(z * density, z) / total
    spread = np.sqrt(np.trapezoid((z - mean) ** 2 * density, z) / total)
    assert found.code[0] == pytest.approx(mean, abs=0.5 * spread)
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize("seed", range(5))
def test_a_blend_is_the_most_probable_one(seed: int):
    prior, votes = Simplex(np.array([0.6, 0.4]), 5.0), drawn(seed, 6, 2)
    first = np.linspace(1e-4, 1 - 1e-4, 20_001)
    w = np.stack([first, 1 - first], 1)
    p = LIKELIHOOD.probability(votes.offsets + w @ votes.slopes.T, votes.tied)
    density = (votes.weights * np.log(p)).sum(1) + 5 * np.log(w) @ prior.center
    assert prior.infer(votes, LIKELIHOOD).code == pytest.approx(w[density.argmax()], abs=1e-3)


@pytest.mark.parametrize("prior", [Simplex(SHARE, 6.0), Gaussian(np.full(3, 0.1), np.eye(3) * 0.7)])
def test_the_curvature_is_fishers(prior: Simplex | Gaussian):
    """What a vote is expected to tell does not depend on how it came out: ties and choices are of one question."""
    questions = drawn(1, 40, 3)
    asked = replace(questions, tied=-np.ones(40))
    beliefs = prior.infer(asked, LIKELIHOOD)
    p, slopes = (f(asked.margins(beliefs.code), asked.tied) for f in (LIKELIHOOD.answers, LIKELIHOOD.slopes))
    expected = np.einsum("n,nc,nd->cd", asked.weights * (slopes**2 / p).sum(0), asked.slopes, asked.slopes)
    if isinstance(prior, Gaussian):
        inverse = np.linalg.inv(expected + np.linalg.inv(prior.covariance))
        assert beliefs.covariance == pytest.approx(inverse)
    tied = prior.infer(replace(asked, tied=np.ones(40)), LIKELIHOOD)
    assert np.isfinite(tied.code).all()
    assert np.linalg.eigvalsh(tied.covariance).min() >= -1e-12


def test_what_a_question_promises_is_the_mutual_information_of_three_answers():
    rng, prior = np.random.default_rng(2), Mixture(SHARE)
    questions = Votes.of(3 * rng.standard_normal((6, 3)), tied=-np.ones(6))
    belief = prior.infer(drawn(3, 2, 3), LIKELIHOOD)
    joint = LIKELIHOOD.answers(questions.slopes, questions.tied[:, None]) * belief.code  # answer, question, cluster
    independent = joint.sum(0, keepdims=True) * joint.sum(2, keepdims=True)
    by_hand = (joint * np.log(joint / independent)).sum((0, 2))
    assert prior.gain(belief, questions, LIKELIHOOD) == pytest.approx(by_hand)
    gaussian = Gaussian(np.zeros(1), np.eye(1) * 2)
    z = np.linspace(-9, 9, 4001)
    weights = np.exp(-(z**2) / 4) / np.exp(-(z**2) / 4).sum()
    margins = np.array([[0.5], [2.0]]) * z
    p = LIKELIHOOD.answers(margins, np.array(-1.0))
    entropy = lambda p: -(p * np.log(p)).sum(0)  # noqa: E731
    by_hand = entropy(p @ weights) - entropy(p) @ weights
    questions = Votes.of(np.array([[0.5], [2.0]]), tied=-np.ones(2))
    assert gaussian.gain(gaussian.infer(Votes.none(1), LIKELIHOOD), questions, LIKELIHOOD) == pytest.approx(
        by_hand, abs=2e-3
    )
