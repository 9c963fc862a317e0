"""Which comparisons are held out, decided by what they say: adding data never moves an old one."""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Literal
from unicodedata import normalize

from idiolect_training.data.lines import some
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadRunConfig

log = logging.getLogger(__name__)

By = Literal["prompt", "user", "pair"]


def split(
    preferences: Sequence[Preference], by: By, test_share: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """Training and test comparisons, each in the order given; no key is on both sides.

    by "prompt": the first user turn, so that later turns of a conversation stay with it.
    by "user": the user id. by "pair": the two replies, whichever was chosen. Texts are `plain`.
    `test_share` is the share of keys, on average, not of comparisons. Users who are left without training comparisons
    are named in the log, unless they are what is split. Raises BadRunConfig when a side is empty.
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
    if by != "user" and (lost := sorted({p.user_id for p in test} - {p.user_id for p in train})):
        log.warning("split by %s: all comparisons of %d users are held out: %s", by, len(lost), some(lost))
    return train, test


def overlap(train: Iterable[Preference], test: Iterable[Preference]) -> list[Preference]:
    """The test comparisons whose prompt and two replies stand in the training data too, whoever chose which."""
    known = {_pair(preference) for preference in train}
    return [preference for preference in test if _pair(preference) in known]


def plain(text: str) -> str:
    """The text as a reader sees it: composed characters (NFC), white space of any kind and length as one space.

    >>> plain(" Cafe\u0301,\u00a0 please\\n")
    'Café, please'
    """
    return " ".join(normalize("NFC", text).split())


def _key(preference: Preference, by: By) -> list[str]:
    if by == "user":
        return [preference.user_id]
    if by == "pair":
        return sorted((plain(preference.chosen), plain(preference.rejected)))
    return [plain(next(turn["content"] for turn in preference.turns() if turn["role"] == "user"))]


def _pair(preference: Preference) -> tuple[str, ...]:
    return (*_key(preference, "prompt"), *_key(preference, "pair"))


def _fraction(seed: int, key: list[str]) -> float:
    """Uniform in [0, 1) over keys."""
    digest = hashlib.blake2b(json.dumps([seed, key]).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
