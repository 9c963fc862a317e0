"""What was generated for whom, kept for a day so that feedback can name it."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from redis.typing import EncodableT
from typing_extensions import TypedDict

from idiolect_server.store import keyspace
from idiolect_server.store.breaker import Breaker
from idiolect_server.store.connection import Connection, call, digest, mapped
from idiolect_server.store.keyspace import OURS

GENERATION_TTL_S = 24 * 3600

MAX_GENERATIONS = 256
"""Of one user; the oldest are forgotten."""
MAX_GENERATION_BYTES = 32 * 1024
"""A longer one could not be voted on (MAX_VOTE_BYTES of votes.py), and is not kept."""

_REMEMBER = (
    OURS
    + """
local function moment(value)
  local digits = type(value) == 'string' and #value <= 32 and string.match(value, '^%d+%.?%d*$')
  return digits and tonumber(digits) or 0
end
local erased = math.max(moment(redis.pcall('HGET', KEYS[3], ARGV[4])), moment(text(KEYS[4])))
if erased >= tonumber(ARGV[2]) then
  return 0
end
make_way(KEYS[2], 'zset')
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2] - ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[3])
local too_many = math.min(redis.call('ZCARD', KEYS[2]) - ARGV[6], 100)
if too_many > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[2], too_many)
  for i = 1, #oldest, 2 do
    redis.call('UNLINK', ARGV[7] .. oldest[i])
  end
end
return 1
"""
)
"""A generation that was being made while its user was erased is not kept."""


class _Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@with_config(ConfigDict(strict=True, extra="ignore"))
class _Generation(TypedDict):
    """What `remember` keeps."""

    user_id: str
    messages: Annotated[list[_Message], Field(min_length=1)]
    profile: str | None
    text: str
    choices: NotRequired[list[str]]
    """Of a chat completion, by index; `text` is the first."""
    place: NotRequired[Annotated[int, Field(ge=0, le=1)]]
    """Of one of two candidates: 0 for the one that is shown first."""


_GENERATION: TypeAdapter[Any] = TypeAdapter(_Generation)


class Generations:
    """Every method raises StoreError."""

    def __init__(self, connection: Connection, breaker: Breaker) -> None:
        self._redis, self._breaker = connection, breaker

    async def remember(self, user_id: str, generation_id: str, generation: Mapping[str, Any], began_s: float) -> None:
        """Keep a user's generation for feedback, for GENERATION_TTL_S. `began_s` is when it began, in Unix seconds."""
        keys = [
            keyspace.generation(user_id, generation_id),
            keyspace.of_user("generations", user_id),
            keyspace.of_shard("erased", keyspace.shard(user_id)),
            keyspace.gone(user_id, digest(user_id)),
        ]
        packed, who = json.dumps(generation, ensure_ascii=False).encode(), digest(user_id)
        if len(packed) > MAX_GENERATION_BYTES:
            return
        arguments: list[EncodableT] = [packed, began_s, GENERATION_TTL_S, who, generation_id]
        arguments += [MAX_GENERATIONS, keyspace.generation(user_id)]
        async with self._breaker.spared(keys[0]):
            await call(self._redis, _REMEMBER, keys, *arguments)

    async def get(self, user_id: str, generation_id: str) -> dict[str, Any] | None:
        """What `remember` kept of this user, or None."""
        async with mapped():
            keys = [keyspace.generation(user_id, generation_id), keyspace.of_user("generations", user_id)]
            found = await call(self._redis, _GET, keys, generation_id)
        try:
            values: dict[str, Any] = _GENERATION.validate_json(found)
        except ValidationError:
            return None  # whatever this is, it is no generation of ours
        return values if values["user_id"] == user_id else None


_GET = (
    OURS
    + """
local listed = redis.pcall('ZSCORE', KEYS[2], ARGV[1])
return type(listed) == 'string' and kind(KEYS[1]) == 'string' and redis.call('GET', KEYS[1]) or ''
"""
)
"""What is not listed would not be erased."""
