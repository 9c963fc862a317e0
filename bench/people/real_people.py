"""make real-people: does it help to know who votes? Real votes, frozen features, linear rewards (docs/reward-track.md).

LLMFAO (answers of language models) and UKP ConvArg (arguments), from ../shared/data. Writes
docs/results/real_people.{json,png,svg} and line B4. This is the reward track, not the P-DPO policy.
"""

import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from statistics import mean, stdev

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_expit
from tqdm import tqdm

from bench.results import provenance, record
from idiolect_training.data.formats import llmfao, ukp_convarg
from idiolect_training.reward_track.features import Text, encode, surface
from idiolect_training.reward_track.heads import (
    Array,
    Basis,
    Cluster,
    Global,
    Heads,
    Individual,
    LowRank,
    Prior,
    Votes,
    climb,
)
from tests.live import ROOT

DATA = ROOT.parent / "shared" / "data"
OUT = ROOT / "docs" / "results"
READERS = {"llmfao": llmfao.read, "ukp_convarg": ukp_convarg.read}
MIN_VOTES = {"llmfao": 20, "ukp_convarg": 30}
N_SEEDS = {"llmfao": 10, "ukp_convarg": 5}
N_INNER = {"llmfao": 6, "ukp_convarg": 1}
KINDS: dict[str, type[Heads]] = {"individual": Individual, "low_rank": LowRank, "cluster": Cluster}
N_OWN = (0, 1, 2, 4, 8, 16, 32)
MIN_REST = 10
SIGMAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
CODES = (2, 4, 8)
THRESHOLD = "LLMFAO by pair: personal - global >= 4 points; everything else reported whatever comes out"
Flags = NDArray[np.bool_]
Index = NDArray[np.int64]
Hits = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """n votes of U users on T texts, whose features come in blocks [T, F]."""

    name: str
    user: Index  # [n]
    chosen: Index  # [n]: a text
    rejected: Index  # [n]
    pair: Index  # [n]: numbers the unordered pairs of texts
    blocks: tuple[Array, ...]
    evaluated: Flags  # [U]: has enough votes

    def votes(self, train: Flags) -> tuple[Votes, tuple[int, ...]]:
        """All votes in the basis of the training pairs, and the sizes of its blocks."""
        once = np.flatnonzero(train)[np.unique(self.pair[train], return_index=True)[1]]
        basis = Basis.fit([block[self.chosen[once]] - block[self.rejected[once]] for block in self.blocks])
        x = basis.apply(self.blocks)
        return Votes(self.user, x[self.chosen] - x[self.rejected]), basis.sizes


@dataclass(frozen=True)
class Split:
    """Of n votes: which train, each vote's place among the first ones of a new user (-1: none), and which test."""

    train: Flags
    own: Index
    test: Flags

    def margins(self, heads: Heads, votes: Votes, n_own: int) -> Array:
        """Margins of the test votes, with each new user's code inferred from `n_own` votes."""
        mine = (self.own >= 0) & (self.own < n_own)
        return heads.margins(votes[self.test], heads.infer(votes[mine], len(heads.codes)) if mine.any() else None)


def by_pair(data: Data, among: Flags, rng: np.random.Generator) -> Split:
    """A fifth of the pairs tests, whoever voted on them."""
    held = (rng.random(data.pair.max() + 1) < 0.2)[data.pair]
    return Split(among & ~held, np.full(len(held), -1), among & held & data.evaluated[data.user])


def by_user(data: Data, among: Flags, rng: np.random.Generator) -> Split:
    """A quarter of the users with enough votes are new: some pairs to learn from, the rest tests."""
    n_pairs = {user: np.unique(data.pair[among & (data.user == user)]) for user in np.unique(data.user[among])}
    enough = [user for user, pairs in n_pairs.items() if len(pairs) >= max(N_OWN) + MIN_REST]
    new = rng.choice(enough, max(1, len(enough) // 4), replace=False)
    place = np.full(len(among), -1)
    for user in new:
        where = np.flatnonzero(among & (data.user == user))
        order = rng.permutation(len(n_pairs[user]))
        place[where] = order[np.searchsorted(n_pairs[user], data.pair[where])]
    return Split(among & (place < 0), np.where(place < max(N_OWN), place, -1), place >= max(N_OWN))


Protocol = Callable[[Data, Flags, np.random.Generator], Split]


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

        start = [2] * n if kind is not Individual else [3] * n
        point, least = climb(lambda point, kind=kind: loss(kind, prior(point)), [*ladder, codes], [*start, 0])
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
        for name, (prior, _) in tuned.items():
            heads = {"global": Global, **self.kinds}[name](sizes, prior).fit(votes[split.train], len(data.evaluated))
            several = self.protocol is by_user and name != "global"
            for label, n_own in {f"{name}@{n_own}": n_own for n_own in N_OWN}.items() if several else [(name, 0)]:
                hits[label] = _count(data, split.test, split.margins(heads, votes, n_own))
                if name == best:
                    hits[label.replace(name, "personal")] = hits[label]
        return hits, {name: prior for name, (prior, _) in tuned.items()}


def _count(data: Data, test: Flags, margins: Array) -> Hits:
    """Hits and votes of each user, [U, 2]; a margin of zero is half a hit."""
    hits = np.zeros((len(data.evaluated), 2))
    np.add.at(hits, data.user[test], np.stack([(margins > 0) + 0.5 * (margins == 0), np.ones(len(margins))], 1))
    return hits


def load(name: str) -> tuple[Data, Data | None]:
    """The votes with the frozen features; and, where it is known who wrote a text, with the writer as only feature."""
    votes = READERS[name](DATA / name)
    texts = sorted({Text(vote.prompt or "", reply) for vote in votes for reply in (vote.chosen, vote.rejected)})
    at = {text: place for place, text in enumerate(texts)}
    users, user = np.unique([vote.user_id for vote in votes], return_inverse=True)
    chosen, rejected = (
        np.array([at[Text(vote.prompt or "", getattr(vote, side))] for vote in votes])
        for side in ("chosen", "rejected")
    )
    pair = np.unique(np.minimum(chosen, rejected) * len(texts) + np.maximum(chosen, rejected), return_inverse=True)[1]
    encoding = encode(texts, ROOT / "runs" / "features.sqlite")
    blocks = (np.hstack([surface(texts), encoding.logps]), encoding.states.reshape(len(texts), -1))
    data = Data(name, user, chosen, rejected, pair, blocks, np.bincount(user, minlength=len(users)) >= MIN_VOTES[name])
    return data, replace(data, blocks=(_writers(texts),)) if name == "llmfao" else None


def _writers(texts: Sequence[Text]) -> Array:
    """Which models wrote a text, [T, models], each row summing to 1."""
    prompts, responses = (
        [json.loads(line) for line in gzip.decompress((DATA / "llmfao" / f"{file}.jsonl.gz").read_bytes()).splitlines()]
        for file in ("prompts", "responses")
    )
    prompt = {row["id"]: row["text"] for row in prompts}
    at = {text: place for place, text in enumerate(texts)}
    wrote = np.zeros((len(texts), 1 + max(row["model"] for row in responses)), np.float32)
    for row in responses:
        if (text := Text(prompt[row["prompt"]], row["text"])) in at:
            wrote[at[text], row["model"]] = 1
    return wrote[:, wrote.any(0)] / wrote.sum(1, keepdims=True)


def majority_of_others(data: Data) -> Hits:
    """Hits of what most other voters on the pair chose; votes on a pair without other voters do not count."""
    first = (data.chosen < data.rejected).astype(int)
    tally = np.zeros((data.pair.max() + 1, 2))
    np.add.at(tally, (data.pair, first), 1)
    agree, against = tally[data.pair, first] - 1, tally[data.pair, 1 - first]
    counted = data.evaluated[data.user] & (agree + against > 0)
    return _count(data, counted, (agree - against)[counted])


def summarize(seeds: Sequence[dict[str, Hits]]) -> dict[str, dict[str, object]]:
    """Accuracy of each model, mean over users (macro) and over votes (micro), and its gain over `global` in points."""
    return {name: _accuracy([seed[name] for seed in seeds]) | _gain(seeds, name) for name in seeds[0]}


def _macro_micro(hits: Hits) -> dict[str, float]:
    tested = hits[hits[:, 1] > 0]
    macro, micro = (tested[:, 0] / tested[:, 1]).mean(), tested[:, 0].sum() / tested[:, 1].sum()
    return {"macro": round(float(macro), 4), "micro": round(float(micro), 4)}


def _accuracy(seeds: Sequence[Hits]) -> dict[str, object]:
    """Mean and standard error over seeds."""
    each = [_macro_micro(hits) for hits in seeds]
    return {
        name: {"mean": round(mean(values), 4), "se": round(stdev(values) / len(values) ** 0.5, 4)}
        for name in ("macro", "micro")
        for values in ([accuracy[name] for accuracy in each],)
    }


def _gain(seeds: Sequence[dict[str, Hits]], name: str) -> dict[str, object]:
    """Points over `global`, votes of all seeds together, with a 95 % bootstrap interval over users."""
    mine, other = (sum(seed[model] for seed in seeds) for model in (name, "global"))
    mine, other = mine[mine[:, 1] > 0], other[other[:, 1] > 0]
    n, ahead = mine[:, 1], mine[:, 0] - other[:, 0]
    draw = np.random.default_rng(0).integers(0, len(n), (5000, len(n)))
    macro, micro = (ahead / n)[draw].mean(1), ahead[draw].sum(1) / n[draw].sum(1)
    found = {"gain_macro": (float((ahead / n).mean()), macro), "gain_micro": (float(ahead.sum() / n.sum()), micro)}
    return {
        key: {
            "points": round(100 * value, 2),
            "interval": [round(100 * float(q), 2) for q in np.quantile(drawn, (0.025, 0.975))],
        }
        for key, (value, drawn) in found.items()
    }


def jobs(data: Data, writers: Data | None) -> Iterator[tuple[tuple[str, str], Job]]:
    """Everything to be run, under (protocol, features)."""
    surface_only = replace(data, blocks=data.blocks[:1])
    for seed in range(N_SEEDS[data.name]):
        yield ("by_pair", "all"), Job(data, by_pair, KINDS, seed)
        yield ("by_pair", "surface"), Job(surface_only, by_pair, {"individual": Individual}, seed)
        if writers is not None:
            yield ("by_pair", "writer"), Job(writers, by_pair, {}, seed)
        yield ("by_user", "all"), Job(data, by_user, KINDS, seed)


def measure(data: Data, writers: Data | None, pool: ProcessPoolExecutor) -> dict[str, object]:
    """All protocols on one data set."""
    planned = list(jobs(data, writers))
    done = list(tqdm(pool.map(_run, [job for _, job in planned]), total=len(planned), desc=data.name, disable=None))
    found: dict[str, dict[str, object]] = {"by_pair": {}, "by_user": {}}
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
        "majority_of_others": _macro_micro(majority) | {"votes": int(majority[:, 1].sum())},
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


def table(found: Mapping[str, dict[str, object]]) -> str:
    """Accuracy in per cent over users (macro) and over votes (micro), and gains over `global` with their intervals."""
    lines = []
    for name, data in found.items():
        lines.append(f"{name}: {data['votes']} votes, {data['evaluated_users']} users evaluated\n")
        for protocol in ("by_pair", "by_user"):
            for features, measured in data[protocol].items():
                for model, row in measured["models"].items():
                    cells = [
                        f"{100 * row[kind]['mean']:5.1f} ± {100 * row[kind]['se']:.1f}" for kind in ("macro", "micro")
                    ]
                    for kind in ("gain_macro", "gain_micro"):
                        low, high = row[kind]["interval"]
                        cells.append(f"{row[kind]['points']:+5.1f} [{low:+.1f}, {high:+.1f}]")
                    lines.append(f"  {protocol} {features:8}{model:15} " + "   ".join(cells) + "\n")
        majority = data["majority_of_others"]
        lines.append(f"  majority of others {100 * majority['macro']:.1f} {100 * majority['micro']:.1f}\n")
    return "".join(lines)


def draw(found: Mapping[str, dict[str, object]]) -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2))
    users = found["llmfao"]["users"]
    sizes = [user["votes"] for user in users]
    left.scatter([user["global"] for user in users], [user["personal"] for user in users], s=sizes, alpha=0.5)
    left.axline((0.5, 0.5), slope=1, color="grey", lw=1)
    left.set(xlabel="accuracy of the global head", ylabel="accuracy of the personal head")
    left.set_title("LLMFAO users by pair (area: votes)")
    models = ("individual", "low_rank", "cluster")
    for shift, (name, data) in enumerate(found.items()):
        for measure_, marker in (("gain_macro", "o"), ("gain_micro", "s")):
            rows = [data["by_pair"]["all"]["models"][model][measure_] for model in models]
            points = np.array([row["points"] for row in rows])
            reach = np.abs(np.array([row["interval"] for row in rows]).T - points)
            at = np.arange(len(models)) + 0.4 * shift + (0.15 if marker == "s" else 0) - 0.27
            label = f"{name}, over {'votes' if marker == 's' else 'users'}"
            middle.errorbar(at, points, reach, fmt=marker, color=f"C{shift}", label=label, capsize=2)
    middle.set_xticks(range(len(models)), models)
    middle.set(ylabel="points over global", title="Known users, unseen pairs (95 % over users)")
    for shift, (name, data) in enumerate(found.items()):
        rows = [data["by_user"]["all"]["models"][f"personal@{n_own}"]["gain_macro"] for n_own in N_OWN]
        points, bounds = [row["points"] for row in rows], np.array([row["interval"] for row in rows]).T
        right.plot(N_OWN, points, f"C{shift}o-", label=f"{name}, over users")
        right.fill_between(N_OWN, *bounds, color=f"C{shift}", alpha=0.15)
    right.set(xlabel="own votes of a new user", ylabel="points over global", title="New users (95 % over users)")
    for axes in (middle, right):
        axes.axhline(0, color="grey", lw=1)
        axes.legend(fontsize=8)
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(OUT / f"real_people.{suffix}", dpi=110)


def _headline(data: dict[str, object]) -> dict[str, object]:
    """By pair, and for new users at each number of own votes, in points over `global`."""
    pair, user = (data[protocol]["all"]["models"] for protocol in ("by_pair", "by_user"))
    return {
        "by_pair": {
            f"{model}_{kind}": row[kind]["mean"]
            for model in ("global", "personal")
            for kind in ("macro", "micro")
            for row in (pair[model],)
        }
        | {kind: pair["personal"][kind] for kind in ("gain_macro", "gain_micro")},
        "by_user_gain_macro": {n_own: user[f"personal@{n_own}"]["gain_macro"]["points"] for n_own in N_OWN},
        "evaluated_users": data["evaluated_users"],
        "seeds": data["seeds"],
    }


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # for the two processes below
    loaded = {name: load(name) for name in READERS}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        found = {name: measure(data, writers, pool) for name, (data, writers) in loaded.items()}
    result = {**found, **provenance("make real-people")}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "real_people.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(found)
    value = {name: _headline(data) for name, data in found.items()} | {"track": "reward: frozen features, linear heads"}
    record("B4", value)
    sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
