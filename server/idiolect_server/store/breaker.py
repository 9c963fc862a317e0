"""A circuit breaker for what can be done without: reading a user, and keeping a reply for later feedback.

A Redis that hangs costs each call its timeout. Once it did, nobody else waits for the same node, but for one call every
PAUSE_S that finds out whether it is back. Votes are not among these: each of them is tried.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisClusterException

from idiolect_server.errors import StoreError, StoreUnavailable
from idiolect_server.store.connection import Connection, mapped

PAUSE_S = 0.5


class Breaker:
    """One for all calls through a connection, by the node that they go to."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._silent_until_s: dict[str, float] = {}

    @asynccontextmanager
    async def spared(self, key: str) -> AsyncGenerator[None, None]:
        """A call to the node of `key`, errors as in `mapped`; StoreUnavailable at once while that node is silent."""
        node = self._node(key)
        until_s = self._silent_until_s.get(node)
        if until_s is not None:
            if time.monotonic() < until_s:
                raise StoreUnavailable("the user store has not answered lately", hint="try again shortly")
            self._silent_until_s[node] = time.monotonic() + PAUSE_S  # this one finds out, and the others go on
        try:
            async with mapped():
                yield
        except StoreUnavailable:
            self._silent_until_s[node] = time.monotonic() + PAUSE_S
            raise
        except StoreError:
            self._silent_until_s.pop(node, None)  # it has answered, if only that it is full, say
            raise
        self._silent_until_s.pop(node, None)

    def reset(self) -> None:
        """Ask a single Redis again: it has just answered. What one node of a cluster answers says nothing of others."""
        self._silent_until_s.pop("", None)

    def _node(self, key: str) -> str:
        """The name of the cluster's node that has a key, as far as is known; a single Redis has no name."""
        if not isinstance(self._redis, RedisCluster):
            return ""
        try:
            node = self._redis.get_node_from_key(key)
        except RedisClusterException:
            return ""
        return "" if node is None else str(node.name)
