"""Inference of new users against brute force, an independent library and its own promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from idiolect.inference.priors import Gaussian, Mixture, Simplex, next_question
from idiolect.votes import Likelihood, Votes

EXACT = Likelihood(temperature=1.0, noise=0.0)
NOISY = Likelihood(temperature=0.7, noise=0.2)
K = 4
CENTER = np.array([0.4, 0.3, 0.2, 0.1])
PRIORS = {
    "mixture": Mixture(CENTER),
    "simplex": Simplex(CENTER, strength=8.0),
    "gaussian": Gaussian(np.full(K, 0.1), np.eye(K) * 0.5 + 0.1),
}


def draw_votes(seed: int, n: int, users: tuple[int, ...] = ()) -> Votes:
    rng = np.random.default_rng(seed)
    return Votes.of(2 * rng.standard_normal((*users, n, K)), rng.standard_normal((*users, n)))


def test_the_mixture_is_bayes_rule():
    votes = draw_votes(0, 5)
    found = PRIORS["mixture"].infer(votes, NOISY)
    by_hand = np.array(
        [CENTER[k] * np.prod(NOISY.probability(votes.offsets + votes.slopes @ np.eye(K)[k])) for k in range(K)]
    )
    assert found.code == pytest.approx(by_hand / by_hand.sum())


@pytest.mark.parametrize("likelihood", [EXACT, NOISY])
def test_the_blend_is_the_most_probable_one(likelihood):
    """Against every point of a fine grid over the simplex."""
    votes, prior = draw_votes(1, 12), Simplex(CENTER[:3] / CENTER[:3].sum(), 5.0)
    votes = Votes.of(votes.slopes[:, :3], votes.offsets)
    found = prior.infer(votes, likelihood).code
    steps = np.arange(1, 100) / 100
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b < 0.995])

    def posterior(w):
        p = likelihood.probability(votes.offsets + w @ votes.slopes.T)
        return np.log(p).sum(-1) + 5.0 * (np.log(w) * prior.center).sum(-1)

    assert posterior(found[None])[0] >= posterior(grid).max() - 1e-9
    assert found == pytest.approx(grid[posterior(grid).argmax()], abs=0.02)


def test_blends_have_the_evidence_that_sampled_ones_have():
    """Against the mean likelihood of 100,000 blends from the prior; mode and covariance without votes are exact."""
    rng, strength = np.random.default_rng(7), 4.0
    prior, blends = Simplex(CENTER, strength), np.maximum(rng.dirichlet((strength - 1) * CENTER, 100_000), 1e-12)
    nothing = prior.infer(Votes.none(K), NOISY)
    assert nothing.code == pytest.approx(CENTER)
    assert nothing.covariance == pytest.approx(np.cov(blends.T), abs=2e-3)
    errors = []
    for n in (2, 4, 8, 16):
        slopes = 3 * rng.standard_normal((n, K))
        agrees = rng.random(n) < NOISY.probability(slopes @ blends[n])
        votes = Votes.of(np.where(agrees, 1, -1)[:, None] * slopes)
        sampled = np.log(np.exp(np.log(NOISY.probability(blends @ votes.slopes.T)).sum(1)).mean())
        errors.append(float(prior.evidence(votes, NOISY)) - sampled)
    assert np.abs(errors).max() < 0.3


def test_the_point_is_what_another_library_finds():
    """Without noise and offsets this is logistic regression with an L2 penalty."""
    votes = Votes.of(draw_votes(2, 40).slopes)
    found = Gaussian(np.zeros(K), np.eye(K) * 0.5).infer(votes, EXACT).code
    x = np.concatenate([votes.slopes, -votes.slopes])
    y = np.repeat([1, 0], len(votes.slopes))
    other = LogisticRegression(C=0.25, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, y)  # each vote twice
    assert found == pytest.approx(other.coef_[0], abs=1e-5)


@pytest.mark.parametrize("name", PRIORS)
def test_covariance_is_the_curvature_of_the_posterior(name):
    """A sampled check of Laplace: with many votes the spread of estimates over data sets is what is claimed."""
    rng = np.random.default_rng(3)
    prior, true = PRIORS[name], np.array([0.25, 0.25, 0.25, 0.25])
    if name == "mixture":
        belief = prior.infer(draw_votes(3, 3), NOISY)
        draws = np.eye(K)[rng.choice(K, 200_000, p=belief.code)]
        assert np.cov(draws.T) == pytest.approx(belief.covariance, abs=0.01)
        return
    slopes = 2 * rng.standard_normal((300, 400, K))
    agrees = rng.random((300, 400)) < EXACT.probability(np.einsum("unk,k->un", slopes, true))
    votes = Votes.of(np.where(agrees, 1, -1)[..., None] * slopes)
    beliefs = prior.infer(votes, EXACT)
    assert np.cov(beliefs.code.T) == pytest.approx(beliefs.covariance.mean(0), rel=0.35, abs=2e-3)


@pytest.mark.parametrize("name", PRIORS)
def test_without_votes_a_user_is_the_population(name):
    prior = PRIORS[name]
    belief = prior.infer(Votes.of(np.zeros((0, K))), NOISY)
    assert belief.code == pytest.approx(prior.mean if name == "gaussian" else CENTER)


@pytest.mark.parametrize("name", PRIORS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
def test_order_and_weightless_votes_do_not_matter_and_users_are_apart(name, seed, n):
    prior, votes = PRIORS[name], draw_votes(seed, n, users=(3,))
    found = prior.infer(votes, NOISY)
    order = np.random.default_rng(seed).permutation(n)
    shuffled = Votes.of(votes.slopes[:, order], votes.offsets[:, order])
    assert prior.infer(shuffled, NOISY).code == pytest.approx(found.code, abs=1e-6)
    extra = draw_votes(seed + 1, 4, users=(3,))
    padded = Votes.of(
        np.concatenate([votes.slopes, extra.slopes], 1),
        np.concatenate([votes.offsets, extra.offsets], 1),
        np.concatenate([votes.weights, 0 * extra.weights], 1),
    )
    assert prior.infer(padded, NOISY).code == pytest.approx(found.code, abs=1e-6)
    alone = prior.infer(Votes.of(votes.slopes[1], votes.offsets[1]), NOISY)
    assert alone.code == pytest.approx(found.code[1], abs=1e-6)
    assert alone.covariance == pytest.approx(found.covariance[1], abs=1e-5)


@pytest.mark.parametrize("name", PRIORS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]))
def test_any_votes_give_a_code_that_can_be_served(name, seed, scale):
    votes = draw_votes(seed, 30)
    belief = PRIORS[name].infer(Votes.of(votes.slopes * scale, votes.offsets * scale), NOISY)
    assert np.isfinite(belief.code).all()
    assert np.isfinite(belief.covariance).all()
    if name != "gaussian":
        assert (belief.code >= 0).all()
        assert belief.code.sum() == pytest.approx(1)


def test_one_wrong_vote_moves_a_belief_only_so_far():
    prior = Mixture(np.array([0.5, 0.5]))
    right = np.tile([[3.0, -3.0]], (6, 1))
    belief = prior.infer(Votes.of(np.concatenate([right, [[-1000.0, 1000.0]]])), Likelihood(noise=0.05))
    assert belief.code[0] > 0.99


def test_the_gain_is_the_mutual_information_of_answer_and_cluster():
    questions = draw_votes(4, 6)
    belief = PRIORS["mixture"].infer(draw_votes(5, 2), NOISY)
    p = NOISY.probability(questions.offsets[:, None] + questions.slopes)
    joint = np.stack([p * belief.code, (1 - p) * belief.code])  # answer, question, cluster
    independent = joint.sum(0, keepdims=True) * joint.sum(2, keepdims=True)
    by_hand = (joint * np.log(joint / independent)).sum((0, 2))
    assert PRIORS["mixture"].gain(belief, questions, NOISY) == pytest.approx(by_hand)


@pytest.mark.parametrize("name", ["simplex", "gaussian"])
def test_questions_along_what_is_unsure_gain_most(name):
    prior = PRIORS[name]
    belief = prior.infer(Votes.of(np.tile([4.0, -4.0, 0, 0], (20, 1))), EXACT)
    known, unknown = prior.gain(belief, Votes.of(np.array([[2.0, -2, 0, 0], [0, 0, 2, -2]])), EXACT)
    assert unknown > known > 0
    assert belief.spread < prior.infer(Votes.of(np.zeros((0, K))), EXACT).spread


def test_no_question_twice_and_none_that_is_not_worth_it():
    gains = np.array([0.1, 0.5, 0.3])
    asked = np.zeros(3, bool)
    assert next_question(gains, asked, 0.05) == 1
    asked[1] = True
    assert next_question(gains, asked, 0.05) == 2
    assert next_question(gains, asked, 0.4) is None
    assert next_question(gains[:0], asked[:0], 0.0) is None


@pytest.mark.parametrize("name", PRIORS)
def test_evidence_is_the_integral_over_users(name):
    """Against a Monte Carlo mean over the prior; Laplace's method is half a nat near it for a few votes."""
    prior, votes = PRIORS[name], draw_votes(8, 4)
    rng = np.random.default_rng(0)
    users = {
        "mixture": lambda: np.eye(K)[rng.choice(K, size=200_000, p=CENTER)],
        "simplex": lambda: rng.dirichlet(1 + prior.strength * prior.center, size=200_000),
        "gaussian": lambda: rng.multivariate_normal(prior.mean, prior.covariance, size=200_000),
    }[name]()
    each = NOISY.probability(votes.offsets + users @ votes.slopes.T).prod(-1)
    exact = name == "mixture"
    assert prior.evidence(Votes.none(K), NOISY) == pytest.approx(0)
    assert prior.evidence(votes, NOISY) == pytest.approx(np.log(each.mean()), abs=0.02 if exact else 0.5)


@pytest.mark.parametrize("name", PRIORS)
def test_predictions_are_calibrated_for_the_population(name):
    """P(vote) averaged over what a belief is unsure of is how often such votes happen."""
    prior, rng = PRIORS[name], np.random.default_rng(1)
    ratios = []
    for seed in range(300):
        user = {
            "mixture": lambda: np.eye(K)[rng.choice(K, p=CENTER)],
            "simplex": lambda: rng.dirichlet(1 + prior.strength * prior.center),
            "gaussian": lambda: rng.multivariate_normal(prior.mean, prior.covariance),
        }[name]()
        votes = draw_votes(seed, 9)
        happened = rng.random(9) < NOISY.probability(votes.offsets + votes.slopes @ user)
        signs = np.where(happened, 1, -1)
        seen = Votes.of(signs[:5, None] * votes.slopes[:5], signs[:5] * votes.offsets[:5])
        new = Votes.of(votes.slopes[5:], votes.offsets[5:])
        ratios.append(happened[5:].mean() - prior.predict(prior.infer(seen, NOISY), new, NOISY).mean())
    assert np.mean(ratios) == pytest.approx(0, abs=4 * np.std(ratios) / np.sqrt(len(ratios)) + 0.01)


@pytest.mark.parametrize("name", PRIORS)
def test_draws_are_users_that_the_belief_allows(name):
    prior, rng = PRIORS[name], np.random.default_rng(2)
    belief = prior.infer(draw_votes(9, 3), NOISY)
    drawn = np.array([prior.draw(belief, rng).code for _ in range(3000)])
    assert drawn.mean(0) == pytest.approx(belief.code, abs=0.12)
    if name != "gaussian":
        assert drawn.min() >= 0
        assert drawn.sum(1) == pytest.approx(1)
