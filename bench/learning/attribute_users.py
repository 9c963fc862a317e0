"""make attribute-users (B2): six users who are rules, opposed in three pairs, beside the pooled baseline.

    concise / detailed   the first sentence alone, or the first two
    lists / prose        the same two sentences as a list of dashes, or as a paragraph
    warm / plain         the first sentence after a friendly opening, or without it

Opposed users judge the same pairs of replies, so no model that ignores the user can pass 50 %. Report and plots in
docs/results/attribute_users/.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.learning.length_users import ask, first_sentences, write_lines
from bench.publish import publish
from bench.results import record
from idiolect_training.config import RunConfig
from idiolect_training.evaluate.study import study
from tests.live import ROOT

RUNS = ROOT / "runs" / "attribute_users"
COMMAND = "make attribute-users"
N_VOTES, N_TEST = 40, 24
"""Training votes of each user, and held-out prompts."""
N_TRAIN = N_VOTES * 3 // 2
"""Training prompts: two of the three opposed pairs judge each one."""
OPENING = "Happy to help!"
OPPOSED = (("concise", "detailed"), ("lists", "prose"), ("warm", "plain"))
COMMON: dict[str, Any] = {
    "alpha": 0.75,
    "beta": 0.2,
    "lora_lr": 1e-3,
    "user_lr": 0.01,
    "row_lr": 0.01,
    "batch_pairs": 8,
    "warmup_steps": 5,
    "max_prompt_tokens": 96,
    "user_model": {"kind": "individual", "n_user_tokens": 4},
}


def compare(prompt: str, first: str, second: str, opposed: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """What the users in `opposed` say of one prompt."""
    replies = {
        "concise": first,
        "detailed": f"{first} {second}",
        "lists": f"- {first}\n- {second}",
        "prose": f"{first} {second}",
        "warm": f"{OPENING} {first}",
        "plain": first,
    }
    for one, other in opposed:
        for user, against in ((one, other), (other, one)):
            yield {"user_id": user, "messages": ask(prompt), "chosen": replies[user], "rejected": replies[against]}


def write_data(folder: Path, n_votes: int = N_VOTES) -> dict[str, Path]:
    """train.jsonl and test.jsonl, split by prompt; two pairs of users judge each one, in the test all three."""
    found = first_sentences()
    parts = {
        "train": [
            row
            for number, item in enumerate(found[: n_votes * len(OPPOSED) // 2])
            for row in compare(*item, [OPPOSED[(2 * number + turn) % len(OPPOSED)] for turn in range(2)])
        ],
        "test": [row for item in found[-N_TEST:] for row in compare(*item, OPPOSED)],
    }
    for name, rows in parts.items():
        write_lines(folder / f"{name}.jsonl", rows)
    return {name: folder / f"{name}.jsonl" for name in parts}


def main(n_seeds: int = 3) -> None:
    run = RunConfig.model_validate(COMMON | write_data(RUNS) | {"generate": {"n_prompts": 10, "max_new_tokens": 56}})
    found = study({"individual": run}, range(n_seeds), RUNS, "Attribute users: three opposed pairs")
    value: dict[str, Any] = {"seeds": n_seeds}
    for name, seeds in found.items():
        value[name] = {"diagonal": [round(one["accuracy"]["mean"], 4) for one in seeds]}
        value[name]["worst_user"] = [round(one["accuracy"]["worst"], 4) for one in seeds]
        if "confusion" in seeds[0]:
            value[name]["on_pairs_of_the_opposed_user"] = [round(_opposed(one["confusion"]), 4) for one in seeds]
    facts = {"opposed": OPPOSED, "train_pairs_a_user": N_VOTES, "test_pairs_a_user": N_TEST}
    publish("attribute_users", RUNS, facts, COMMAND)
    record("B2", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _opposed(confusion: dict[str, Any]) -> float:
    """Accuracy of users' tokens on the pairs of those who want the opposite."""
    at, values = confusion["users"].index, np.array(confusion["accuracy"])
    pairs = [*OPPOSED, *(pair[::-1] for pair in OPPOSED)]
    return float(np.mean([values[at(one), at(other)] for one, other in pairs]))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
