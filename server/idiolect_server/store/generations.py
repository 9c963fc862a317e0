"""What was generated for whom, kept for a day so that feedback can name it."""

import json
from collections.abc import Mapping
from typing import Any

from idiolect_server.store import keyspace
from idiolect_server.store.breaker import Breaker
from idiolect_server.store.connection import Connection, call, digest, mapped

GENERATION_TTL_S = 24 * 3600

_REMEMBER = """
local erased = redis.call('HGET', KEYS[3], ARGV[4])
if erased and tonumber(erased) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2] - ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
"""
"""A generation that was being made while its user was erased is not kept."""


class Generations:
    """Every method raises StoreUnavailable when Redis does not answer in time."""

    def __init__(self, connection: Connection, breaker: Breaker) -> None:
        self._redis, self._breaker = connection, breaker

    async def remember(self, user_id: str, generation_id: str, generation: Mapping[str, Any], began_s: float) -> None:
        """Keep a user's generation for feedback, for GENERATION_TTL_S. `began_s` is when it began, in Unix seconds."""
        keys = [
            keyspace.generation(user_id, generation_id),
            keyspace.of_user("generations", user_id),
            keyspace.of_shard("erased", keyspace.shard(user_id)),
        ]
        packed, who = json.dumps(generation), digest(user_id)
        async with self._breaker.spared(keys[0]):
            await call(self._redis, _REMEMBER, keys, packed, began_s, GENERATION_TTL_S, who, generation_id)

    async def get(self, user_id: str, generation_id: str) -> dict[str, Any] | None:
        """What `remember` kept of this user, or None."""
        async with mapped():
            found = await self._redis.get(keyspace.generation(user_id, generation_id))
        try:
            values = json.loads(found or b"null")
        except ValueError:
            return None  # whatever this is, it is no generation of ours
        ours = isinstance(values, dict) and {"user_id", "messages", "profile"} <= values.keys()
        return values if ours and values["user_id"] == user_id else None
