"""What a bundle that nobody serves any more has left in Redis: codes, margins, and its scorers' books. Votes stay."""

import re
from collections.abc import AsyncIterator

from idiolect_server.store.connection import N_SHARDS, Connection, mapped, send

KEYS_AT_ONCE = 1000


async def clear(connection: Connection, bundle_id: str) -> int:
    """Delete it; how many keys there were. What is cut short can be repeated. Raises StoreUnavailable."""
    async with mapped():
        # First, so that a server that is started on this bundle stores its codes anew; the list of bundles, by which an
        # erasure finds a user's codes, comes last.
        n_keys: int = await connection.delete(f"idiolect:loaded:{bundle_id}")
        pipeline = connection.pipeline(transaction=False)
        async for key in _keys(connection, bundle_id):
            pipeline.execute_command("UNLINK", key)  # `unlink` is not for pipelines of a cluster
            if len(pipeline) >= KEYS_AT_ONCE:
                n_keys += sum(await send(pipeline))
        for shard in range(N_SHARDS):
            pipeline.execute_command("UNLINK", f"idiolect:{{{shard}}}:margins:{bundle_id}")
        n_keys += sum(await send(pipeline))
        for shard in range(N_SHARDS):
            stream = f"idiolect:{{{shard}}}:votes"
            if await connection.exists(stream):
                await connection.xgroup_destroy(stream, f"scorer:{bundle_id}")
            await connection.hdel(f"idiolect:{{{shard}}}:tables", bundle_id)
    return n_keys


async def _keys(connection: Connection, bundle_id: str) -> AsyncIterator[bytes]:
    """All keys of users, buckets and pairs under a bundle."""
    ours = re.compile(rb"idiolect:\{\d+\}:(code|codes|inferred|tries):%s:" % bundle_id.encode())
    async for key in connection.scan_iter(match=f"idiolect:*:{bundle_id}:*", count=KEYS_AT_ONCE):
        if ours.match(key):  # and not the votes of somebody who is called like that
            yield key
