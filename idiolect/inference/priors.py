"""What votes say about a user: posteriors over user codes, how sure they are, and the next best question.

A vote is known here only by its margins: how much more the reward of `chosen` is than that of `rejected` under each
code, or of one reply than of the other where neither was preferred. They do not depend on the user, so a table of them
answers for everybody, without the model. Everything is a pure function of (votes, prior, likelihood), in numpy, for one
user or for many: leading axes are users, and a vote of weight 0 was never given. Votes may come in any order.

Three priors, for the three ways in which a trained population can look:

    Mixture   a user is one of K clusters, and it is unsure which:      code = P(k | votes)
    Simplex   a user is a blend of K clusters, around the generic weights:  code = the most probable blend
    Gaussian  a user is a point in the space of trained offsets:        code = the most probable point

The last two take margins to be linear in the code, m(code) = offset + slopes . code, and are as sure as the curvature
at the mode says (Laplace).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from idiolect.votes import Belief, Floats, Likelihood, Votes, chosen_of

MAX_STEPS = 50
TOLERANCE = 1e-9
SMALLEST = 1e-9
"""Weights of a blend stay above this."""
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(12)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()
"""Quadrature of a standard normal."""


class Prior(Protocol):
    """The trained population, as a prior for a new user."""

    def infer(self, votes: Votes, likelihood: Likelihood) -> Belief:
        """The posterior."""
        ...

    def predict(self, belief: Belief, votes: Votes, likelihood: Likelihood) -> Floats:
        """P(vote) of each of the votes, [..., N], averaged over what `belief` is unsure of."""
        ...

    def gain(self, belief: Belief, questions: Votes, likelihood: Likelihood) -> Floats:
        """Expected information, in nats, of the answer to each of n questions, [n]; `belief` is of one user.

        Where `questions.tied` is not 0, no preference is an answer too.
        """
        ...

    def evidence(self, votes: Votes, likelihood: Likelihood) -> Floats:
        """log P(all the votes) of a user of whom nothing else is known, [...]."""
        ...

    def draw(self, belief: Belief, generator: np.random.Generator) -> Belief:
        """One user, at random, that `belief` takes for possible."""
        ...

    def sure(self, belief: Belief) -> float:
        """The probability that the code of `belief` is the user's; 0 where users are points, and none is ever met."""
        ...


@dataclass(frozen=True)
class Mixture:
    """A user is one of K clusters, cluster k with probability `share[k]`; margins are those of single clusters."""

    share: Floats  # [K]

    def infer(self, votes: Votes, likelihood: Likelihood) -> Belief:
        """P(k | votes), by Bayes' rule."""
        evidence = self._joint(votes, likelihood)
        code = np.exp(evidence - evidence.max(-1, keepdims=True))
        code /= code.sum(-1, keepdims=True)
        return Belief(code, code[..., None] * np.eye(len(self.share)) - code[..., None] * code[..., None, :])

    def predict(self, belief: Belief, votes: Votes, likelihood: Likelihood) -> Floats:
        return np.asarray(np.einsum("...nk,...k->...n", self._each(votes, likelihood), belief.code), np.float64)

    def gain(self, belief: Belief, questions: Votes, likelihood: Likelihood) -> Floats:
        """BALD (Houlsby et al. 2011): entropy of the expected answer minus expected entropy of the answer."""
        margins = questions.offsets[..., None] + questions.slopes
        each = likelihood.columns.answers(margins, questions.tied[..., None])
        return _entropy(each @ belief.code) - _entropy(each) @ belief.code

    def evidence(self, votes: Votes, likelihood: Likelihood) -> Floats:
        return np.asarray(np.logaddexp.reduce(self._joint(votes, likelihood), axis=-1), np.float64)

    def _joint(self, votes: Votes, likelihood: Likelihood) -> Floats:
        """log P(k and the votes), [..., K]."""
        each = np.log(self._each(votes, likelihood))
        return np.asarray(np.log(self.share) + np.einsum("...n,...nk->...k", votes.weights, each), np.float64)

    def _each(self, votes: Votes, likelihood: Likelihood) -> Floats:
        """P(vote) for each cluster, [..., N, K]."""
        return likelihood.columns.probability(votes.offsets[..., None] + votes.slopes, votes.tied[..., None])

    def draw(self, belief: Belief, generator: np.random.Generator) -> Belief:
        cluster = generator.choice(len(self.share), p=belief.code)
        return Belief(np.eye(len(self.share))[cluster], np.zeros_like(belief.covariance))

    def sure(self, belief: Belief) -> float:
        return float(belief.code.max())


@dataclass(frozen=True)
class Simplex:
    """A user is a blend w of K clusters, w = softmax(x); P(x) is that of w ~ Dirichlet(`strength` * `center`).

    Laplace's method is used on x, which has no edges: without votes the most probable blend is `center`, the generic
    weights, and its covariance is (diag(center) - center center') / strength.
    """

    center: Floats  # [K]
    strength: float

    def infer(self, votes: Votes, likelihood: Likelihood) -> Belief:
        """The most probable blend, by Newton steps along the simplex; concave when noise is 0."""
        pull = self.strength * self.center

        def value(w: Floats) -> Floats:
            density: Floats = _log_likelihood(votes, w, likelihood) + (pull * np.log(w)).sum(-1)
            return density

        w: Floats = np.broadcast_to(self.center, (*votes.weights.shape[:-1], len(self.center))).copy()
        for _ in range(MAX_STEPS):
            gradient, curvature = _expand(votes, w, likelihood)
            step: Floats = np.einsum("...ij,...j->...i", _along_simplex(curvature, pull, w), gradient + pull / w)
            # Far enough from the edge that no weight is lost.
            shrinking = np.where(step < 0, w / np.where(step < 0, -step, 1), np.inf).min(-1)
            length: Floats = np.minimum(1.0, 0.95 * shrinking)[..., None]
            moved: Floats = _climb(value, w, step, length)
            moved = np.maximum(moved, SMALLEST)
            moved /= moved.sum(-1, keepdims=True)
            change = np.abs(moved - w).max(initial=0)
            w = moved
            if change < TOLERANCE:
                break
        _, curvature = _expand(votes, w, likelihood)
        return Belief(w, _along_simplex(curvature, pull, w))

    def evidence(self, votes: Votes, likelihood: Likelihood) -> Floats:
        """By Laplace's method, so scaled that no votes have P = 1."""
        nothing = self._density(Votes.none(len(self.center)), Likelihood())
        return np.asarray(self._density(votes, likelihood) - nothing, np.float64)

    def _density(self, votes: Votes, likelihood: Likelihood) -> Floats:
        belief, k, pull = self.infer(votes, likelihood), len(self.center), self.strength * self.center
        # Of x: along the simplex its volume is that of w over the product of the weights.
        density = ((pull - 1) * np.log(belief.code)).sum(-1) + _log_likelihood(votes, belief.code, likelihood)
        # The determinant along the simplex: its covariance is zero across, where we put a one.
        along = belief.covariance + np.full((k, k), 1 / k)
        return np.asarray(density + np.linalg.slogdet(along)[1] / 2, np.float64)

    def draw(self, belief: Belief, generator: np.random.Generator) -> Belief:
        w = np.maximum(_gaussian_draw(belief, generator), SMALLEST)
        return Belief(w / w.sum(), np.zeros_like(belief.covariance))

    def sure(self, belief: Belief) -> float:
        return 0.0

    def predict(self, belief: Belief, votes: Votes, likelihood: Likelihood) -> Floats:
        return _gaussian_prediction(belief, votes, likelihood)

    def gain(self, belief: Belief, questions: Votes, likelihood: Likelihood) -> Floats:
        return _gaussian_gain(belief, questions, likelihood)


@dataclass(frozen=True)
class Gaussian:
    """A user is a point z ~ N(`mean`, `covariance`): Bayesian logistic regression."""

    mean: Floats  # [C]
    covariance: Floats  # [C, C]

    def infer(self, votes: Votes, likelihood: Likelihood) -> Belief:
        """The most probable point, by damped Newton steps."""
        precision = np.linalg.inv(self.covariance)

        def value(z: Floats) -> Floats:
            away = z - self.mean
            squares: Floats = np.einsum("...i,ij,...j->...", away, precision, away)
            return _log_likelihood(votes, z, likelihood) - squares / 2

        z: Floats = np.broadcast_to(self.mean, (*votes.weights.shape[:-1], len(self.mean))).copy()
        for _ in range(MAX_STEPS):
            gradient, curvature = _expand(votes, z, likelihood)
            gradient = gradient - (z - self.mean) @ precision
            step = np.asarray(np.linalg.solve(curvature + precision, gradient[..., None])[..., 0], np.float64)
            moved: Floats = _climb(value, z, step, np.ones((*z.shape[:-1], 1)))
            change = np.abs(moved - z).max(initial=0)
            z = moved
            if change < TOLERANCE:
                break
        _, curvature = _expand(votes, z, likelihood)
        return Belief(z, np.linalg.inv(curvature + precision))

    def evidence(self, votes: Votes, likelihood: Likelihood) -> Floats:
        """By Laplace's method."""
        belief = self.infer(votes, likelihood)
        away = belief.code - self.mean
        squares = np.einsum("...i,ij,...j->...", away, np.linalg.inv(self.covariance), away)
        shrinkage = np.linalg.slogdet(belief.covariance)[1] - np.linalg.slogdet(self.covariance)[1]
        log_likelihood = _log_likelihood(votes, belief.code, likelihood)
        return np.asarray(log_likelihood - squares / 2 + shrinkage / 2, np.float64)

    def draw(self, belief: Belief, generator: np.random.Generator) -> Belief:
        return Belief(_gaussian_draw(belief, generator), np.zeros_like(belief.covariance))

    def sure(self, belief: Belief) -> float:
        return 0.0

    def predict(self, belief: Belief, votes: Votes, likelihood: Likelihood) -> Floats:
        return _gaussian_prediction(belief, votes, likelihood)

    def gain(self, belief: Belief, questions: Votes, likelihood: Likelihood) -> Floats:
        return _gaussian_gain(belief, questions, likelihood)


def next_question(gains: Floats, asked: NDArray[np.bool_], least_gain: float) -> int | None:
    """The question of greatest expected gain that was not asked before; None when none promises `least_gain` nats."""
    open_ = np.where(asked, -np.inf, gains)
    best = int(open_.argmax()) if len(open_) else -1
    return best if best >= 0 and open_[best] >= least_gain else None


def _expand(votes: Votes, codes: Floats, likelihood: Likelihood) -> tuple[Floats, Floats]:
    """Gradient [..., C] of the log-likelihood, and its expected curvature [..., C, C] (Fisher, never negative)."""
    margins = votes.margins(codes)
    p, slopes = likelihood.answers(margins, votes.tied), likelihood.slopes(margins, votes.tied)
    ratio = np.divide(slopes, p, out=np.zeros_like(p), where=p > 0)  # no preference may be no answer
    gradient = np.einsum("...n,...nc->...c", votes.weights * chosen_of(ratio, votes.tied), votes.slopes)
    fisher = votes.weights * (ratio * slopes).sum(0)
    return gradient, np.einsum("...n,...nc,...nd->...cd", fisher, votes.slopes, votes.slopes)


def _log_likelihood(votes: Votes, codes: Floats, likelihood: Likelihood) -> Floats:
    each = np.log(likelihood.probability(votes.margins(codes), votes.tied))
    return np.asarray((votes.weights * each).sum(-1), np.float64)


def _climb(value: Callable[[Floats], Floats], start: Floats, step: Floats, length: Floats) -> Floats:
    """`start` + `length` * `step`, the length halved for whom it would go down, until it does not."""
    before = value(start)
    for _ in range(30):
        worse = ~(value(start + length * step) >= before - TOLERANCE)
        if not worse.any():
            break
        length = np.where(worse[..., None], length / 2, length)
    else:
        length = np.where(worse[..., None], 0, length)
    return start + length * step


def _along_simplex(curvature: Floats, pull: Floats, w: Floats) -> Floats:
    """Inverse of `curvature` + diag(pull / w^2) on the directions that sum to zero, [..., K, K].

    In units of w, in which it is well conditioned where a weight is nearly 0.
    """
    scaled = np.linalg.inv(w[..., :, None] * curvature * w[..., None, :] + _diagonal(pull))
    across = np.einsum("...ij,...j->...i", scaled, w)
    share = np.einsum("...i,...i->...", across, w)[..., None, None]
    inside = scaled - across[..., :, None] * across[..., None, :] / share
    return np.asarray(w[..., :, None] * inside * w[..., None, :], np.float64)


def _at_nodes(belief: Belief, votes: Votes) -> Floats:
    """Margins that are Gaussian, at the nodes of the quadrature, [..., N, 12]."""
    variance = np.einsum("...nc,...cd,...nd->...n", votes.slopes, belief.covariance, votes.slopes, optimize=True)
    deviation = np.sqrt(np.maximum(variance, 0))
    return np.asarray(votes.margins(belief.code)[..., None] + deviation[..., None] * NODES, np.float64)


def _gaussian_prediction(belief: Belief, votes: Votes, likelihood: Likelihood) -> Floats:
    each = likelihood.columns.probability(_at_nodes(belief, votes), votes.tied[..., None])
    return np.asarray(each @ NODE_WEIGHTS, np.float64)


def _gaussian_gain(belief: Belief, questions: Votes, likelihood: Likelihood) -> Floats:
    """BALD for margins that are Gaussian, by Gauss-Hermite quadrature."""
    each = likelihood.columns.answers(_at_nodes(belief, questions), questions.tied[..., None])
    return _entropy(each @ NODE_WEIGHTS) - _entropy(each) @ NODE_WEIGHTS


def _gaussian_draw(belief: Belief, generator: np.random.Generator) -> Floats:
    return np.asarray(generator.multivariate_normal(belief.code, belief.covariance, check_valid="ignore"), np.float64)


def _diagonal(values: Floats) -> Floats:
    return np.asarray(values[..., None] * np.eye(values.shape[-1]), np.float64)


def _entropy(p: Floats) -> Floats:
    """Of an answer whose probabilities are [2 or 3, ...], in nats, [...]."""
    p = np.maximum(p, 1e-300)
    return np.asarray(-(p * np.log(p)).sum(0), np.float64)
