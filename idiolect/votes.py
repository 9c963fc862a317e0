"""Votes as margins, what they mean, and what is believed of users after them. All numpy, for one user or for many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


CHOICE = np.zeros(())
"""`tied` of votes where no preference was no answer."""
DEFAULT_TIES = 1.0
"""Of a bundle whose trained users never had no preference: without any reason, each of three answers is as likely."""


@dataclass(frozen=True)
class Likelihood:
    """How probable each answer to a pair is, given its margin m in nats: the first reply, the other, or no preference.

    Where no preference is no answer, P(first) = (1 - noise) sigmoid(m / temperature) + noise * careless. Where it is
    one, the answers that were meant are as 1 : e^-m/T : `ties` e^-m/2T (Davidson 1970), which is the same among the
    choices; those that were not meant are as at m = 0, where no preference is as frequent as it ever is.

    `noise` is the share of votes that were not meant, and `careless` the probability that such a choice is the first:
    of a coin, unless the voter likes one side (idiolect/inference/voter.py). However sure the model is of its margin,
    no vote can move a belief by more than a few nats: a choice by log((2 - noise) / noise). Temperature and `ties` are
    fitted on held-out votes of trained users.

    `noise` and `ties` [V, 1] and `careless` [V, N] are those of V voters at once, for margins [..., V, N]. `tied` is
    that of Votes.
    """

    temperature: float = 1.0
    noise: float | Floats = 0.05
    careless: float | Floats = 0.5
    ties: float | Floats = DEFAULT_TIES

    @property
    def columns(self) -> "Likelihood":
        """For margins with one more axis, the last."""
        each = (x if isinstance(x, float) else x[..., None] for x in (self.noise, self.careless, self.ties))
        noise, careless, ties = each
        return replace(self, noise=noise, careless=careless, ties=ties)

    def probability(self, margins: Floats, tied: Floats = CHOICE) -> Floats:
        """P(vote) at margins of any shape."""
        return chosen_of(self.answers(margins, tied), tied)

    def answers(self, margins: Floats, tied: Floats = CHOICE) -> Floats:
        """P(first), P(second) and, where it is an answer anywhere, P(no preference): [2 or 3, ...]."""
        if not tied.any():
            first = (1 - self.noise) * sigmoid(margins / self.temperature) + self.noise * self.careless
            return np.stack([first, 1 - first])
        ties = self.ties * (tied != 0)
        meant, shared = davidson(margins / self.temperature, ties), 2 / (2 + ties)
        careless = self.careless * shared, (1 - self.careless) * shared, 1 - shared
        return np.stack([(1 - self.noise) * p + self.noise * q for p, q in zip(meant, careless, strict=True)])

    def slopes(self, margins: Floats, tied: Floats = CHOICE) -> Floats:
        """d P / d margin of each of the `answers`, of the same shape."""
        scale = (1 - self.noise) / self.temperature
        if not tied.any():
            scaled = margins / self.temperature
            slope = scale * sigmoid(scaled) * sigmoid(-scaled)
            return np.stack([slope, -slope])
        first, second, tie = davidson(margins / self.temperature, self.ties * (tied != 0))
        ahead = first - second
        return np.stack([scale * first * (1 - ahead) / 2, -scale * second * (1 + ahead) / 2, -scale * tie * ahead / 2])


def davidson(margins: Floats, ties: float | Floats) -> tuple[Floats, Floats, Floats]:
    """P(first), P(second), P(no preference) at margins in temperatures: e^m/2 : e^-m/2 : `ties`, of any size."""
    loser = np.exp(-np.abs(margins) / 2)
    total = 1 + ties * loser + loser**2
    better, worse = 1 / total, loser**2 / total
    return np.where(margins >= 0, better, worse), np.where(margins >= 0, worse, better), ties * loser / total


def chosen_of(answers: Floats, tied: Floats) -> Floats:
    """Of what each answer [2 or 3, ...] has, what the answer that was given has, [...]."""
    return answers[0] if len(answers) == 2 else np.where(tied > 0, answers[2], answers[0])


@dataclass(frozen=True)
class Votes:
    """N votes of each user: their margins are `offsets` + `slopes` . code."""

    slopes: Floats  # [..., N, C]
    offsets: Floats  # [..., N]
    weights: Floats  # [..., N]: 1, or less for a vote that counts less, 0 for none
    shown_first: Floats  # [..., N]: 1 where the preferred reply was shown first, -1 where the other was, 0 if unknown
    tied: (
        Floats  # [..., N]: 1 where neither was preferred, -1 for a choice where that was an answer, 0 where it was none
    )

    @classmethod
    def of(
        cls,
        slopes: Floats,
        offsets: Floats | None = None,
        weights: Floats | None = None,
        shown_first: Floats | None = None,
        tied: Floats | None = None,
    ) -> "Votes":
        """Choices of full weight whose margins have no offset and whose order is unknown, unless told otherwise."""
        slopes = np.asarray(slopes, np.float64)
        shape = slopes.shape[:-1]
        return cls(
            slopes,
            np.zeros(shape) if offsets is None else np.asarray(offsets, np.float64),
            np.ones(shape) if weights is None else np.broadcast_to(np.asarray(weights, np.float64), shape),
            np.zeros(shape) if shown_first is None else np.asarray(shown_first, np.float64),
            np.zeros(shape) if tied is None else np.asarray(tied, np.float64),
        )

    @classmethod
    def none(cls, n_coordinates: int) -> "Votes":
        """Those of a user who has not voted."""
        return cls.of(np.zeros((0, n_coordinates)))

    def at(self, places: Sequence[int]) -> "Votes":
        """Those of one user's votes, in that order."""
        chosen = list(places)
        return Votes(*(part[chosen] for part in self._parts))

    def over(self, *axes: int) -> "Votes":
        """The same votes before more leading axes of these lengths, without a copy."""
        return Votes(*(np.broadcast_to(part, (*axes, *part.shape)) for part in self._parts))

    @property
    def _parts(self) -> tuple[Floats, ...]:
        return self.slopes, self.offsets, self.weights, self.shown_first, self.tied

    def margins(self, codes: Floats) -> Floats:
        """Margins [..., N] under codes [..., C]."""
        margins: Floats = self.offsets + np.einsum("...nc,...c->...n", self.slopes, codes)
        return margins


@dataclass(frozen=True)
class Belief:
    """What is known of users: `code` [..., C] is what they are served, `covariance` [..., C, C] how unsure it is."""

    code: Floats
    covariance: Floats

    @property
    def spread(self) -> Floats:
        """Total variance, [...]; divided by that of the prior it falls from 1 (nothing known) towards 0."""
        return np.asarray(np.trace(self.covariance, axis1=-2, axis2=-1), np.float64)


def sigmoid(x: Floats) -> Floats:
    """Of any size, without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * np.asarray(x, np.float64)), np.float64)
