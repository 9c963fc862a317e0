"""What a bundle that nobody serves any more has left in Redis: codes, margins, and its scorers' books. Votes stay."""

from collections.abc import AsyncIterator

from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, send
from idiolect_server.store.keyspace import N_SHARDS, OURS

KEYS_AT_ONCE = 1000

_UNLIST = (
    OURS
    + """
if kind(KEYS[1]) == 'stream' then
  redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
end
redis.pcall('HDEL', KEYS[2], ARGV[2])
"""
)


async def clear(connection: Connection, bundle_id: str) -> int:
    """Delete it; how many keys there were. What is cut short can be repeated. Raises StoreError."""
    async with mapped():
        # First, so that a server that is started on this bundle stores its codes anew; the list of bundles, by which an
        # erasure finds a user's codes, comes last.
        n_keys: int = await connection.delete(keyspace.loaded(bundle_id))
        pipeline = connection.pipeline(transaction=False)
        async for key in _keys(connection, bundle_id):
            pipeline.execute_command("UNLINK", key)  # `unlink` is not for pipelines of a cluster
            if len(pipeline) >= KEYS_AT_ONCE:
                n_keys += sum(await send(pipeline))
        for shard in range(N_SHARDS):
            pipeline.execute_command("UNLINK", keyspace.margins(bundle_id, shard))
        n_keys += sum(await send(pipeline))
        for shard in range(N_SHARDS):
            keys = [keyspace.of_shard("votes", shard), keyspace.of_shard("tables", shard)]
            await call(connection, _UNLIST, keys, keyspace.scorers(bundle_id), bundle_id)
    return n_keys


async def _keys(connection: Connection, bundle_id: str) -> AsyncIterator[bytes]:
    """All keys of users, buckets and pairs under a bundle."""
    glob, ours = keyspace.under_bundle(bundle_id)
    async for key in connection.scan_iter(match=glob, count=KEYS_AT_ONCE):
        if ours.match(key):  # and not the votes of somebody who is called like that
            yield key
