"""Where the trained codes of a bundle are in Redis, and how they are written: one of two layouts.

Cluster weights are packed: as 16-bit floats, in hashes of about USERS_PER_BUCKET users, which Redis keeps as one flat
piece of memory each. A user of 16 clusters takes 46 to 57 bytes of it (`make million-users`). Other codes are a string
a user (idiolect_server/store/record.py), whose own overhead does not matter beside their size.
"""

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np

from idiolect.bundle import Bundle
from idiolect.errors import UserCodeError
from idiolect.user_model import Array
from idiolect_server.store import keyspace
from idiolect_server.store.connection import Connection, call, mapped, send
from idiolect_server.store.keyspace import N_SHARDS, OURS
from idiolect_server.store.record import decode_code, encode_code

MAX_PACKED_BYTES = 64
"""Redis keeps a hash flat while its values are no longer (hash-max-listpack-value) ..."""
USERS_PER_BUCKET = 64
"""... and its fields are no more than 128 (hash-max-listpack-entries), which this average stays well below."""
CHUNK_USERS = 50_000

READ_CODE = """
local function read_code(key, field)
  local code
  if field == '' then
    code = redis.pcall('GET', key)
  else
    code = redis.pcall('HGET', key, field)
  end
  return type(code) == 'table' and '' or code
end
"""
"""For scripts: a user's record at a `place`. A key of another type is a record that we did not write: an empty one."""


@dataclass(frozen=True)
class CodeTable:
    """The trained codes of one bundle. `n_buckets` a shard; 0: a string per user."""

    bundle_id: str
    code_size: int
    n_buckets: int

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        code_size = bundle.user_model.code_size
        packed = bundle.user_model.kind == "cluster" and 2 * code_size <= MAX_PACKED_BYTES
        n_buckets = -(-len(bundle.user_ids) // (N_SHARDS * USERS_PER_BUCKET))
        return cls(bundle.bundle_id, code_size, n_buckets if packed else 0)

    def place(self, user_id: str) -> tuple[str, bytes]:
        """Key and field of a user; no field: the key is the user's own."""
        return place(self.bundle_id, self.n_buckets, user_id)

    def encode(self, code: Array) -> bytes:
        """What is stored of a code [code_size]. Raises UserCodeError when it is not finite."""
        if not self.n_buckets:
            return encode_code(code)
        if not np.isfinite(code).all():
            raise UserCodeError("user code has a number that is not finite")
        return code.astype("<f2").tobytes()

    def decode(self, value: bytes) -> Array:
        """The code [code_size]. Raises UserCodeError for anything that `encode` did not write."""
        if not self.n_buckets:
            return decode_code(value)[0]
        if len(value) != 2 * self.code_size:
            raise UserCodeError(f"packed code has {len(value)} bytes, expected {2 * self.code_size}")
        return np.frombuffer(value, "<f2").astype(np.float32)

    def entries(self, user_ids: Sequence[str], codes: Array) -> Iterator[tuple[str, dict[bytes, bytes]]]:
        """Everything to be stored: keys with their fields; users of one bucket come together."""
        users = iter(zip(user_ids, codes, strict=True))
        while chunk := list(islice(users, CHUNK_USERS)):
            found: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)
            for user_id, code in chunk:
                key, field = self.place(user_id)
                found[key][field] = self.encode(code)
            yield from found.items()


def place(bundle_id: str, n_buckets: int, user_id: str) -> tuple[str, bytes]:
    """See CodeTable.place; 12 bytes of a digest stand for the user, 4 of them in the choice of the bucket."""
    if not n_buckets:
        return keyspace.code(bundle_id, user_id), b""
    digest = hashlib.blake2b(user_id.encode(), digest_size=12).digest()
    bucket = int.from_bytes(digest[:4], "little") % n_buckets
    return keyspace.codes(bundle_id, user_id, bucket), digest[4:]


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
