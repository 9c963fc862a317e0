"""make ties: what do votes tell by which neither reply was preferred? Real people (P4), and simulated strangers.

Writes docs/results/ties.json, lines P4 and P4-simulated. Real votes are LLMFAO's and UKP ConvArg's, from
../shared/data, on the reward track: features that are counted in the texts, linear rewards.
"""

import json
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.people.real_votes import READERS, load
from bench.people.tied_people import measure
from bench.people.tied_strangers import N_ANSWERS, PRIORS, STRANGERS
from bench.people.tied_strangers import measure as simulate
from bench.results import provenance, record

OUT = Path(__file__).parents[2] / "docs" / "results" / "ties.json"
N_STRANGERS = 50
"""Of each kind, a seed."""


def main(n_seeds: int = 3) -> None:
    torch.set_num_threads(1)
    strangers = simulate(n_seeds, N_STRANGERS)
    real = {name: measure(load(name, ties=True, encoded=False)[0], n_seeds) for name in READERS}
    written = {"P4": real, "strangers": strangers, "seeds": n_seeds, "strangers_per_seed": N_STRANGERS}
    OUT.write_text(json.dumps({**written, **provenance("make ties")}, indent=2) + "\n")
    record("P4", real)
    record("P4-simulated", summary(strangers))


def summary(strangers: Mapping[str, Any]) -> dict[str, Any]:
    """Points of used over dropped: over all who tie, by prior and answers; of nobody; and the case that fares worst."""
    nobody = next(iter(STRANGERS))
    ahead = {name: row["used_over_dropped"] for name, row in strangers.items()}
    ties = {name: each for name, each in ahead.items() if nobody not in name}
    worst = min(ties, key=lambda name: ties[name]["points"] + 2 * ties[name]["se"])
    return {
        "who_ties": {
            f"{kind}, {n} answers": round(
                float(np.mean([each["points"] for name, each in ties.items() if kind in name and f" {n} " in name])), 2
            )
            for kind, n in product(PRIORS, N_ANSWERS)
        },
        "nobody_ties": {name: each["points"] for name, each in ahead.items() if nobody in name},
        "worst": {"who": worst, **ties[worst], "upper": round(ties[worst]["points"] + 2 * ties[worst]["se"], 2)},
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
