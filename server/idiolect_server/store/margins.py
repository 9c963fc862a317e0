"""Margins of organic pairs, which the scorer asks the model for once under each bundle (users/scorer.py)."""

from collections.abc import Sequence

import numpy as np

from idiolect.votes import Floats
from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, send

TRIES_TTL_S = 24 * 3600

_COUNT_TRY = """
local tries = redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return tries
"""


class MarginTable:
    """Every method raises StoreUnavailable when Redis does not answer in time."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    async def get(self, bundle_id: str, pair_ids: Sequence[str]) -> dict[str, Floats]:
        """What `put` stored of these pairs; those that were never scored are absent."""
        async with mapped():
            pipeline = self._redis.pipeline(transaction=False)
            for pair in pair_ids:
                pipeline.hget(keyspace.margins(bundle_id, keyspace.shard(pair)), pair)
            found = await send(pipeline)
        return {
            pair: np.frombuffer(value, "<f8").astype(np.float64)
            for pair, value in zip(pair_ids, found, strict=True)
            if isinstance(value, bytes) and len(value) % 8 == 0
        }

    async def put(self, bundle_id: str, pair: str, margins: Floats) -> None:
        """Numbers that tell a pair's margins under every code of a bundle; the first to come are kept."""
        async with mapped():
            value = np.asarray(margins, "<f8").tobytes()
            await self._redis.hsetnx(keyspace.margins(bundle_id, keyspace.shard(pair)), pair, value)

    async def count_try(self, bundle_id: str, pair: str) -> int:
        """How often this pair has been tried to score under a bundle, this time included, within TRIES_TTL_S."""
        key = keyspace.tries(bundle_id, pair)
        async with mapped():
            return int(await call(self._redis, _COUNT_TRY, [key], TRIES_TTL_S))
