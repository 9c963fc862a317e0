"""Simulated strangers who have no preference where a margin is small: are they known sooner when their ties count?

Margins of questions are drawn, so that what is measured is the inference alone, as it serves. Beside the rule that
serves stands a simpler one: choices stay logistic, and a tie alone has Davidson's probability.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.people.world import SHARE
from idiolect.inference.priors import Gaussian, Mixture, Prior
from idiolect.inference.voter import impression
from idiolect.votes import Floats, Likelihood, Votes, davidson, sigmoid

N_COORDINATES = len(SHARE)
N_TESTS = 200
SLIPS = 0.1
N_ANSWERS = (8, 16)
LIKELIHOOD = Likelihood()
PRIORS: dict[str, Prior] = {
    "clusters": Mixture(SHARE),
    "points": Gaussian(np.zeros(N_COORDINATES), np.eye(N_COORDINATES)),
}
Says = Callable[[Floats, np.random.Generator], NDArray[np.int64]]
"""Answers to questions of these margins, in temperatures: 0 the first side, 1 the second, 2 no preference."""


def choosing(margins: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Of whoever always chooses."""
    return np.where(rng.random(len(margins)) < sigmoid(margins), 0, 1)


def readily(ties: float) -> Says:
    """Of a voter of Davidson's."""

    def says(margins: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
        return np.asarray((rng.random(len(margins)) > np.cumsum(davidson(margins, ties), 0)[:2]).sum(0), np.int64)

    return says


def within(size: float) -> Says:
    """Of a voter of another kind than the server thinks: no preference where the margin is smaller, and only there."""

    def says(margins: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
        return np.where(np.abs(margins) < size, 2, choosing(margins, rng))

    return says


def at_times(says: Says) -> Says:
    """Of a voter who is offered no preference in half of the questions."""

    def offered(margins: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
        said = says(margins, rng)
        return np.where((said == 2) & (rng.random(len(margins)) < 0.5), choosing(margins, rng), said)

    return offered


STRANGERS: dict[str, Says] = {
    "nobody ties": choosing,
    "ties 0.3": readily(0.3),
    "ties 1": readily(1.0),
    "ties 3": readily(3.0),
    "within 1 temperature": within(1.0),
    "within 2 temperatures": within(2.0),
    "ties 1, offered half the time": at_times(readily(1.0)),
    "within 2 temperatures, offered half the time": at_times(within(2.0)),
}


@dataclass(frozen=True)
class Stranger:
    """Somebody's answers, and what the somebody wants of other pairs."""

    slopes: Floats  # [n, C]
    said: NDArray[np.int64]  # [n]
    tests: Floats  # [N_TESTS, C]
    wants: NDArray[np.bool_]  # [N_TESTS]

    @classmethod
    def drawn(cls, says: Says, clusters: bool, size: float, n: int, rng: np.random.Generator) -> "Stranger":
        """One whose margins have a mean size of so many temperatures, and who slips in a tenth of the answers."""
        z = np.eye(N_COORDINATES)[rng.choice(N_COORDINATES, p=SHARE)] if clusters else rng.normal(size=N_COORDINATES)
        scale = size / 2 if clusters else size / 2 / N_COORDINATES**0.5
        shape = n + N_TESTS, N_COORDINATES
        slopes = rng.gamma(2, scale, shape) * rng.choice([-1.0, 1.0], shape)
        said = says(slopes[:n] @ z, rng)
        said = np.where(rng.random(n) < SLIPS, rng.integers(0, 1 + max(1, int(said.max(initial=1))), n), said)
        return cls(slopes[:n], said, slopes[n:], slopes[n:] @ z > 0)

    def right(self, prior: Prior, n: int, way: str) -> float:
        """Share of the other pairs that the code after n answers ranks as the stranger does."""
        tied = self.said[:n] == 2
        slopes = np.where(self.said[:n] == 1, -1.0, 1.0)[:, None] * self.slopes[:n]
        if way == "dropped":
            votes = Votes.of(slopes[~tied])
        elif way == "choices_logistic":
            votes = Votes.of(slopes, tied=tied.astype(np.float64))
        else:
            votes = Votes.of(slopes, tied=np.where(tied, 1.0, -1.0) * tied.any())
        nothing = prior.infer(Votes.none(N_COORDINATES), LIKELIHOOD)
        code = impression(prior, votes, LIKELIHOOD).served(nothing).code
        return float(((self.tests @ code > 0) == self.wants).mean())


def measure(n_seeds: int, n_strangers: int, size: float = 4.0) -> dict[str, Any]:
    """Accuracy in per cent with ties dropped, and what each way adds to it in points, with its standard error."""
    found = {}
    for kind, prior in PRIORS.items():
        for name, says in STRANGERS.items():
            for n in N_ANSWERS:
                rights: dict[str, list[float]] = {"dropped": [], "used": [], "choices_logistic": []}
                n_ties = 0
                for seed in range(n_seeds):
                    rng = np.random.default_rng(seed)
                    for _ in range(n_strangers):
                        stranger = Stranger.drawn(says, kind == "clusters", size, n, rng)
                        n_ties += int((stranger.said == 2).sum())
                        for way, values in rights.items():
                            values.append(stranger.right(prior, n, way))
                found[f"{kind}, {name}, {n} answers"] = _compared(rights, n_seeds) | {
                    "share_of_ties": round(n_ties / (n_seeds * n_strangers * n), 3)
                }
    return found


def _compared(rights: dict[str, list[float]], n_seeds: int) -> dict[str, Any]:
    """Differences are taken for each stranger."""
    dropped = 100 * np.array(rights["dropped"])
    row: dict[str, Any] = {"dropped": round(float(dropped.mean()), 2)}
    for way in ("used", "choices_logistic"):
        ahead = 100 * np.array(rights[way]) - dropped
        row[f"{way}_over_dropped"] = {
            "points": round(float(ahead.mean()), 2),
            "se": round(float(ahead.std() / len(ahead) ** 0.5), 2),
            "by_seed": [round(float(part.mean()), 2) for part in np.split(ahead, n_seeds)],
        }
    return row
