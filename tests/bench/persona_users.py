"""make persona-users (B3): does the cluster model find out who is of one kind?

Users are mixtures of one to three interests (training/formats/anthropic_persona.py), four kinds of them, and the
trainer is told neither the kinds nor their number: K is larger. The adjusted Rand index compares each user's heaviest
cluster with the kind. Report and plots in docs/results/persona_users/. Needs ../shared/data.
"""

import json
import sys
from typing import Any

import numpy as np
import torch

from tests.bench.length_users import write_lines
from tests.bench.publish import publish
from tests.live import ROOT
from tests.record import record
from training.config import RunConfig
from training.fit import restore
from training.formats.anthropic_persona import PERSONAS, simulate_persona_users
from training.metrics import cluster_recovery
from training.split import split
from training.study import study

RUNS = ROOT / "runs" / "persona_users"
COMMAND = "make persona-users"
ART, MUSIC, SCIENCE, SPORTS = PERSONAS
KINDS = ((ART,), (MUSIC, SCIENCE, SPORTS), (ART, MUSIC), (SCIENCE, SPORTS))
"""Each interest is held by two of the four: no model that ignores the user can pass 50 %."""
N_USERS, VOTES_PER_USER, TEST_SHARE = 24, 50, 0.2
N_CLUSTERS = 6
COMMON: dict[str, Any] = {
    "train": RUNS / "train.jsonl",
    "test": RUNS / "test.jsonl",
    "alpha": 0.9,
    "beta": 0.3,
    "lora_lr": 1e-3,
    "user_lr": 0.02,
    "row_lr": 0.3,
    "batch_pairs": 6,
    "warmup_steps": 5,
    "max_prompt_tokens": 96,
    "user_model": {"kind": "cluster", "n_user_tokens": 4, "n_clusters": N_CLUSTERS},
}


def write_data() -> dict[str, str]:
    """train.jsonl and test.jsonl, split by question; the kind of each user."""
    votes = simulate_persona_users(
        ROOT.parent / "shared" / "data" / "anthropic_persona", PERSONAS, KINDS, N_USERS, VOTES_PER_USER, seed=0
    )
    system = {"role": "system", "content": "You are somebody."}
    for name, part in zip(("train", "test"), split(votes, "pair", TEST_SHARE, 0), strict=True):
        rows = [
            {
                "user_id": vote.user_id,
                "messages": [system, *vote.turns()],
                "chosen": vote.chosen,
                "rejected": vote.rejected,
            }
            for vote in part
        ]
        write_lines(RUNS / f"{name}.jsonl", rows)
    return {vote.user_id: vote.user_id.rsplit("-", 1)[0] for vote in votes}


def main(n_seeds: int = 3) -> None:
    kinds = write_data()
    run = RunConfig.model_validate(COMMON)
    found = study({"cluster": run}, range(n_seeds), RUNS, "Persona users: four kinds, six clusters")
    recovered = []
    for seed in range(n_seeds):
        policy, user_rows = restore(run.model_copy(update={"seed": seed}), RUNS / f"cluster-{seed}")
        users = sorted(user_rows)
        with torch.no_grad():
            weights = policy.users.codes(policy.rows.gather(torch.tensor([user_rows[user] for user in users])))
        recovered.append(cluster_recovery(np.asarray(weights), [kinds[user] for user in users]))
    value: dict[str, Any] = {"kinds": len(KINDS), "clusters": N_CLUSTERS, "users": N_USERS, "seeds": n_seeds}
    value |= {name: [round(one[name], 4) for one in recovered] for name in ("ari", "purity", "entropy")}
    for name, seeds in found.items():
        value[f"{name}_accuracy"] = [round(one["accuracy"]["mean"], 4) for one in seeds]
    facts = {"votes_a_user": VOTES_PER_USER, "test_share": TEST_SHARE, "recovery": recovered}
    publish("persona_users", RUNS, facts, COMMAND)
    record(ROOT / "docs" / "evidence.json", "B3", value, "ARI >= 0.9 with K >= kinds, every seed", COMMAND)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
