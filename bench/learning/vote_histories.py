"""make vote-histories (M5): do server, export, reader and fit count the same votes, and none twice after a retraining?

Users of small worlds vote at random, repeat themselves, change their minds, take votes back and are erased, over a real
Redis. In between everything is exported, read, trained on (real `fit` of a tiny random model) and served anew
(tests/parts/histories). What counts is worked out by an own rule and compared with what each part takes.
"""

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

import torch

from bench.results import record
from idiolect_training.demo_model import demo_model
from tests.parts.embedded import embedded_store
from tests.parts.histories.tally import Found
from tests.parts.histories.world import World
from tests.parts.tiny import tiny_model

N_WORLDS, N_USERS, N_ROUNDS = 10, 50, 2


async def live(folder: Path, found: Found) -> None:
    model = tiny_model(folder / "model", demo_model())
    for seed in range(N_WORLDS):
        world = folder / f"{seed}"
        world.mkdir()
        async with embedded_store(world) as store:
            await World(world / "world", model, store, seed, N_USERS, found).live(N_ROUNDS)
        sys.stdout.write(f"{found}\n")


def main() -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # so small a model is not faster with more
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder), found))
    record(
        "M5",
        {
            "histories": found.histories,
            "votes": found.votes,
            "retrainings": found.retrainings,
            "trained_votes": found.trained,
            "disagreements": dict(found.disagreements),
            "counted_twice": found.counted_twice,
        },
    )


if __name__ == "__main__":
    main()
