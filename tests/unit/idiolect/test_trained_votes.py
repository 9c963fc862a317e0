"""Which votes a bundle was trained on: written, looked up on disk, carried along, refused when damaged."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from idiolect.bundle import Bundle
from idiolect.errors import BundleCorrupt, BundleShapeMismatch
from idiolect.files.folder import TRAINED_VOTES, Folder
from idiolect.learning import GivenVote
from idiolect.trained_votes import TrainedVotes, digest
from tests.parts.bundles import refused_flips, small_bundle

VOTES = [GivenVote(f"{n:016x}", n % 2 == 0, n) for n in range(200)]


def trained_on(user_id: str, votes: list[GivenVote]) -> TrainedVotes | None:
    return TrainedVotes.of(digest(user_id, vote.pair_id, vote.first) for vote in votes)


def test_a_bundle_knows_the_votes_that_it_was_trained_on(tmp_path: Path):
    bundle = small_bundle(tmp_path / "bundle", trained_votes=trained_on("böb", VOTES[:100]))
    votes = bundle.trained_votes
    assert votes is not None
    assert votes.among("böb", VOTES) == set(VOTES[:100])
    assert votes.among("ada", VOTES) == votes.among("böb", []) == set()
    other_side = [GivenVote(vote.pair_id, not vote.first, 5) for vote in VOTES]
    assert votes.among("böb", other_side) == set()
    assert votes.among("böb", [GivenVote(VOTES[0].pair_id, None, 5, kind="tie")]) == set()
    later = GivenVote(VOTES[0].pair_id, VOTES[0].first, 10**12, "vote")
    assert votes.among("böb", [later]) == {later}


def test_a_digest_is_what_the_format_says():
    """docs/bundle-format.md: the first 8 bytes of SHA-256 of pair, side and user, little-endian."""
    assert digest("ada", "0123456789abcdef", True) == 0xB53FDA83554B4E40
    tie = hashlib.sha256(b"0123456789abcdef=ada").digest()[:8]
    assert digest("ada", "0123456789abcdef", None) == int.from_bytes(tie, "little")


def test_a_trained_tie_is_known_again(tmp_path: Path):
    tie = GivenVote("0123456789abcdef", None, 7, kind="tie")
    votes = small_bundle(tmp_path / "bundle", trained_votes=trained_on("ada", [tie])).trained_votes
    assert votes is not None
    assert votes.among("ada", [tie]) == {tie}
    assert votes.among("ada", [GivenVote(tie.pair_id, True, 7), GivenVote(tie.pair_id, False, 7)]) == set()


def test_bundles_that_say_nothing_of_votes_are_read(tmp_path: Path):
    assert small_bundle(tmp_path / "bundle").trained_votes is None
    assert TrainedVotes.of([]) is None


def test_what_votes_were_trained_on_is_part_of_what_is_served(tmp_path: Path):
    none = small_bundle(tmp_path / "none")
    some, same = (small_bundle(tmp_path / name, trained_votes=trained_on("ada", VOTES)) for name in ("some", "same"))
    assert none.bundle_id != some.bundle_id == same.bundle_id
    assert refused_flips(tmp_path / "some") == refused_flips(tmp_path / "none") + 7


@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        ({"votes": np.array([1, 2], np.int64)}, BundleShapeMismatch),
        ({"votes": np.array([[1, 2]], np.uint64)}, BundleShapeMismatch),
        ({"votes": np.array(1, np.uint64)}, BundleShapeMismatch),
        ({"votes": np.zeros(0, np.uint64)}, BundleCorrupt),
        ({"digests": np.array([1, 2], np.uint64)}, BundleShapeMismatch),
        ({"votes": np.array([1, 2], np.uint64), "more": np.zeros(1)}, BundleShapeMismatch),
        ({}, BundleShapeMismatch),
        ({"votes": np.array([2, 1], np.uint64)}, BundleCorrupt),
        ({"votes": np.array([1, 1], np.uint64)}, BundleCorrupt),
    ],
)
def test_another_file_is_refused(tmp_path: Path, tensors, error):
    save_file(tensors, tmp_path / TRAINED_VOTES)
    with pytest.raises(error, match=TRAINED_VOTES):
        TrainedVotes.read(Folder.as_it_is(tmp_path))


def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path):
    for content in (b"", b"junk", b"\xff" * 64, b"\x08" + bytes(7) + b"{}      "):
        (tmp_path / TRAINED_VOTES).write_bytes(content)
        with pytest.raises((BundleCorrupt, BundleShapeMismatch), match=TRAINED_VOTES):
            TrainedVotes.read(Folder.as_it_is(tmp_path))


def test_a_bundle_without_its_votes_is_refused(tmp_path: Path):
    small_bundle(tmp_path / "bundle", trained_votes=trained_on("ada", VOTES))
    (tmp_path / "bundle" / TRAINED_VOTES).unlink()
    with pytest.raises(Exception, match=TRAINED_VOTES):
        Bundle.read(tmp_path / "bundle")
