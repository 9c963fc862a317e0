"""Votes as margins, what they mean, and what is believed of users after them. All numpy, for one user or for many."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Likelihood:
    """P(vote | margin) = (1 - noise) sigmoid(margin / temperature) + noise / 2.

    Fitted on held-out votes of trained users. `noise` is the share of votes that are coin flips: no vote can move a
    belief by more than log((2 - noise) / noise), however sure the model is of its margin.
    """

    temperature: float = 1.0
    noise: float = 0.05

    def probability(self, margins: Floats) -> Floats:
        """P(vote) at margins of any shape."""
        return (1 - self.noise) * sigmoid(margins / self.temperature) + self.noise / 2

    def slope(self, margins: Floats) -> Floats:
        """d P / d margin."""
        scaled = margins / self.temperature
        return (1 - self.noise) / self.temperature * sigmoid(scaled) * sigmoid(-scaled)


@dataclass(frozen=True)
class Votes:
    """N votes of each user: their margins are `offsets` + `slopes` . code."""

    slopes: Floats  # [..., N, C]
    offsets: Floats  # [..., N]
    weights: Floats  # [..., N]: 1, or less for a vote that is half forgotten, 0 for none

    @classmethod
    def of(cls, slopes: Floats, offsets: Floats | None = None, weights: Floats | None = None) -> "Votes":
        """Votes of full weight whose margins have no offset, unless told otherwise."""
        slopes = np.asarray(slopes, np.float64)
        shape = slopes.shape[:-1]
        return cls(
            slopes,
            np.zeros(shape) if offsets is None else np.asarray(offsets, np.float64),
            np.ones(shape) if weights is None else np.broadcast_to(np.asarray(weights, np.float64), shape),
        )

    @classmethod
    def none(cls, n_coordinates: int) -> "Votes":
        """Those of a user who has not voted."""
        return cls.of(np.zeros((0, n_coordinates)))

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
