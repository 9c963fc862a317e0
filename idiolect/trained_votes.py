"""Which votes a bundle's user codes were trained on: they are in the codes, and are no evidence on top of them.

One file, `trained_votes.safetensors`: 64-bit digests of (user, pair, side), one for each answer, in ascending order.
A server holds 8 bytes of each, and Redis nothing. Beside a million of them another vote is taken for one of them with a
probability of 10^-13.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from idiolect.errors import BundleCorrupt
from idiolect.files.folder import TRAINED_VOTES, Folder
from idiolect.files.tensors import read_tensors
from idiolect.learning import GivenVote

TENSOR = "votes"

Digests = NDArray[np.uint64]


def digest(user_id: str, pair_id: str, first: bool | None) -> int:
    """What stands for a user's answer to a pair (idiolect.bank.pair_id), on whichever day it was given."""
    side = "=" if first is None else ">" if first else "<"
    content = f"{pair_id}{side}{user_id}"
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "little")


@dataclass(frozen=True)
class TrainedVotes:
    """At least one vote. `digests` [n] ascend, each is there once."""

    digests: Digests

    @classmethod
    def of(cls, digests: Iterable[int]) -> Self | None:
        """None where there are none: no code was trained on any vote."""
        found = np.unique(np.fromiter(digests, np.uint64))
        return cls(found) if len(found) else None

    def among(self, user_id: str, votes: Iterable[GivenVote]) -> frozenset[GivenVote]:
        """The votes of a user that the user's code was trained on."""
        listed = list(votes)
        wanted = np.array([digest(user_id, vote.pair_id, vote.first) for vote in listed], np.uint64)
        places = np.minimum(np.searchsorted(self.digests, wanted), len(self.digests) - 1)
        return frozenset(vote for vote, known in zip(listed, self.digests[places] == wanted, strict=True) if known)

    def write(self, folder: Path) -> None:
        """Into the folder of a bundle."""
        save_file({TENSOR: np.ascontiguousarray(self.digests, np.uint64)}, folder / TRAINED_VOTES)
        (folder / TRAINED_VOTES).chmod(0o644)

    @classmethod
    def read(cls, files: Folder) -> Self:
        """Read and check the file. Raises BundleCorrupt, BundleShapeMismatch."""
        digests = read_tensors(files.read(TRAINED_VOTES), TRAINED_VOTES, {TENSOR: ("U64", (-1,))})[TENSOR]
        if not len(digests) or not (digests[1:] > digests[:-1]).all():
            raise BundleCorrupt(f"{TRAINED_VOTES}: empty, not in ascending order, or a vote stands there twice")
        return cls(digests)
