"""make newcomers (P1, P2, P3): strangers who slip, who are nobody we know, and who change, as the server infers them.

Simulated margins, so that what is measured is the inference alone, through the code that serves
(idiolect/learning.py). Nothing is fitted here, and the server is told neither how often users slip nor who they are.
Writes docs/results/newcomers.json.
"""

import json
import sys
from collections import defaultdict
from itertools import product
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.learning.reply_margins import DEMO, read_margins
from bench.learning.weak_votes import clusters, said
from bench.people.world import SHARE, Newcomer, Says, World
from bench.results import ROOT, provenance, record
from idiolect.bundle import Bundle
from idiolect.inference.voter import UNFAMILIAR, impression
from idiolect.learning import WEIGHTS, VoteKind
from idiolect.votes import Floats, Votes

OUT = ROOT / "docs" / "results" / "newcomers.json"
COMMAND = "make newcomers"
SLIPS = (0.0, 0.1, 0.25)
FANO = {6: (2.2, 4.1, 11.5), 16: (3.5, 6.6, 18.6)}
"""By K, for each of SLIPS: answers that any way of asking needs for 5 % of errors at most. By Fano's inequality they
are log K, less what 5 % of errors leave open, over what an answer tells; and no answer tells more than log 2."""
STRANGERS = ("new kind", "contrarian", "coin", "always first", "always longer", "half and half")
OTHERS = (0.15, 0.25, 0.35, 0.5, 0.65)
"""Values of UNFAMILIAR that are compared."""
HONEST = ("slips 0 %", "slips 10 %", "slips 25 %")
DEMO_KINDS: tuple[VoteKind, ...] = ("comparison", "thumb")
N_HISTORY, N_NEW = 200, 20


def until_it_stops(k: int, slips: float, n_users: int, rng: np.random.Generator) -> dict[str, float]:
    """P1: questions of 6 temperatures under every cluster."""
    found = []
    for _ in range(n_users):
        world, cluster = World.drawn(rng, np.full(k, 1 / k), size=6, n_tests=0), int(rng.integers(k))
        user, n = Newcomer(world, world.of_cluster(cluster, slips, rng), rng), 0
        while (place := user.best()) is not None:
            user.answer(place)
            n += 1
        assert user.known is not None
        taste = user.known.impression.taste.code
        found.append((n, taste.argmax() == cluster, taste.max() >= 0.95))
    n_answers, right, sure = np.array(found).T
    floor = FANO[k][SLIPS.index(slips)]
    return {
        "answers": float(n_answers.mean()),
        "over_floor": float(n_answers.mean() / floor),
        "wrong": float(1 - right.mean()),
        "right_of_the_sure": float(right[sure > 0].mean()),
        "sure": float(sure.mean()),
    }


def stranger(name: str, world: World, rng: np.random.Generator) -> tuple[Says, Floats]:
    """What a user of that name says of the questions, and wants of the tests: 1 or -1, [n]."""
    one, other = (int(cluster) for cluster in rng.choice(4, size=2, replace=False))
    wanted = np.sign(world.tests[:, one])
    by_one, by_other = world.of_cluster(one, 0, rng), world.of_cluster(other, 0, rng)
    coins, coins_of_tests = rng.random(len(world.bank.questions)) < 0.5, rng.choice([-1.0, 1.0], size=len(wanted))
    if name.startswith("slips"):
        return world.of_cluster(one, int(name.split()[1]) / 100, rng), wanted
    if name == "contrarian":
        return lambda place, shown: not by_one(place, shown), -wanted
    if name == "half and half":
        half = np.where(rng.random(len(wanted)) < 0.5, wanted, np.sign(world.tests[:, other]))
        return lambda place, shown: (by_one if rng.random() < 0.5 else by_other)(place, shown), half
    if name == "always first":
        return lambda place, shown: shown, coins_of_tests
    if name == "coin":
        return lambda place, shown: bool(rng.random() < 0.5), coins_of_tests
    # A new kind, and one who takes the longer reply: something of each question of which no cluster says anything.
    return lambda place, shown: bool(coins[place]), coins_of_tests


def after(n_votes: int, name: str, asked: bool, n_users: int, rng: np.random.Generator) -> dict[str, Any]:
    """P2: answers to the questions that the server asks, or to any; shares, and points of accuracy on the tests."""
    found = []
    for _ in range(n_users):
        world = World.drawn(rng)
        says, wanted = stranger(name, world, rng)
        user = Newcomer(world, says, rng)
        for _ in range(n_votes):
            place = user.best() if asked else None
            user.answer(user.any_() if place is None else place)  # who is known goes on to vote
        assert user.known is not None
        seen = user.known.impression
        generic, served, sure = (
            100 * np.mean(np.sign(world.tests @ code) == wanted) for code in (SHARE, user.known.code, seen.taste.code)
        )
        # Had the prior been another: what would be said, and lost.
        others = [doubted(seen.familiar, unfamiliar) for unfamiliar in OTHERS]
        losses = [(sure - generic) * unexplained for unexplained in others]
        found.append((not user.known.explained, served - generic, sure - served, *others, *losses))
    unexplained, gained, lost, *rest = np.mean(np.array(found, float), axis=0).tolist()
    by_prior = {
        f"{unfamiliar:g}": {"unexplained": rest[place], "lost_by_doubt": rest[len(OTHERS) + place]}
        for place, unfamiliar in enumerate(OTHERS)
    }
    return {"unexplained": unexplained, "over_generic": gained, "lost_by_doubt": lost, "by_prior": by_prior}


def doubted(familiar: float, unfamiliar: float) -> bool:
    """Whether nobody we know is likelier than somebody, had UNFAMILIAR been `unfamiliar`."""
    odds = familiar / max(1 - familiar, 1e-300) * UNFAMILIAR / (1 - UNFAMILIAR) * (1 - unfamiliar) / unfamiliar
    return odds < 1


def of_the_demo(n_votes: int, kind: VoteKind, slips: float, bundle: Bundle, seed: int) -> dict[str, Any]:
    """Strangers of the demo bundle who vote on real replies, of which the margins are the model's own."""
    assert bundle.bank is not None
    tastes, slopes = said(kind, read_margins(bundle.bundle_id), slips, seed)
    prior, right = bundle.bank.prior(bundle.user_model), clusters(bundle)[tastes]
    seen = [
        impression(prior, Votes.of(one[:n_votes], weights=np.full(n_votes, WEIGHTS[kind])), bundle.bank.likelihood)
        for one in slopes
    ]
    found = {f"{u:g}": {"unexplained": float(np.mean([doubted(one.familiar, u) for one in seen]))} for u in OTHERS}
    taste = [one.taste.code.argmax() == cluster for one, cluster in zip(seen, right, strict=True)]
    return {"taste": float(np.mean(taste)), "by_prior": found}


def change(n_users: int, rng: np.random.Generator) -> dict[str, Any]:
    """P3: votes of one taste and then of another; and users who slip, but do not change."""
    wrong: dict[str, list[bool]] = defaultdict(list)
    alarms: dict[str, list[bool]] = defaultdict(list)
    regained = []
    for _ in range(n_users):
        world = World.drawn(rng, n=N_HISTORY + N_NEW, n_tests=0)
        old, new = (int(cluster) for cluster in rng.choice(4, size=2, replace=False))
        before, now = world.of_cluster(old, 0, rng), world.of_cluster(new, 0, rng)
        votes = [world.vote(place, before(place, True), place) for place in range(N_HISTORY)]
        back = N_NEW + 1
        for n in range(1, N_NEW + 1):
            place = N_HISTORY + n - 1
            votes.append(world.vote(place, now(place, True), place))
            code = world.known(votes).code
            if n in (2, 4, 6, 8):
                wrong[str(n)].append(bool(code.argmax() != old))
            if code[new] > 0.5:
                back = min(back, n)
        regained.append(back)
        for slips in SLIPS:
            says = world.of_cluster(old, slips, rng)
            votes = [world.vote(place, says(place, True), place) for place in range(64)]
            alarms[f"slips {slips:.0%}"].append(any(world.known(votes[:n]).outdated_votes for n in range(8, 65)))
    return {
        "wrongly_switched_after_slips": {n: float(np.mean(each)) for n, each in wrong.items()},
        "regained_after": {"mean": float(np.mean(regained)), "p90": float(np.quantile(regained, 0.9))},
        "false_alarms": {name: float(np.mean(each)) for name, each in alarms.items()},
    }


def over_seeds(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each number, and how far the seeds lie apart."""
    means: dict[str, Any] = {}
    for name, first in found[0].items():
        each = [one[name] for one in found]
        if isinstance(first, dict):
            means[name] = over_seeds(each)
        else:
            means[name] = round(float(np.mean(each)), 4)
            means[f"{name}_by_seed"] = [round(float(x), 4) for x in each]
    return means


def main(seeds: int = 3, n_users: int = 120) -> None:
    generators = [np.random.default_rng(seed) for seed in range(seeds)]

    def measured(what: Any, *arguments: Any) -> dict[str, Any]:
        return over_seeds(
            [what(*arguments, n_users, rng) for rng in tqdm(generators, desc=f"{what.__name__}{arguments}")]
        )

    p1 = {f"K {k}, slips {slips:.0%}": measured(until_it_stops, k, slips) for k in FANO for slips in SLIPS}
    p2 = {
        f"{n} votes, {way}": {name: measured(after, n, name, way == "asked") for name in (*STRANGERS, *HONEST)}
        for n, way in ((16, "asked"), (16, "any"), (32, "any"))
    }
    p3, bundle = measured(change), Bundle.read(DEMO / "bundle")
    demo = {
        f"{n} votes, {kind}s, slips {slips:.0%}": over_seeds(
            [of_the_demo(n, kind, slips, bundle, seed) for seed in range(seeds)]
        )
        for n, kind, slips in product((16, 32), DEMO_KINDS, SLIPS)
    }
    written = {"P1": p1, "P2": p2, "P3": p3, "demo": demo, "users": n_users, "seeds": seeds, **provenance(COMMAND)}
    OUT.write_text(json.dumps(written, indent=2) + "\n")
    record("P1", p1)
    record("P2", p2["16 votes, asked"])
    record("P3", p3)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
