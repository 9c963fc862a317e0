"""Margins of organic pairs, which the scorer asks the model for once under each bundle (users/scorer.py)."""

from collections.abc import Sequence

import numpy as np

from idiolect.votes import Floats
from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, of_wrong_type
from idiolect_server.store.keyspace import OURS

TRIES_TTL_S = 24 * 3600

_COUNT_TRY = (
    OURS
    + """
local tries = number(KEYS[1]) + 1
redis.call('SET', KEYS[1], tries, 'EX', ARGV[1])
return tries
"""
)

_PUT = OURS + "make_way(KEYS[1], 'hash') return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])"


class MarginTable:
    """Every method raises StoreError."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    async def get(self, bundle_id: str, pair_ids: Sequence[str]) -> dict[str, Floats]:
        """What `put` stored of these pairs; those that were never scored are absent."""
        shards: dict[int, list[str]] = {}
        for pair in pair_ids:
            shards.setdefault(keyspace.shard(pair), []).append(pair)
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for number, pairs in shards.items():
                pipeline.hmget(keyspace.margins(bundle_id, number), pairs)
            found = await pipeline.execute(raise_on_error=False)
            if failed := [one for one in found if isinstance(one, Exception) and not of_wrong_type(one)]:
                raise failed[0]
        return {
            pair: np.frombuffer(value, "<f8").astype(np.float64)
            for pairs, values in zip(shards.values(), found, strict=True)
            if not isinstance(values, Exception)
            for pair, value in zip(pairs, values, strict=True)
            if isinstance(value, bytes) and len(value) % 8 == 0
        }

    async def put(self, bundle_id: str, pair: str, margins: Floats) -> None:
        """Numbers that tell a pair's margins under every code of a bundle; the first to come are kept."""
        async with mapped():
            value = np.asarray(margins, "<f8").tobytes()
            await call(self._redis, _PUT, [keyspace.margins(bundle_id, keyspace.shard(pair))], pair, value)

    async def count_try(self, bundle_id: str, pair: str) -> int:
        """How often this pair has been tried to score under a bundle, this time included, within TRIES_TTL_S."""
        key = keyspace.tries(bundle_id, pair)
        async with mapped():
            return int(await call(self._redis, _COUNT_TRY, [key], TRIES_TTL_S))
