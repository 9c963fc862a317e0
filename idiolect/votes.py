"""Votes as margins, what they mean, and what is believed of users after them. All numpy, for one user or for many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Likelihood:
    """P(vote | margin) = (1 - noise) sigmoid(margin / temperature) + noise * careless.

    `noise` is the share of votes that were not meant, and `careless` the probability of such a vote: of a coin, unless
    the voter likes one side (idiolect/inference/voter.py). However sure the model is of its margin, no vote can move a
    belief by more than log((2 - noise) / noise). The temperature is fitted on held-out votes of trained users.

    `noise` [V, 1] and `careless` [V, N] are those of V voters at once, for margins [..., V, N].
    """

    temperature: float = 1.0
    noise: float | Floats = 0.05
    careless: float | Floats = 0.5

    @property
    def columns(self) -> "Likelihood":
        """For margins with one more axis, the last."""
        noise, careless = (x if isinstance(x, float) else x[..., None] for x in (self.noise, self.careless))
        return replace(self, noise=noise, careless=careless)

    def probability(self, margins: Floats) -> Floats:
        """P(vote) at margins of any shape."""
        return np.asarray((1 - self.noise) * sigmoid(margins / self.temperature) + self.noise * self.careless)

    def slope(self, margins: Floats) -> Floats:
        """d P / d margin."""
        scaled = margins / self.temperature
        return np.asarray((1 - self.noise) / self.temperature * sigmoid(scaled) * sigmoid(-scaled))


@dataclass(frozen=True)
class Votes:
    """N votes of each user: their margins are `offsets` + `slopes` . code."""

    slopes: Floats  # [..., N, C]
    offsets: Floats  # [..., N]
    weights: Floats  # [..., N]: 1, or less for a vote that counts less, 0 for none
    shown_first: Floats  # [..., N]: 1 where the preferred reply was shown first, -1 where the other was, 0 if unknown

    @classmethod
    def of(
        cls,
        slopes: Floats,
        offsets: Floats | None = None,
        weights: Floats | None = None,
        shown_first: Floats | None = None,
    ) -> "Votes":
        """Votes of full weight whose margins have no offset and whose order is unknown, unless told otherwise."""
        slopes = np.asarray(slopes, np.float64)
        shape = slopes.shape[:-1]
        return cls(
            slopes,
            np.zeros(shape) if offsets is None else np.asarray(offsets, np.float64),
            np.ones(shape) if weights is None else np.broadcast_to(np.asarray(weights, np.float64), shape),
            np.zeros(shape) if shown_first is None else np.asarray(shown_first, np.float64),
        )

    @classmethod
    def none(cls, n_coordinates: int) -> "Votes":
        """Those of a user who has not voted."""
        return cls.of(np.zeros((0, n_coordinates)))

    def at(self, places: Sequence[int]) -> "Votes":
        """Those of one user's votes, in that order."""
        chosen = list(places)
        return Votes(self.slopes[chosen], self.offsets[chosen], self.weights[chosen], self.shown_first[chosen])

    def over(self, *axes: int) -> "Votes":
        """The same votes before more leading axes of these lengths, without a copy."""
        parts = (self.slopes, self.offsets, self.weights, self.shown_first)
        return Votes(*(np.broadcast_to(part, (*axes, *part.shape)) for part in parts))

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
