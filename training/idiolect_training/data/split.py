"""Which comparisons are held out, decided by what they say: adding data never moves an old one."""

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadRunConfig

By = Literal["prompt", "user", "pair"]


def split(
    preferences: Sequence[Preference], by: By, test_share: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """Training and test comparisons, each in the order given; no key is on both sides.

    by "prompt": the first user turn, so that later turns of a conversation stay with it.
    by "user": the user id. by "pair": the two replies, whichever was chosen.
    `test_share` is the share of keys, on average, not of comparisons. Raises BadRunConfig when a side is empty.
    """
    train: list[Preference] = []
    test: list[Preference] = []
    for preference in preferences:
        (test if _fraction(seed, _key(preference, by)) < test_share else train).append(preference)
    if not train or not test:
        side = "test" if train else "training"
        raise BadRunConfig(
            f"split by {by}: {len(preferences)} comparisons leave the {side} side empty",
            hint="another seed or share, or a split by something that differs more often",
        )
    return train, test


def _key(preference: Preference, by: By) -> list[str]:
    if by == "user":
        return [preference.user_id]
    if by == "pair":
        return sorted((preference.chosen, preference.rejected))
    return [next(turn["content"] for turn in preference.turns() if turn["role"] == "user")]


def _fraction(seed: int, key: list[str]) -> float:
    """Uniform in [0, 1) over keys."""
    digest = hashlib.blake2b(json.dumps([seed, key]).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
