"""make length-users (B1): ten users who are rules, seven prefer the longer reply and three the shorter.

The paper's rule and draw (training/formats/tldr.py) on replies of the demo model itself: the first sentence against
the first two. Trains P-DPO with individual and with cluster users, and the pooled baseline with the same steps, for
each seed, and writes docs/results/length_users.json and .png. A run that is done is not done again.
"""

import json
import subprocess
import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml

from tests.live import ROOT
from tests.record import provenance, record
from training.demo_pairs import sentences
from training.formats.tldr import prefers_shorter

RUNS = ROOT / "runs" / "length_users"
OUT = ROOT / "docs" / "results"
N_USERS, N_TRAIN, N_TEST = 10, 32, 24
MAX_CHARACTERS = 170
METHODS: dict[str, dict[str, Any]] = {
    "individual": {"user_model": {"kind": "individual", "n_user_tokens": 4}, "alpha": 0.5, "row_lr": 0.01},
    "cluster": {"user_model": {"kind": "cluster", "n_user_tokens": 4, "n_clusters": 3}, "alpha": 0.5, "row_lr": 0.1},
    "pooled": {"user_model": {"kind": "individual", "n_user_tokens": 4}, "alpha": 0.0},
}
COMMON = {"lora_lr": 1e-3, "user_lr": 0.01, "batch_pairs": 8, "warmup_steps": 3, "max_prompt_tokens": 96}


def write_data() -> None:
    """train.jsonl and test.jsonl, split by prompt."""
    pairs = []
    for line in (ROOT / "training" / "runs" / "demo" / "replies.jsonl").read_text().splitlines():
        reply = json.loads(line)
        parts = sentences(reply["reply"])
        long = " ".join(parts[:2])
        # The last sentence of a reply is cut where the reply was: two whole ones need a third.
        if len(parts) > 2 and len(long) <= MAX_CHARACTERS:
            pairs.append((reply["prompt"], parts[0], long))
    pairs.sort()
    RUNS.mkdir(parents=True, exist_ok=True)
    shorter = prefers_shorter(N_USERS)
    for name, chunk in (("train", pairs[:N_TRAIN]), ("test", pairs[N_TRAIN : N_TRAIN + N_TEST])):
        with (RUNS / f"{name}.jsonl").open("w") as file:
            for prompt, short, long in chunk:
                for user in range(N_USERS):
                    chosen, rejected = (short, long) if shorter[user] else (long, short)
                    turns = [
                        {"role": "system", "content": "You answer questions."},
                        {"role": "user", "content": prompt},
                    ]
                    row = {"user_id": f"user-{user + 1}", "messages": turns, "chosen": chosen, "rejected": rejected}
                    file.write(json.dumps(row) + "\n")


def train(method: str, seed: int) -> dict[str, Any]:
    out = RUNS / f"{method}-{seed}"
    if not (out / "evaluation.json").is_file():
        run = {"train": "train.jsonl", "test": "test.jsonl", "seed": seed} | COMMON | METHODS[method]
        config = RUNS / f"{method}-{seed}.yaml"
        config.write_text(yaml.safe_dump(run))
        subprocess.run([sys.executable, "-m", "training", "fit", str(config), "--out", str(out)], check=True, cwd=ROOT)
    evaluation: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return evaluation


def main(n_seeds: int = 3) -> None:
    write_data()
    shorter = [f"user-{n + 1}" for n, short in enumerate(prefers_shorter(N_USERS)) if short]
    evaluations: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for seed in range(n_seeds):
        for method in METHODS:
            evaluations[method].append(train(method, seed))
    summary = {}
    for method, found in evaluations.items():
        minority = [float(np.mean([e["users"][user]["accuracy"] for user in shorter])) for e in found]
        summary[method] = {
            "mean": [round(e["accuracy"]["mean"], 4) for e in found],
            "worst_user": [round(e["accuracy"]["worst"], 4) for e in found],
            "users_who_prefer_shorter": [round(value, 4) for value in minority],
            "generic": [round(e["generic_accuracy"]["mean"], 4) for e in found],
            "ece": [round(e["calibration"]["ece"], 4) for e in found],
            "nll": [{name: round(value, 4) for name, value in e["nll"].items()} for e in found],
        }
    result = {
        "users": N_USERS,
        "prefer_shorter": shorter,
        "train_pairs_a_user": N_TRAIN,
        "test_pairs_a_user": N_TEST,
        "seeds": n_seeds,
        "methods": summary,
        **provenance("make length-users"),
    }
    (OUT / "length_users.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(evaluations)
    value = {
        method: {"mean": min(s["mean"]), "worst_user": min(s["worst_user"]), "seeds": n_seeds}
        for method, s in summary.items()
    }
    threshold = "individual and cluster: mean >= 0.90, worst user >= 0.80, every seed; pooled beside them"
    record(ROOT / "docs" / "evidence.json", "B1", value, threshold, "make length-users")
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")


def draw(evaluations: dict[str, list[dict[str, Any]]]) -> None:
    users = [f"user-{n + 1}" for n in range(N_USERS)]
    figure, axes = plt.subplots(figsize=(8, 3.5))
    for place, (method, found) in enumerate(evaluations.items()):
        values = np.array([[e["users"][user]["accuracy"] for user in users] for e in found])
        spread = (values.mean(0) - values.min(0), values.max(0) - values.mean(0))
        axes.bar(np.arange(N_USERS) + 0.27 * (place - 1), values.mean(0), 0.25, yerr=spread, label=method)
    axes.set_xticks(range(N_USERS), users, rotation=30)
    axes.set_ylabel("held-out preference accuracy")
    axes.legend(loc="lower right")
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(OUT / f"length_users.{suffix}", dpi=110)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
