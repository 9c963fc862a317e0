"""The connection to Redis: where keys of a user hash to, and Redis's errors as ours."""

import hashlib
import logging
import zlib
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError, RedisError

from server.errors import StoreUnavailable

log = logging.getLogger(__name__)

N_SHARDS = 64
TIMEOUT_S = 0.5


Connection = Any
"""A redis.asyncio.Redis. Its types allow for every way of decoding answers, and we use one: bytes."""


def connect(url: str) -> Connection:
    """A pool of connections whose calls fail after TIMEOUT_S; nothing is sent yet."""
    return redis.asyncio.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        # One more try: the first may have met a connection that a restarted Redis has closed. Not after a timeout,
        # which would double it.
        retry=Retry(ConstantBackoff(0), 1, supported_errors=(ConnectionError,)),
    )


def shard(name: str) -> str:
    """The hash tag of a user's keys: all of them are in one slot of a Redis Cluster."""
    return f"{{{zlib.crc32(name.encode()) % N_SHARDS}}}"


def digest(user_id: str) -> str:
    """What stands for a user's id where the id itself must not be kept."""
    return hashlib.sha256(user_id.encode()).hexdigest()


class mapped:
    """`async with mapped():` Redis's errors become StoreUnavailable."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RedisError | OSError | TimeoutError):
            log.debug("redis: %s", type(error).__name__)
            raise StoreUnavailable("the user store does not answer", hint="try again shortly") from error


def count(value: object) -> int:
    """A counter as read; anything but digits was not written by us and counts as nothing."""
    return int(value) if isinstance(value, bytes) and value.isdigit() else 0
