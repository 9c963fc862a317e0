"""make few-votes (M6): how far users of few votes go from the generic user, and whether that is good for them.

Users who want prose or a list of the same two sentences, seven to three, and who slip in a tenth of their votes. Some
gave 16 votes, the others one to five. Each `prior` of the grid trains them with three seeds, as the demo is trained
(clusters that start with those who voted alike). Then held-out votes are
scored under each user's own tokens and under the generic user's. Writes docs/results/few_votes.json and line M6.
"""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from bench.learning.length_users import ask, first_sentences, write_lines
from bench.results import ROOT, provenance, record
from idiolect_training.config import RunConfig
from idiolect_training.data.preferences import index_users
from idiolect_training.fit.batch import tokenize
from idiolect_training.fit.loop import fit
from idiolect_training.fit.loss import pair_margins
from idiolect_training.fit.policy import Policy

RUNS = ROOT / "runs" / "few_votes"
COMMAND = "make few-votes"
FEW, MANY = (1, 2, 3, 4, 5), 16
N_MANY = 6
USERS_EACH = 4
"""Of each number of few votes."""
N_TEST = 8
SLIPS = 0.1
LISTS = 0.3
"""Share of users who want lists."""
PRIORS = (0.0, 1.0, 4.0, 16.0)
DEFAULT: float = RunConfig.model_fields["prior"].default
COMMON: dict[str, Any] = {
    "train": RUNS / "train.jsonl",
    "test": RUNS / "test.jsonl",
    "alpha": 0.75,
    "beta": 0.2,
    "lora_lr": 1e-3,
    "batch_pairs": 4,
    "warmup_steps": 5,
    "max_prompt_tokens": 96,
    "log_with": (),
    "user_model": {"kind": "cluster", "n_user_tokens": 4, "n_clusters": 3, "start": "votes"},
    "user_lr": 0.05,
    "row_lr": 0.1,
}


def votes_given() -> dict[str, int]:
    """How many votes each user gave. Names say the number, and then the wish: three of ten users want lists."""
    numbers = [MANY] * N_MANY + [n for n in FEW for _ in range(USERS_EACH)]
    wishes = ["lists" if place * 7 % 10 < 10 * LISTS else "prose" for place in range(len(numbers))]
    return {f"{n:02}-{wish}-{place}": n for place, (n, wish) in enumerate(zip(numbers, wishes, strict=True))}


def write_data() -> None:
    """train.jsonl and test.jsonl, split by prompt. Votes of both slip alike."""
    found, draw = first_sentences(), random.Random(0)
    held, rest = found[:N_TEST], found[N_TEST:]
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for user, n_votes in votes_given().items():
        for part, items in (("train", draw.sample(rest, n_votes)), ("test", held)):
            for prompt, first, second in items:
                listed, prose = f"- {first}\n- {second}", f"{first} {second}"
                wants_lists = ("lists" in user) != (draw.random() < SLIPS)
                chosen, rejected = (listed, prose) if wants_lists else (prose, listed)
                rows[part].append({"user_id": user, "messages": ask(prompt), "chosen": chosen, "rejected": rejected})
    for part, lines in rows.items():
        write_lines(RUNS / f"{part}.jsonl", lines)


def measure(run: RunConfig, out: Path) -> dict[str, Any]:
    """Fit `run`: for each user, how far it went from the generic user, and its held-out votes under both."""
    policy = fit(run, out)
    train, test = run.data()
    rows = index_users(train)
    _, pairs = tokenize(test, policy.tokenizer, policy.layout, rows, run.max_prompt_tokens, run.max_reply_tokens)
    reference = policy.reference(pairs, 16)
    own, generic = (
        run.beta * pair_margins(run, pairs, policy.score(pairs, numbers, 16, name), reference)
        for name, numbers in (("own", [pair.row for pair in pairs]), ("generic", [0] * len(pairs)))
    )
    return {user: _user(policy, row, pairs, own, generic) for user, row in rows.items()}


def _user(policy: Policy, row: int, pairs: Sequence[Any], own: torch.Tensor, generic: torch.Tensor) -> dict[str, float]:
    mine = torch.tensor([pair.row == row for pair in pairs])
    tokens = policy.user_tokens([row, 0])
    said = {"": own[mine], "generic_": generic[mine]}
    return {
        "distance": round(float((tokens[0] - tokens[1]).detach().norm()), 5),
        **{f"{who}accuracy": round(float((margin > 0).float().mean()), 4) for who, margin in said.items()},
        **{
            f"{who}log_likelihood": round(float(torch.nn.functional.logsigmoid(margin).mean()), 4)
            for who, margin in said.items()
        },
    }


def averages(users: Mapping[str, Mapping[str, float]], numbers: Sequence[int]) -> dict[str, float]:
    """Means over the users who gave so many votes."""
    chosen = [measured for user, measured in users.items() if votes_given()[user] in numbers]
    return {name: round(mean(one[name] for one in chosen), 4) for name in chosen[0]}


def main(n_seeds: int = 3) -> None:
    write_data()
    done = RUNS / "done.json"
    found: dict[str, Any] = json.loads(done.read_text()) if done.is_file() else {}
    for seed in range(n_seeds):
        for prior in PRIORS:
            name = _name(prior, seed)
            if name not in found:
                run = RunConfig.model_validate(COMMON | {"prior": prior, "seed": seed})
                found[name] = measure(run, RUNS / name)
                done.write_text(json.dumps(found, indent=2) + "\n")
                sys.stdout.write(f"{name}: {json.dumps(averages(found[name], FEW))}\n")
                sys.stdout.flush()
    value = verdict(found, n_seeds)
    result = {**value, "users": found, "model": "SmolLM2-135M-Instruct, float32", **provenance(COMMAND)}
    (ROOT / "docs" / "results" / "few_votes.json").write_text(json.dumps(result, indent=2) + "\n")
    record("M6", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def verdict(found: Mapping[str, Any], n_seeds: int) -> dict[str, Any]:
    """What the runs say: distances by votes and by prior, likelihoods by prior, and gains of users of few votes."""

    def over_seeds(prior: float, numbers: Sequence[int], name: str) -> float:
        return round(mean(averages(found[_name(prior, seed)], numbers)[name] for seed in range(n_seeds)), 4)

    everyone = (*FEW, MANY)
    by_votes = {n: over_seeds(DEFAULT, [n], "distance") for n in everyone}
    by_prior = {f"{prior:g}": over_seeds(prior, FEW, "distance") for prior in PRIORS}
    likelihood = {f"{prior:g}": over_seeds(prior, everyone, "log_likelihood") for prior in PRIORS}
    ours = [averages(found[_name(DEFAULT, seed)], FEW) for seed in range(n_seeds)]
    return {
        "seeds": n_seeds,
        "default_prior": DEFAULT,
        "distance_by_votes": by_votes,
        "distance_grows": _ordered(list(by_votes.values())),
        "distance_by_prior": by_prior,
        "distance_falls": _ordered(list(by_prior.values())[::-1]),
        "log_likelihood_by_prior": likelihood,
        "default_is_likeliest": max(likelihood, key=lambda prior: likelihood[prior]) == f"{DEFAULT:g}",
        "few_votes_accuracy_over_generic": [round(one["accuracy"] - one["generic_accuracy"], 4) for one in ours],
    }


def _name(prior: float, seed: int) -> str:
    return f"prior-{prior:g}-seed-{seed}"


def _ordered(numbers: Sequence[float]) -> bool:
    return all(one < other for one, other in pairwise(numbers))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
