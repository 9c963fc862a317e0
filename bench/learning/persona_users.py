"""make persona-users (B3): does the cluster model find out who is of one kind?

Statements are model-written (anthropics/evals): each is what somebody of one interest would say. A user holds one to
three of five interests, and prefers a statement of an interest that is held to one of another. There are four kinds of
users, none of which holds all that another does, so that any two disagree somewhere; each question is answered as often
one way as the other, so no model that ignores the user can pass 50 %. The trainer is told neither the kinds nor their
number: K is larger. The adjusted Rand index compares each user's heaviest cluster with the kind, after training and at
the start. Report and plots in docs/results/persona_users/. Needs ../shared/data.
"""

import gzip
import json
import random
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.learning.length_users import write_lines
from bench.publish import publish
from bench.results import record
from idiolect_training.config import RunConfig
from idiolect_training.demo_model import cache_dir
from idiolect_training.evaluate.metrics import cluster_recovery
from idiolect_training.evaluate.study import study
from idiolect_training.fit.loop import restore
from idiolect_training.users.cluster_start import cluster_logits
from tests.live import ROOT

RUNS = ROOT / "runs" / "persona_users"
DATA = ROOT.parent / "shared" / "data" / "anthropic_persona" / "statements.jsonl.gz"
COMMAND = "make persona-users"
INTERESTS = ("art", "literature", "music", "science", "sports")
KINDS = (("art",), ("music", "science"), ("science", "sports", "literature"), ("music", "sports"))
N_USERS, N_CLUSTERS = 24, 6
N_TRAIN, N_TEST, N_BANK = 120, 32, 96
"""Questions. Each is answered by two users of either side in training, by one of each kind in test and bank."""
MAX_CHARACTERS = 70
PROMPT = [
    {"role": "system", "content": "You are somebody."},
    {"role": "user", "content": "Say something about yourself."},
]
COMMON: dict[str, Any] = {
    "train": RUNS / "train.jsonl",
    "test": RUNS / "test.jsonl",
    "alpha": 0.9,
    "beta": 0.3,
    "nll_weight": 0.0,
    "lora_lr": 1e-3,
    "user_lr": 0.02,
    "row_lr": 0.1,
    "batch_pairs": 8,
    "warmup_steps": 5,
    "max_prompt_tokens": 96,
    "user_model": {"kind": "cluster", "n_user_tokens": 4, "n_clusters": N_CLUSTERS, "start": "votes"},
}


def kind(user_id: str) -> str:
    """The kind of a user, who is called KIND-NUMBER."""
    return user_id.rsplit("-", 1)[0]


def write_data() -> None:
    """train.jsonl, test.jsonl and bank.jsonl; no statement is in two questions."""
    left = _statements()
    held = {f"{'+'.join(KINDS[n % 4])}-{n // 4}": KINDS[n % 4] for n in range(N_USERS)}
    contested = [
        pair
        for pair in combinations(INTERESTS, 2)
        if all(any(_sides(k, *p) for k in KINDS) for p in (pair, pair[::-1]))
    ]
    answered: Counter[str] = Counter()
    rng = random.Random(0)  # who answers with whom: users must not be alike for having had the same questions
    for name, n_questions in (("train", N_TRAIN), ("test", N_TEST), ("bank", N_BANK)):
        rows = []
        for number in range(n_questions):
            one, other = contested[number % len(contested)]
            texts = {interest: left[interest].pop() for interest in (one, other)}
            for liked, disliked in ((one, other), (other, one)):
                who = sorted(
                    (user for user, interests in held.items() if _sides(interests, liked, disliked)),
                    key=lambda user: (answered[user], rng.random()),
                )
                if name == "train":
                    who = who[:2]
                    answered.update(who)
                else:
                    who = list({kind(user): user for user in who}.values())
                rows += [
                    {"user_id": user, "messages": PROMPT, "chosen": texts[liked], "rejected": texts[disliked]}
                    for user in who
                ]
        write_lines(RUNS / f"{name}.jsonl", rows)


def _sides(interests: tuple[str, ...], liked: str, disliked: str) -> bool:
    return liked in interests and disliked not in interests


def _statements() -> dict[str, list[str]]:
    """Short statements that somebody of each interest would make, shuffled once and for all."""
    found: dict[str, set[str]] = {interest: set() for interest in INTERESTS}
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            interest = row["persona"].removeprefix("interest-in-")
            if interest in found and row["matches"] and len(row["statement"]) <= MAX_CHARACTERS:
                found[interest].add(row["statement"])
    return {
        interest: random.Random(n).sample(sorted(texts), len(texts))
        for n, (interest, texts) in enumerate(found.items())
    }


def recovery(run: RunConfig, folder: Path) -> dict[str, dict[str, float]]:
    """How well the clusters know the kinds: at the start, and in the finished run at `folder`."""
    policy, user_rows = restore(run, folder)
    users = sorted(user_rows, key=user_rows.__getitem__)
    kinds = [kind(user) for user in users]
    with torch.no_grad():
        weights = policy.users.codes(policy.rows.values[1:])
    start = cluster_logits(
        run.data()[0], user_rows, N_CLUSTERS, run.seed, run.model, cache_dir() / "features.sqlite"
    ).softmax(-1)
    return {
        "start": cluster_recovery(np.asarray(start), kinds),
        "trained": cluster_recovery(np.asarray(weights), kinds),
    }


def main(n_seeds: int = 3) -> None:
    write_data()
    run = RunConfig.model_validate(COMMON)
    found = study({"cluster": run}, range(n_seeds), RUNS, "Persona users: four kinds, six clusters")
    recovered = [recovery(run.model_copy(update={"seed": seed}), RUNS / f"cluster-{seed}") for seed in range(n_seeds)]
    value: dict[str, Any] = {"kinds": len(KINDS), "clusters": N_CLUSTERS, "users": N_USERS, "seeds": n_seeds}
    value |= {name: [round(one["trained"][name], 4) for one in recovered] for name in ("ari", "purity", "entropy")}
    value["ari_at_the_start"] = [round(one["start"]["ari"], 4) for one in recovered]
    for name, seeds in found.items():
        value[f"{name}_accuracy"] = [round(one["accuracy"]["mean"], 4) for one in seeds]
    publish("persona_users", RUNS, {"training_questions": N_TRAIN, "recovery": recovered}, COMMAND)
    record("B3", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
