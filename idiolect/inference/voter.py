"""Who votes? How often they slip, whether they lean to one side, and whether they are anybody whom we know.

A vote says something of its user's taste only as far as it was meant. So the noise of each voter is summed out beside
the taste, and so is a habit of taking the reply that is shown first, or the other. So is how readily somebody who has
had no preference has none. Whoever never had may never have been offered it: their choices say no more than that they
were chosen.

Beside all tastes of the population stand the stories of nobody we know: somebody whom the generic code predicts as well
as any other, a coin, a voter of one side, and one who wants the opposite of a taste. A user is served by a taste as far
as that explains the votes.
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
HABITS = {1 / 3: 1 / 3, 1.0: 1 / 3, 3.0: 1 / 3}
"""How readily somebody has no preference, in units of Likelihood.ties, and how probable each is before any vote."""
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
    ties: float
    """Expected Likelihood.ties of the voter; 0 of one who never had no preference."""

    def served(self, nothing: Belief) -> Belief:
        """Taste and ignorance together, as a code to be served; `nothing` is what is believed without votes."""
        codes = np.stack([self.taste.code, nothing.code])
        weights = np.array([self.familiar, 1 - self.familiar])
        return _together(weights, codes, np.stack([self.taste.covariance, nothing.covariance]))


@dataclass(frozen=True)
class Voters:
    """V voters: who one of them may be, before any vote."""

    noises: Floats  # [V]
    leans: Floats  # [V]: 1 to the first side, -1 to the second, 0 to none
    habits: Floats  # [V]: see HABITS
    weights: Floats  # [V]: prior probability

    @classmethod
    def of(cls, votes: Votes, sided: bool = True) -> "Voters":
        """Who may give such votes.

        Nobody leans where it is not known for any vote what was shown first, or unless `sided`.
        """
        sided = sided and bool(votes.shown_first.any())
        kinds = [(noise, 0.0, (1 - SIDED if sided else 1.0) * weight) for noise, weight in NOISES.items()]
        if sided:
            kinds += [(noise, lean, SIDED / 2 / len(SIDED_NOISES)) for noise in SIDED_NOISES for lean in (1.0, -1.0)]
        habits = _habits(votes)
        each = [(*kind, habit, weight * p) for *kind, weight in kinds for habit, p in habits.items()]
        noises, leans, of_habits, weights = np.array(each).T
        return cls(noises, leans, of_habits, weights)

    def likelihood(self, votes: Votes, likelihood: Likelihood) -> Likelihood:
        """That of votes [..., N] for each of the voters, of margins [V, ..., N]."""
        axes = (slice(None), *[None] * votes.shown_first.ndim)
        careless = 0.5 + (FIRM - 0.5) * self.leans[axes] * votes.shown_first
        return replace(likelihood, noise=self.noises[axes], careless=careless, ties=self.habits[axes] * likelihood.ties)


def impression(prior: Prior, votes: Votes, likelihood: Likelihood) -> Impression:
    """What the votes [N, C] of one user say, of whom `prior` was believed before."""
    voters = Voters.of(votes)
    each, many = voters.likelihood(votes, likelihood), votes.over(len(voters.weights))
    evidence = np.log(voters.weights) + prior.evidence(many, each)
    total = np.logaddexp.reduce(evidence)
    p = np.exp(evidence - total)
    beliefs = prior.infer(many, each)
    unfamiliar = np.log(UNFAMILIAR) + _of_nobody(prior, votes, likelihood)
    familiar = np.log(1 - UNFAMILIAR) + total
    return Impression(
        _together(p, beliefs.code, beliefs.covariance),
        float(1 / (1 + np.exp(min(unfamiliar - familiar, 700.0)))),
        float(p @ voters.noises),
        float(p @ voters.leans),
        float(p @ voters.habits * likelihood.ties) if votes.tied.any() else 0.0,
    )


def _habits(votes: Votes) -> dict[float, float]:
    """Where no preference is no answer, a habit of having none changes nothing."""
    return HABITS if votes.tied.any() else {1.0: 1.0}


def _of_nobody(prior: Prior, votes: Votes, likelihood: Likelihood) -> float:
    """log P(votes) of somebody whose taste is none that we know."""
    nothing = prior.infer(Votes.none(votes.slopes.shape[-1]), likelihood).code
    voters, habits = Voters.of(votes, sided=False), _habits(votes)
    weights = np.array(list(habits.values()))
    ties = np.array(list(habits))[:, None] * likelihood.ties
    many = votes.over(len(habits))

    def said(margins: Floats, likelihood: Likelihood) -> Floats:
        """log P(votes) at these margins for each of several likelihoods."""
        return np.asarray((votes.weights * np.log(likelihood.probability(margins, votes.tied))).sum(-1), np.float64)

    def careless(side: float) -> Floats:
        """That of somebody who means no vote, and takes the first with a probability of `side`."""
        first = 0.5 + (side - 0.5) * votes.shown_first
        return said(np.zeros_like(many.offsets), replace(likelihood, noise=1.0, careless=first, ties=ties))

    opposite = replace(many, slopes=-many.slopes, offsets=-many.offsets)
    generic = voters.likelihood(votes, likelihood)
    stories = {
        "generic": (voters.weights, said(votes.margins(nothing)[None], generic)),
        "coin": (weights, careless(0.5)),
        "contrary": (weights, prior.evidence(opposite, replace(likelihood, noise=CONTRARY_NOISE, ties=ties))),
        "first": (weights, careless(FIRM)),
        "second": (weights, careless(1 - FIRM)),
    }
    each = [np.log(STORIES[name]) + np.logaddexp.reduce(np.log(w) + value) for name, (w, value) in stories.items()]
    return float(np.logaddexp.reduce(each))


def _together(weights: Floats, codes: Floats, covariances: Floats) -> Belief:
    """One belief of several [V, C], [V, C, C] of which each holds with its weight [V]."""
    code = np.asarray(weights @ codes, np.float64)
    away = codes - code
    spread = np.einsum("v,vc,vd->cd", weights, away, away)
    return Belief(code, np.einsum("v,vcd->cd", weights, covariances) + spread)
