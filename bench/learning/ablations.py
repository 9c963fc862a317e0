"""make ablations (B5): what the settings are worth, one changed at a time, on the users of attribute_users.py.

User tokens 1, 4, 10; alpha 0 (pooled), 0.5, 0.75, 1; where users start, against how many votes they gave; where user
tokens stand. Writes docs/results/ablations/ and line B5.
"""

import json
import sys
from statistics import mean
from typing import Any

from bench.learning.attribute_users import COMMON, write_data
from bench.publish import publish
from bench.results import record
from idiolect_training.config import RunConfig
from idiolect_training.evaluate.study import study
from tests.live import ROOT

RUNS = ROOT / "runs" / "ablations"
COMMAND = "make ablations"
SEEDS = 1
"""Runs take some five minutes each; `make attribute-users` tells how much seeds differ."""
VOTES = (5, 10, 40)
STARTS = ("generic", "vocabulary")


def methods() -> dict[str, RunConfig]:
    """The base run is 4 tokens, alpha 0.75, 40 votes per user, start generic, placement after_system."""
    data = {n_votes: write_data(RUNS / f"{n_votes}-votes", n_votes) for n_votes in VOTES}
    base = COMMON | data[40]

    def users(**changes: object) -> dict[str, Any]:
        return {"user_model": {"kind": "individual", "n_user_tokens": 4} | changes}

    changed: dict[str, dict[str, Any]] = {
        "base": {},
        "1 token": users(n_user_tokens=1),
        "10 tokens": users(n_user_tokens=10),
        "alpha 0.5": {"alpha": 0.5},
        "alpha 1": {"alpha": 1.0},
        "after_bos": {"placement": "after_bos"},
    }
    for n_votes in VOTES:
        # The same number of updates for all: what differs is how much there is to know.
        epochs = {"epochs": COMMON.get("epochs", 1) * 40 // n_votes}
        for start in STARTS:
            if (n_votes, start) != (40, "generic"):
                changed[f"{n_votes} votes, {start}"] = data[n_votes] | users(start=start) | epochs
    return {name: RunConfig.model_validate(base | change) for name, change in changed.items()}


def main() -> None:
    found = study(methods(), range(SEEDS), RUNS, "Ablations on attribute users")
    found["alpha 0"] = found.pop("pooled")
    accuracy = {name: [round(one["accuracy"]["mean"], 4) for one in seeds] for name, seeds in found.items()}
    by_votes = {
        start: {n: mean(accuracy.get(f"{n} votes, {start}", accuracy["base"])) for n in VOTES} for start in STARTS
    }
    publish("ablations", RUNS, {"accuracy_by_votes_and_start": by_votes}, COMMAND)
    value = {"seeds": SEEDS, "accuracy": accuracy}
    record("B5", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
