"""Who votes? How often they slip, whether they lean to one side, and whether they are anybody whom we know.

A vote says something of its user's taste only as far as it was meant. So the noise of each voter is summed out beside
the taste, and so is a habit of taking the reply that is shown first, or the other. Beside all tastes of the population
stand the stories of nobody we know: somebody whom the generic code predicts as well as any other, a coin, a voter of
one side, and one who wants the opposite of a taste. A user is served by a taste as far as that explains the votes.
"""

from dataclasses import dataclass, replace

import numpy as np

from idiolect.inference.priors import Prior
from idiolect.votes import Belief, Floats, Likelihood, Votes

NOISES = {0.02: 0.1, 0.1: 0.15, 0.2: 0.2, 0.35: 0.25, 0.5: 0.3}
"""Shares of votes that are not meant, and how probable each is before any vote: 0.5 is a quarter of all answers wrong.

With equal weights, people who slip so often were taken for others too soon (docs/results/newcomers.md).
"""
SIDED_NOISES = (0.2, 0.35, 0.5)
"""Of voters who take one side when they do not mean it; fewer such votes are not told from slips."""
SIDED = 0.1
"""Share of voters who lean to a side."""
FIRM = 0.97
"""How often a voter of one side takes it."""
UNFAMILIAR = 0.35
"""Prior probability of nobody we know. It is a price of errors rather than a census: see docs/results/newcomers.md."""
CONTRARY_NOISE = 0.1
STORIES = {"generic": 0.1, "coin": 0.525, "contrary": 0.175, "first": 0.1, "second": 0.1}
"""What nobody we know may be, and how probable each is among them."""


@dataclass(frozen=True)
class Impression:
    """What one user's votes say of the voter."""

    taste: Belief
    """Of the code, if the user's taste is one that we know."""
    familiar: float
    """P(it is one that we know)."""
    noise: float
    """Expected share of votes that were not meant, if it is."""
    first: float
    """Expected lean among those votes, from -1, always to the second side, to 1, always to the first."""

    def served(self, nothing: Belief) -> Belief:
        """Taste and ignorance together, as a code to be served; `nothing` is what is believed without votes."""
        codes = np.stack([self.taste.code, nothing.code])
        weights = np.array([self.familiar, 1 - self.familiar])
        return _together(weights, codes, np.stack([self.taste.covariance, nothing.covariance]))


def impression(prior: Prior, votes: Votes, likelihood: Likelihood) -> Impression:
    """What the votes [N, C] of one user say, of whom `prior` was believed before."""
    noises, leans, weights = voters(sided=bool(votes.shown_first.any()))
    each = of_voters(noises, leans, votes, likelihood)
    many = votes.over(len(noises))
    evidence = np.log(weights) + prior.evidence(many, each)
    total = np.logaddexp.reduce(evidence)
    p = np.exp(evidence - total)
    beliefs = prior.infer(many, each)
    unfamiliar = np.log(UNFAMILIAR) + _of_nobody(prior, votes, likelihood)
    familiar = np.log(1 - UNFAMILIAR) + total
    return Impression(
        _together(p, beliefs.code, beliefs.covariance),
        float(1 / (1 + np.exp(min(unfamiliar - familiar, 700.0)))),
        float(p @ noises),
        float(p @ leans),
    )


def voters(sided: bool) -> tuple[Floats, Floats, Floats]:
    """Noise [V], lean [V] (1 to the first side, -1 to the second, 0 to none) and prior probability [V] of voters.

    Where it is not known for any vote what was shown first, nobody leans.
    """
    kinds = [(noise, 0.0, (1 - SIDED if sided else 1.0) * weight) for noise, weight in NOISES.items()]
    if sided:
        kinds += [(noise, lean, SIDED / 2 / len(SIDED_NOISES)) for noise in SIDED_NOISES for lean in (1.0, -1.0)]
    noises, leans, weights = np.array(kinds).T
    return noises, leans, weights


def of_voters(noises: Floats, leans: Floats, votes: Votes, likelihood: Likelihood) -> Likelihood:
    """The likelihood of votes [..., N] for each of V voters, of margins [V, ..., N]."""
    axes = (slice(None), *[None] * votes.shown_first.ndim)
    careless = 0.5 + (FIRM - 0.5) * leans[axes] * votes.shown_first
    return replace(likelihood, noise=noises[axes], careless=careless)


def _of_nobody(prior: Prior, votes: Votes, likelihood: Likelihood) -> float:
    """log P(votes) of somebody whose taste is none that we know."""
    nothing = prior.infer(Votes.none(votes.slopes.shape[-1]), likelihood).code
    noises, leans, weights = voters(sided=False)
    each = of_voters(noises, leans, votes, likelihood)
    generic = (votes.weights * np.log(each.probability(votes.margins(nothing)))).sum(-1)
    side = 0.5 + (FIRM - 0.5) * votes.shown_first
    opposite = Votes(-votes.slopes, -votes.offsets, votes.weights, votes.shown_first)
    stories = {
        "generic": np.logaddexp.reduce(np.log(weights) + generic),
        "coin": np.log(0.5) * votes.weights.sum(),
        "contrary": prior.evidence(opposite, replace(likelihood, noise=CONTRARY_NOISE)),
        "first": (votes.weights * np.log(side)).sum(),
        "second": (votes.weights * np.log(1 - side)).sum(),
    }
    return float(np.logaddexp.reduce([np.log(STORIES[name]) + float(value) for name, value in stories.items()]))


def _together(weights: Floats, codes: Floats, covariances: Floats) -> Belief:
    """One belief of several [V, C], [V, C, C] of which each holds with its weight [V]."""
    code = np.asarray(weights @ codes, np.float64)
    away = codes - code
    spread = np.einsum("v,vc,vd->cd", weights, away, away)
    return Belief(code, np.einsum("v,vcd->cd", weights, covariances) + spread)
