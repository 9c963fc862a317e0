"""Real people who may have no preference: are they known sooner when their ties count?

Users of LLMFAO and UKP in four folds: each is new once a seed. The population is fitted on the choices of the users of
the other folds, with features that are counted in the texts; the new user is inferred by the code that serves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from bench.people.real_gains import gain_over
from bench.people.real_people import tune
from bench.people.real_votes import MIN_REST, Data, Flags, Hits, Split, by_user, count
from idiolect.inference.priors import Gaussian
from idiolect.inference.voter import NOISES, impression
from idiolect.learning import LEAST_VOTES_TO_DOUBT
from idiolect.votes import Floats, Likelihood
from idiolect.votes import Votes as Margins
from idiolect_training.export.questions import TIES
from idiolect_training.reward_track.heads import Global, Votes

N_ANSWERS = (8, 16, 32)
N_FOLDS = 4
N_INNER = 2
FIT_VOTES, FIT_USERS = 32, 60
"""Of the population, by which its spread and the likelihood of votes are fitted."""
SPREADS = tuple(float(spread) for spread in np.geomspace(0.1, 3, 8))
WAYS = ("dropped", "used")


@dataclass(frozen=True)
class Population:
    """Users whose weights lie around the pooled head's, which is calibrated to votes: their temperature is 1."""

    pooled: Floats  # [D]
    prior: Gaussian
    likelihood: Likelihood

    @classmethod
    def fit(cls, data: Data, votes: Votes, pooled: Floats, train: Flags) -> "Population":
        """Spread, noise and then `ties` under which the votes of the population's users have the greatest evidence.

        Each user is taken for anybody, as idiolect_training.export.questions has it.
        """
        d = votes.x.shape[1]
        users = np.unique(data.user[train])
        counts = np.bincount(data.user[train], minlength=len(data.evaluated))
        some = sorted(users, key=lambda user: -counts[user])[:FIT_USERS]
        parts = [np.flatnonzero(train & (data.user == user))[:FIT_VOTES] for user in some]
        x, tied, weights = np.zeros((len(parts), FIT_VOTES, d)), *np.zeros((2, len(parts), FIT_VOTES))
        for row, places in enumerate(parts):
            x[row, : len(places)], weights[row, : len(places)] = votes.x[places], 1
            tied[row, : len(places)] = answers(data.tied[places])
        given = Margins.of(x, x @ pooled, weights, tied=tied)
        chosen = replace(given, weights=weights * (tied <= 0), tied=np.zeros_like(tied))
        grid = [(cls._around(d, spread), Likelihood(1.0, noise)) for spread, noise in product(SPREADS, NOISES)]
        prior, found = max(grid, key=lambda one: float(one[0].evidence(chosen, one[1]).sum()))
        by_ties = [replace(found, ties=ties) for ties in TIES]
        return cls(pooled, prior, max(by_ties, key=lambda one: float(prior.evidence(given, one).sum())))

    @staticmethod
    def _around(d: int, spread: float) -> Gaussian:
        return Gaussian(np.zeros(d), np.eye(d) * spread**2)

    def infer(self, votes: Votes, tied: Flags) -> Floats:
        """How the weights of somebody who has voted so differ from the pooled ones, as they are served, [D].

        The same steps as in idiolect.learning.know.
        """
        x = votes.x.astype(np.float64)
        given = Margins.of(x, x @ self.pooled, tied=answers(tied))
        seen, nothing = (
            impression(self.prior, given, self.likelihood),
            self.prior.infer(Margins.none(x.shape[1]), self.likelihood),
        )
        if seen.familiar < 0.5 and len(votes) >= LEAST_VOTES_TO_DOUBT:
            return nothing.code
        return seen.served(nothing).code


def answers(tied: Flags) -> Floats:
    """Votes.tied of one user: who never had no preference may not have been offered it."""
    return np.where(tied, 1.0, -1.0) * tied.any()


def folds(data: Data, rng: np.random.Generator) -> Iterator[Split]:
    """Each user with enough answered pairs is new in one of them: 32 pairs to learn from, choices on the rest test."""
    n_pairs = {user: np.unique(data.pair[data.user == user]) for user in np.unique(data.user)}
    enough = [user for user, pairs in n_pairs.items() if len(pairs) >= max(N_ANSWERS) + MIN_REST]
    for part in np.array_split(rng.permutation(enough), N_FOLDS):
        place = np.full(len(data.user), -1)
        for user in part:
            where = np.flatnonzero(data.user == user)
            order = rng.permutation(len(n_pairs[user]))
            place[where] = order[np.searchsorted(n_pairs[user], data.pair[where])]
        test = (place >= max(N_ANSWERS)) & ~data.tied
        yield Split(place < 0, np.where(place < max(N_ANSWERS), place, -1), test)


def one_fold(data: Data, split: Split, rng: np.random.Generator) -> tuple[dict[str, Hits], Population]:
    """Hits and test votes of each user, [U, 2], under the pooled head and after n answers, ties dropped and used."""
    votes, sizes = data.votes(split.train)
    chosen = split.train & ~data.tied
    inner = [by_user(data, chosen, rng) for _ in range(N_INNER)]
    head = Global(sizes, tune(data, votes, sizes, inner, {})["global"][0]).fit(votes[chosen], len(data.evaluated))
    pooled = (head.shared_scale * head.shared["generic"]).double().numpy()
    population = Population.fit(data, votes, pooled, split.train)
    x = votes.x.astype(np.float64)
    hits = {"pooled": count(data, split.test, (x @ pooled)[split.test])}
    for n, way in product(N_ANSWERS, WAYS):
        margins = x @ pooled
        for user in np.unique(data.user[split.test]):
            own = np.flatnonzero((data.user == user) & (split.own >= 0) & (split.own < n))
            if way == "dropped":
                own = own[~data.tied[own]]
            tests = np.flatnonzero((data.user == user) & split.test)
            if len(own):
                margins[tests] += x[tests] @ population.infer(votes[own], data.tied[own])
        hits[f"{way}@{n}"] = count(data, split.test, margins[split.test])
    return hits, population


def measure(data: Data, n_seeds: int) -> dict[str, Any]:
    """Gains over the pooled head in points, over users, and without the user who has most votes."""
    found: dict[str, list[Hits]] = {}
    populations = []
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        for split in folds(data, rng):
            hits, population = one_fold(data, split, rng)
            populations.append(population)
            for name, each in hits.items():
                found.setdefault(name, []).append(each)
    total = {name: np.sum(each, axis=0) for name, each in found.items()}
    tested = total["pooled"][:, 1] > 0
    heaviest = int(np.where(tested, np.bincount(data.user), 0).argmax())
    others = np.arange(len(tested)) != heaviest
    by_seed = {
        name: [np.sum(each[n : n + N_FOLDS], axis=0) for n in range(0, len(each), N_FOLDS)]
        for name, each in found.items()
    }

    def over(mine: str, other: str) -> dict[str, Any]:
        gain = gain_over(total[mine], total[other])["gain_macro"]
        without = gain_over(total[mine] * others[:, None], total[other] * others[:, None])["gain_macro"]
        seeds = [gain_over(a, b)["gain_macro"]["points"] for a, b in zip(by_seed[mine], by_seed[other], strict=True)]
        low, high = gain["interval"]
        return {"points": gain["points"], "low": low, "high": high, "by_seed": seeds, "without_the_heaviest": without}

    return {
        "answers": len(data.user),
        "share_of_ties": round(float(data.tied.mean()), 4),
        "users": int(tested.sum()),
        "pooled_accuracy": round(float((total["pooled"][tested, 0] / total["pooled"][tested, 1]).mean()), 4),
        "spread": [round(float(one.prior.covariance[0, 0] ** 0.5), 3) for one in populations],
        "noise": [float(np.mean(one.likelihood.noise)) for one in populations],
        "ties": [round(float(np.mean(one.likelihood.ties)), 3) for one in populations],
        **{way: {str(n): over(f"{way}@{n}", "pooled") for n in N_ANSWERS} for way in WAYS},
        "used_over_dropped": {str(n): over(f"used@{n}", f"dropped@{n}") for n in N_ANSWERS},
    }
