"""make length-users (B1): ten users who are rules, seven prefer the longer reply and three the shorter.

The paper's rule and draw (data/formats/tldr.py of the trainer) on replies of the demo model itself: the first sentence
against the first two. P-DPO with cluster and with individual users and the pooled baseline with as many steps as the
longer of them, three seeds; then each user's replies to held-out prompts are counted. Report and plots in
docs/results/length_users/.
"""

import json
import random
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from bench.learning.greedy_replies import read_replies, sentences
from bench.publish import publish
from bench.results import record
from idiolect_training.config import RunConfig
from idiolect_training.data.formats.tldr import prefers_shorter
from idiolect_training.evaluate.study import study
from tests.live import ROOT

RUNS = ROOT / "runs" / "length_users"
COMMAND = "make length-users"
N_USERS, N_TRAIN, N_TEST = 10, 94, 24
VOTES_A_PROMPT = 4
MAX_CHARACTERS = 200
COMMON: dict[str, Any] = {
    "train": RUNS / "train.jsonl",
    "test": RUNS / "test.jsonl",
    "alpha": 0.75,
    "beta": 0.2,
    "lora_lr": 1e-3,
    "batch_pairs": 8,
    "warmup_steps": 5,
    "max_prompt_tokens": 96,
    "generate": {"n_prompts": 8, "max_new_tokens": 56},
}
METHODS: dict[str, dict[str, Any]] = {
    # Clusters part after some 25 steps, and only then users find theirs: one epoch (47 steps) was too short for one
    # seed of three (a user at 37.5 %).
    "cluster": {
        "user_model": {"kind": "cluster", "n_user_tokens": 4, "n_clusters": 3},
        "user_lr": 0.05,
        "row_lr": 0.5,
        "epochs": 2,
    },
    "individual": {"user_model": {"kind": "individual", "n_user_tokens": 4}, "user_lr": 0.01, "row_lr": 0.01},
}


def first_sentences() -> list[tuple[str, str, str]]:
    """(prompt, first sentence, second sentence) of the demo model's replies, shuffled once and for all."""
    found = []
    for prompt, reply in read_replies():
        parts = sentences(reply)
        # The last sentence of a reply is cut where the reply was: two whole ones need a third.
        if len(parts) > 2 and len(" ".join(parts[:2])) <= MAX_CHARACTERS:
            found.append((prompt, parts[0], parts[1]))
    return random.Random(0).sample(sorted(found), len(found))


def ask(prompt: str) -> list[dict[str, str]]:
    """A short system turn saves the longer one that the chat template would put in."""
    return [{"role": "system", "content": "You answer questions."}, {"role": "user", "content": prompt}]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_data() -> None:
    """train.jsonl and test.jsonl, split by prompt; a few users in turn judge each one, in the test all ten."""
    found = first_sentences()
    shorter = prefers_shorter(N_USERS)
    for name, chunk, n_votes in (
        ("train", found[:N_TRAIN], VOTES_A_PROMPT),
        ("test", found[N_TRAIN : N_TRAIN + N_TEST], N_USERS),
    ):
        rows = []
        for number, (prompt, first, second) in enumerate(chunk):
            for user in ((VOTES_A_PROMPT * number + vote) % N_USERS for vote in range(n_votes)):
                short, long = first, f"{first} {second}"
                chosen, rejected = (short, long) if shorter[user] else (long, short)
                rows.append(
                    {"user_id": f"user-{user + 1}", "messages": ask(prompt), "chosen": chosen, "rejected": rejected}
                )
        write_lines(RUNS / f"{name}.jsonl", rows)


def main(n_seeds: int = 3) -> None:
    write_data()
    shorter = [f"user-{n + 1}" for n, short in enumerate(prefers_shorter(N_USERS)) if short]
    methods = {name: RunConfig.model_validate(COMMON | method) for name, method in METHODS.items()}
    found = study(methods, range(n_seeds), RUNS, "Length users: seven prefer longer, three shorter")
    value: dict[str, Any] = {"seeds": n_seeds}
    for name, seeds in found.items():
        minority = [mean(one["users"][user]["accuracy"] for user in shorter) for one in seeds]
        value[name] = {
            "mean": [round(one["accuracy"]["mean"], 4) for one in seeds],
            "worst_user": [round(one["accuracy"]["worst"], 4) for one in seeds],
            "users_who_prefer_shorter": [round(accuracy, 4) for accuracy in minority],
        }
        if name != "pooled":
            words = {
                wish: mean(
                    style["median_words"]
                    for one in seeds
                    for user, style in one["style"].items()
                    if user and (user in shorter) == (wish == "shorter")
                )
                for wish in ("shorter", "longer")
            }
            value[name]["median_words_of_replies"] = {wish: round(count, 1) for wish, count in words.items()}
    facts = {
        "prefer_shorter": shorter,
        "train_pairs_a_user": N_TRAIN * VOTES_A_PROMPT / N_USERS,
        "test_pairs_a_user": N_TEST,
    }
    publish("length_users", RUNS, facts, COMMAND)
    record("B1", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
