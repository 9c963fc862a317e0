"""The connection to Redis, one server or a cluster, and its errors as ours."""

import hashlib
import logging
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
)
from redis.typing import EncodableT

from idiolect_server.errors import StoreDenied, StoreError, StoreFull, StoreRefused, StoreUnavailable
from idiolect_server.store.keyspace import MAX_NUMBER

log = logging.getLogger(__name__)

TIMEOUT_S = 0.5
PATIENT_S = 10.0
"""For what nobody's reply waits for: exports and erasures."""
SAY_AGAIN_S = 30.0
"""Between two warnings of the same kind."""

Connection = Any
"""A redis.asyncio.Redis or RedisCluster. Their types allow for every way of decoding answers, and we use one: bytes."""
CLUSTER_URL = re.compile(r"(rediss?)\+cluster://([^@/?#]*@)?([^@/,?#]+(?:,[^@/,?#]+)*)/?")
"""Any of a cluster's nodes, as redis+cluster://HOST:PORT,HOST:PORT, with or without USER:PASSWORD@ before them."""
URL = re.compile(rf"(rediss?|unix)://.+|{CLUSTER_URL.pattern}")
STORE_ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What a Redis that cannot be asked makes the client raise."""

_DENIED = re.compile(r"NOAUTH|WRONGPASS|NOPERM|ACL failure|can't (run|access)|Authentication required|invalid username")
_FULL = re.compile(r"\bOOM\b|'maxmemory'|MISCONF")
_NOT_NOW = re.compile(
    r"\b(READONLY|read only|LOADING|BUSY|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|NOSCRIPT)\b"
)
"""Of what Redis answers: by the first word, or within the message of a script's error."""


class _Connection(redis.asyncio.Connection):
    """Says ConnectionError when it is closed, by the node or by another task, between being taken and written to.
    redis-py does so itself after 8.1 (#4288); until then an AttributeError or TypeError came out, and no retry."""

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        if self._writer is None or self._writer.is_closing():
            raise ConnectionError("closed before the command was written")
        await super()._send_packed_command(command)


class _SSLConnection(_Connection, SSLConnection):
    """The same over TLS."""


class _Cluster(RedisCluster):
    """Repeats what has not reached a node, but not what timed out there: it may have been done."""

    ERRORS_ALLOW_RETRY: Any = (ConnectionError, ClusterDownError, SlotNotCoveredError)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # For the nodes it finds; those it starts from are asked for them and nothing else.
        secure = self.connection_kwargs["connection_class"] is SSLConnection
        self.connection_kwargs["connection_class"] = _SSLConnection if secure else _Connection


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Connection:
    """A pool of connections whose calls fail after `timeout_s`; nothing is sent yet."""
    timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    # One more try: the first may have met a connection that a restarted Redis has closed, or a node that is no longer
    # the one to ask. Not after a timeout, which would double it; a cluster's client does not heed that.
    retry = Retry(ConstantBackoff(0), 1, supported_errors=(ConnectionError,))
    cluster = CLUSTER_URL.fullmatch(url)
    if cluster is None:
        return redis.asyncio.from_url(url, **timeouts, retry=retry)
    scheme, credentials, nodes = cluster[1], cluster[2] or "", cluster[3].split(",")
    others = [redis.asyncio.connection.parse_url(f"redis://{node}") for node in nodes[1:]]
    return _Cluster.from_url(
        f"{scheme}://{credentials}{nodes[0]}",
        **timeouts,
        retry=retry,
        startup_nodes=[ClusterNode(other["host"], other.get("port", 6379)) for other in others],
        max_connections=1 << 16,  # as many as from one server: what is refused here is an outage to us
        dynamic_startup_nodes=False,  # names stay names: a cluster may come back under other addresses
    )


def digest(user_id: str) -> str:
    """What stands for a user's id where the id itself must not be kept."""
    return hashlib.sha256(user_id.encode()).hexdigest()


_said_s: dict[type[StoreError], float] = {}


class mapped:
    """`async with mapped():` Redis's errors become StoreErrors."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, STORE_ERRORS):
            ours = as_ours(error)
            log.debug("redis: %s", type(error).__name__)
            if not isinstance(ours, StoreUnavailable) and _said_s.get(type(ours), 0) < time.monotonic() - SAY_AGAIN_S:
                _said_s[type(ours)] = time.monotonic()
                log.warning("%s: %s", ours.message, str(error)[:200])
            raise ours from error


def as_ours(error: BaseException) -> StoreError:
    """What Redis's error means: no answer, not now, no room, no permission, or simply an error."""
    said = str(error)
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError) or _DENIED.search(said):
        return StoreDenied(
            "the user store does not accept this server", hint="IDIOLECT_REDIS_URL: user, password, what it may do"
        )
    if not isinstance(error, ResponseError) or _NOT_NOW.search(f"{getattr(error, 'status_code', None)} {said}"):
        return StoreUnavailable("the user store does not answer", hint="try again shortly")
    if isinstance(error, OutOfMemoryError) or _FULL.search(said):
        return StoreFull("the user store is full", hint="its operator has to make room")
    return StoreRefused("the user store has answered with an error", hint="see the server's log")


def call(connection: Connection, script: str, keys: Sequence[str], *arguments: EncodableT) -> Any:
    """A Lua script's answer, to be awaited. Sent whole each time: a node that took over has never seen any of ours."""
    return connection.eval(script, len(keys), *keys, *arguments)


async def send(pipeline: Any) -> list[Any]:
    """The answers of a pipeline, or its first error. A cluster's client, left to raise that itself, would close its
    connections to all nodes and repeat everything."""
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def nodes(connection: Connection) -> dict[str, dict[str, Any]]:
    """Every node by its name, replicas too: arguments of a command that is for it. A single Redis has no name."""
    if not isinstance(connection, RedisCluster):
        return {"": {}}
    return {str(node.name): {"target_nodes": node} for node in connection.get_nodes()}


async def subscriber(connection: Connection) -> Any:
    """A connection for messages. In a cluster any node will do: what is published at one goes to all."""
    await connection.initialize()
    if isinstance(connection, RedisCluster):
        return connection.pubsub(node=connection.get_random_node())
    return connection.pubsub()


def count(value: object) -> int:
    """A counter as read; anything but a number below MAX_NUMBER was not written by us and counts as nothing."""
    if not (isinstance(value, bytes) and value.isdigit() and len(value) <= 16):
        return 0
    number = int(value)
    return number if number < MAX_NUMBER else 0


def of_wrong_type(answer: object) -> bool:
    """Whether a command has met a key that is of no type of ours."""
    return isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer)
