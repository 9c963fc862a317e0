"""Trained codes as they lie in Redis."""

from collections import Counter

import numpy as np
import pytest

from idiolect.errors import UserCodeError
from idiolect_server.store.codes import USERS_PER_BUCKET, CodeTable
from idiolect_server.store.keyspace import N_SHARDS
from tests.parts.bundles import small_bundle

WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(16), size=500).astype(np.float32)


def test_cluster_weights_are_packed_and_others_are_not(tmp_path):
    assert CodeTable.of(small_bundle(tmp_path / "clusters")).n_buckets == 1
    assert CodeTable.of(small_bundle(tmp_path / "individual", kind="individual")).n_buckets == 0


def test_packed_weights_come_back_near_enough():
    table = CodeTable("b", 16, 3)
    packed = [table.encode(code) for code in WEIGHTS]
    assert {len(value) for value in packed} == {32}
    back = np.array([table.decode(value) for value in packed])
    assert back.dtype == np.float32
    assert np.abs(back - WEIGHTS).max() <= 2**-12
    assert np.abs(back.sum(axis=1) - 1).max() < 1e-3  # what UserModel.check allows


def test_what_was_not_packed_is_refused():
    table = CodeTable("b", 16, 3)
    for value in (b"", b"x" * 31, b"x" * 34):
        with pytest.raises(UserCodeError, match="32"):
            table.decode(value)
    with pytest.raises(UserCodeError, match="finite"):
        table.encode(np.full(16, np.nan, np.float32))


def test_buckets_stay_small_and_hold_every_user_once():
    """Redis keeps a hash flat up to 128 fields."""
    user_ids = [f"user-{number}" for number in range(N_SHARDS * USERS_PER_BUCKET * 3)]
    table = CodeTable("b", 16, 3)
    entries = list(table.entries(user_ids, np.tile(WEIGHTS[0], (len(user_ids), 1))))
    sizes = Counter({key: len(fields) for key, fields in entries})
    assert sum(sizes.values()) == len(user_ids)
    assert len(sizes) == 3 * N_SHARDS
    assert max(sizes.values()) < 128
    key, field = table.place("user-7")
    assert table.encode(WEIGHTS[0]) == dict(entries)[key][field]
