"""The trainer's own step on made-up pairs: tokens a second and memory, few users and a million."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from idiolect_training.config import RunConfig
from idiolect_training.fit.batch import Pair
from idiolect_training.fit.loop import build_optimizer, train_step
from idiolect_training.fit.policy import Policy

N_TOKENS = 64
"""Of a prompt, and of each of its two replies."""
N_WARM, N_STEPS = 3, 8


def pairs(n: int, n_users: int) -> list[Pair]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(n):
        ids = rng.integers(100, 40_000, 3 * N_TOKENS).tolist()
        prompt, chosen, rejected = (tuple(ids[at : at + N_TOKENS]) for at in range(0, 3 * N_TOKENS, N_TOKENS))
        made.append(Pair(index, int(rng.integers(1, n_users + 1)), prompt, chosen, rejected, offset=1))
    return made


def training(model: Path, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """Tokens a second and peak memory, by users and pairs a batch; and a million users over ten."""
    found: dict[str, Any] = {}
    for n_users in (10, 1_000_000):
        for batch_pairs in batch_sizes:
            found[f"{n_users:,} users, {batch_pairs} pairs"] = _measure(model, n_users, batch_pairs)
    few, many = (found[f"{n_users:,} users, {batch_sizes[-1]} pairs"]["tokens_per_s"] for n_users in (10, 1_000_000))
    return {**found, "million_over_ten": round(many / few, 3)}


def _measure(model: Path, n_users: int, batch_pairs: int) -> dict[str, float]:
    users = {"kind": "cluster", "n_user_tokens": 4, "n_clusters": 16}
    run = RunConfig.model_validate(
        {"train": "none.jsonl", "model": str(model), "user_model": users, "batch_pairs": batch_pairs}
    )
    policy = Policy(run, n_users)
    optimizer, made = build_optimizer(run, policy), pairs(4 * batch_pairs, n_users)
    reference = torch.full((len(made), 2), -100.0)
    cuda = policy.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    rates = []
    for step in range(1, N_WARM + N_STEPS + 1):
        at = step % 4 * batch_pairs
        began = time.perf_counter()
        train_step(run, policy, optimizer, made[at : at + batch_pairs], step, 1000, reference, 1e9)
        if cuda:
            torch.cuda.synchronize()
        rates.append(3 * N_TOKENS * batch_pairs / (time.perf_counter() - began))
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    return {"tokens_per_s": round(median(rates[N_WARM:])), "peak_gib": round(peak, 2)}
