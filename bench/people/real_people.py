"""make real-people: does it help to know who votes? Real votes, frozen features, linear rewards (docs/reward-track.md).

LLMFAO (answers of language models) and UKP ConvArg (arguments), from ../shared/data. Writes
docs/results/real_people.{json,png,svg} and line B4. This is the reward track, not the P-DPO policy.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from scipy.special import log_expit
from tqdm import tqdm

from bench.people.real_gains import OUT, draw, headline, macro_micro, summarize, table
from bench.people.real_votes import (
    N_OWN,
    READERS,
    Data,
    Hits,
    Protocol,
    Split,
    by_pair,
    by_user,
    count,
    load,
    majority_of_others,
)
from bench.results import provenance, record
from idiolect_training.reward_track.heads import Cluster, Global, Heads, Individual, LowRank, Prior, Votes, climb

N_SEEDS = {"llmfao": 10, "ukp_convarg": 5}
N_INNER = {"llmfao": 6, "ukp_convarg": 1}
KINDS: dict[str, type[Heads]] = {"individual": Individual, "low_rank": LowRank, "cluster": Cluster}
SIGMAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
CODES = (2, 4, 8)


def tune(
    data: Data, votes: Votes, sizes: Sequence[int], inner: Sequence[Split], kinds: Mapping[str, type[Heads]]
) -> dict[str, tuple[Prior, float]]:
    """Priors of least log-loss on the validation votes of the `inner` splits, and those losses."""

    def loss(kind: type[Heads], prior: Prior) -> float:
        fitted = [(split, kind(sizes, prior).fit(votes[split.train], len(data.evaluated))) for split in inner]
        return -float(np.mean([log_expit(split.margins(heads, votes, 10)).mean() for split, heads in fitted]))

    n, ladder = len(sizes), [SIGMAS] * len(sizes)
    nobody = (0.0,) * n
    shared, least = climb(lambda point: loss(Global, Prior(point, nobody)), ladder, [3] * n)
    tuned = {"global": (Prior(shared, nobody), least)}
    for name, kind in kinds.items():
        codes = (0,) if kind is Individual else CODES

        def prior(point: tuple[float, ...]) -> Prior:
            return Prior(shared, point[:n], int(point[n]))

        def of_kind(point: tuple[float, ...], kind: type[Heads] = kind) -> float:
            return loss(kind, prior(point))

        start = [2] * n if kind is not Individual else [3] * n
        point, least = climb(of_kind, [*ladder, codes], [*start, 0])
        tuned[name] = (prior(point), least)
    return tuned


@dataclass(frozen=True)
class Job:
    """One seed of one protocol: the unit of work."""

    data: Data
    protocol: Protocol
    kinds: Mapping[str, type[Heads]]
    seed: int

    def run(self) -> tuple[dict[str, Hits], dict[str, Prior]]:
        """For each model the hits and the number of test votes of each user, [U, 2]; and the priors chosen.

        `personal` is the kind that validation liked best.
        """
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        data = self.data
        split = self.protocol(data, np.ones(len(data.user), bool), rng)
        inner = [self.protocol(data, split.train, rng) for _ in range(N_INNER[data.name])]
        votes, sizes = data.votes(split.train)
        tuned = tune(data, votes, sizes, inner, self.kinds)
        best = min(self.kinds, key=lambda name: tuned[name][1], default=None)
        hits = {}
        kinds: dict[str, type[Heads]] = {"global": Global, **self.kinds}
        for name, (prior, _) in tuned.items():
            heads = kinds[name](sizes, prior).fit(votes[split.train], len(data.evaluated))
            several = self.protocol is by_user and name != "global"
            for label, n_own in {f"{name}@{n_own}": n_own for n_own in N_OWN}.items() if several else [(name, 0)]:
                hits[label] = count(data, split.test, split.margins(heads, votes, n_own))
                if name == best:
                    hits[label.replace(name, "personal")] = hits[label]
        return hits, {name: prior for name, (prior, _) in tuned.items()}


def jobs(data: Data, writers: Data | None) -> Iterator[tuple[tuple[str, str], Job]]:
    """Everything to be run, under (protocol, features)."""
    surface_only = replace(data, blocks=data.blocks[:1])
    for seed in range(N_SEEDS[data.name]):
        yield ("by_pair", "all"), Job(data, by_pair, KINDS, seed)
        yield ("by_pair", "surface"), Job(surface_only, by_pair, {"individual": Individual}, seed)
        if writers is not None:
            yield ("by_pair", "writer"), Job(writers, by_pair, {}, seed)
        yield ("by_user", "all"), Job(data, by_user, KINDS, seed)


def measure(data: Data, writers: Data | None, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """All protocols on one data set."""
    planned = list(jobs(data, writers))
    done = list(tqdm(pool.map(_run, [job for _, job in planned]), total=len(planned), desc=data.name, disable=None))
    found: dict[str, Any] = {"by_pair": {}, "by_user": {}}
    for protocol, features in dict.fromkeys(key for key, _ in planned):
        runs = [run for (key, _), run in zip(planned, done, strict=True) if key == (protocol, features)]
        found[protocol][features] = {
            "models": summarize([hits for hits, _ in runs]),
            "priors": [{name: asdict(prior) for name, prior in priors.items()} for _, priors in runs],
        }
        if (protocol, features) == ("by_pair", "all"):
            found["users"] = _users(data, [hits for hits, _ in runs])
    majority = majority_of_others(data)
    return {
        "votes": len(data.user),
        "users": len(data.evaluated),
        "evaluated_users": int(data.evaluated.sum()),
        "pairs": int(data.pair.max()) + 1,
        "texts": len(data.blocks[0]),
        "seeds": N_SEEDS[data.name],
        "majority_of_others": macro_micro(majority) | {"votes": int(majority[:, 1].sum())},
        **found,
    }


def _run(job: Job) -> tuple[dict[str, Hits], dict[str, Prior]]:
    return job.run()


def _users(data: Data, seeds: Sequence[dict[str, Hits]]) -> list[dict[str, float]]:
    """Each evaluated user's strict votes and accuracy under both heads, all seeds together."""
    n_votes = np.bincount(data.user)
    totals = {name: np.sum([seed[name] for seed in seeds], axis=0) for name in ("global", "personal")}
    return [
        {"votes": int(n_votes[user])} | {name: round(hits[user, 0] / hits[user, 1], 4) for name, hits in totals.items()}
        for user in np.flatnonzero(data.evaluated & (totals["global"][:, 1] > 0))
    ]


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # for the two processes below
    loaded = {name: load(name) for name in READERS}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        found = {name: measure(data, writers, pool) for name, (data, writers) in loaded.items()}
    result = {**found, **provenance("make real-people")}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "real_people.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(found)
    value = {name: headline(data) for name, data in found.items()} | {"track": "reward: frozen features, linear heads"}
    record("B4", value)
    sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
