"""Users in Redis. Votes are the record (votes.py); codes can be rebuilt from a bundle and the votes."""

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError
from tqdm import tqdm

from idiolect.text import is_printable
from idiolect.user_model import Array
from idiolect_server.errors import StoreFull
from idiolect_server.store import keyspace
from idiolect_server.store.breaker import Breaker
from idiolect_server.store.changes import PUBLISH_CHANGE, Changes
from idiolect_server.store.codes import READ_CODE, CodeTable, clear
from idiolect_server.store.connection import (
    PATIENT_S,
    STORE_ERRORS,
    TIMEOUT_S,
    call,
    connect,
    count,
    digest,
    mapped,
    nodes,
    of_wrong_type,
    send,
)
from idiolect_server.store.erasures import Erased, Erasures, hash_fields
from idiolect_server.store.export import Export
from idiolect_server.store.generations import Generations
from idiolect_server.store.keyspace import CHANNEL, N_SHARDS, OURS
from idiolect_server.store.margins import MarginTable
from idiolect_server.store.pages.users import UserPages
from idiolect_server.store.pages.votes import VotePages
from idiolect_server.store.queue import Queue
from idiolect_server.store.votes import VoteLog

log = logging.getLogger(__name__)

REWRITE_RETRY_S = 1.0
REWRITE_EVERY_S = 30.0
"""A file that is written anew is all that Redis holds."""
PIPELINE_BYTES = 1 << 18
"""Small enough that one pipeline is sent well within the timeout, whatever the size of a code."""

MAX_PROFILE_BYTES = 4 * 4096
"""Of the longest profile that the API takes, in UTF-8."""

_USER = (
    READ_CODE
    + """
return {read_code(KEYS[1], ARGV[1]), unpack(redis.call('MGET', unpack(KEYS, 2)))}
"""
)
"""A script and no pipeline: a cluster's client closes its connections to all nodes when one is silent in a pipeline."""

_PUT_INFERRED = (
    OURS
    + PUBLISH_CHANGE
    + """
if number(KEYS[1]) ~= tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2])
publish_change(KEYS[1], 'changed')
return 1
"""
)
"""Whoever inferred from fewer votes than there are now has been overtaken."""

_PUT_PROFILE = (
    PUBLISH_CHANGE
    + """
if ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('DEL', KEYS[1])
end
publish_change(KEYS[1], 'changed')
"""
)

_LIST_TABLE = OURS + "make_way(KEYS[1], 'hash') return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"

_REVISION = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredUser:
    """What Redis holds of a user: the trained and the inferred code, unchecked, the number of votes, and the profile.

    `stale` when votes have changed since a code was inferred, or none was.
    """

    trained: bytes | None
    inferred: bytes | None
    votes: int
    stale: bool
    profile: str | None


class Store:
    """Every method raises StoreError: StoreUnavailable when Redis does not answer in time.

    `has_room` says whether there is room on Redis's disk, as far as that can be known.
    """

    def __init__(self, url: str, has_room: Callable[[], bool] = lambda: True, timeout_s: float = TIMEOUT_S) -> None:
        self._redis, self._patient = connect(url, timeout_s), connect(url, PATIENT_S)
        self._has_room = has_room
        self._breaker = Breaker(self._redis)
        self.changes = Changes(self._redis, self._breaker)
        self.votes = VoteLog(self._redis, self._patient, self.changes)
        self.export = Export(self._patient)
        self.user_pages, self.vote_pages = UserPages(self._patient), VotePages(self._patient)
        self.generations = Generations(self._redis, self._breaker)
        self.margins = MarginTable(self._redis)
        self.erasures = Erasures(self._patient)
        self._rewrite_wanted = asyncio.Event()
        self._rewriting: asyncio.Task[None] | None = None

    def queue(self, bundle_id: str) -> Queue:
        """The votes that wait for scoring under a bundle, for one scorer."""
        return Queue(self._redis, bundle_id)

    async def close(self) -> None:
        if self._rewriting is not None:
            self._rewriting.cancel()
        await self._redis.aclose()
        await self._patient.aclose()

    async def ping(self) -> None:
        async with mapped():
            await self._redis.ping()

    async def check_access(self) -> None:
        """Raises StoreDenied when Redis does not accept the server, or lets it do less than it has to."""
        async with mapped():
            await call(self._redis, "return redis.call('UNLINK', KEYS[1])", [keyspace.PROBE])

    def check_room(self) -> None:
        """Before what makes the store grow. Raises StoreFull."""
        if not self._has_room():
            raise StoreFull("the user store's disk is nearly full", hint="its operator has to make room")

    async def user(self, table: CodeTable, user_id: str) -> StoredUser:
        """What is known of a user under a bundle, in one round trip."""
        key, field = table.place(user_id)
        others = [keyspace.of_user(kind, user_id) for kind in ("count", "revision", "profile")]
        names = [keyspace.inferred(table.bundle_id, user_id), *others]
        async with self._breaker.spared(key):
            trained, inferred, votes, revision, profile = await call(self._redis, _USER, [key, *names], field)
        seen, record = 0, b""
        if isinstance(inferred, bytes) and len(inferred) >= _REVISION.size:
            seen, record = _REVISION.unpack_from(inferred)[0], inferred[_REVISION.size :]
        return StoredUser(trained, record or None, count(votes), seen != count(revision), _words(profile))

    async def put_inferred(self, bundle_id: str, user_id: str, record: bytes, revision: int) -> bool:
        """Store the code that was inferred from the votes at `revision`; False when votes have changed since.

        An empty record says that nothing could be inferred: the trained code, if any, stays in force.
        """
        keys = [keyspace.of_user("revision", user_id), keyspace.inferred(bundle_id, user_id)]
        async with mapped():
            packed = _REVISION.pack(revision) + record
            current = bool(await call(self._redis, _PUT_INFERRED, keys, str(revision), packed))
        self.changes.heard(user_id)
        return current

    async def put_profile(self, user_id: str, profile: str | None) -> None:
        """What the user says in words; None forgets it."""
        keys = [keyspace.of_user("profile", user_id)]
        if profile is not None:
            self.check_room()
        async with mapped():
            await call(self._redis, _PUT_PROFILE, keys, *([] if profile is None else [profile]))
        self.changes.heard(user_id)

    async def load_codes(self, table: CodeTable, user_ids: Sequence[str], codes: Array) -> None:
        """Store every trained code of a bundle, but for erased users; returns at once when that was done before."""
        self.erasures.n_buckets[table.bundle_id] = table.n_buckets
        async with mapped():
            if await self._redis.exists(keyspace.loaded(table.bundle_id)):
                return
            pipeline, n_bytes = self._redis.pipeline(transaction=False), 0
            entries: list[tuple[str, dict[bytes, bytes]]] = []
            for number in range(N_SHARDS):
                call(pipeline, _LIST_TABLE, [keyspace.of_shard("tables", number)], table.bundle_id, table.n_buckets)
            await send(pipeline)
            with tqdm(total=len(user_ids), desc="user codes", unit="user", disable=None) as bar:
                for key, fields in table.entries(user_ids, codes):
                    entries.append((key, fields))
                    n_bytes += sum(map(len, fields.values()))
                    if n_bytes >= PIPELINE_BYTES:
                        await self._put_codes(entries)
                        entries, n_bytes = [], 0
                    bar.update(len(fields))
                await self._put_codes(entries)
            # Last, so that it holds for whoever was erased while the codes were on their way, too.
            if erased := await self._erased():
                for user_id in user_ids:
                    if digest(user_id).encode() in erased:
                        key, field = table.place(user_id)
                        await (self._redis.hdel(key, field) if field else self._redis.delete(key))
            await self._redis.set(keyspace.loaded(table.bundle_id), 1)
            await self._redis.publish(CHANNEL, "all")
        self.changes.heard_of_all()

    async def _put_codes(self, entries: Sequence[tuple[str, dict[bytes, bytes]]]) -> None:
        """Buckets of codes, or codes; what stands in their place and is of another type goes."""
        while entries:
            pipeline = self._redis.pipeline(transaction=False)
            for key, fields in entries:
                pipeline.set(key, fields[b""]) if b"" in fields else pipeline.hset(key, mapping=fields)
            answers = await pipeline.execute(raise_on_error=False) if entries else []
            odd = [entry for entry, answer in zip(entries, answers, strict=True) if of_wrong_type(answer)]
            if failed := [one for one in answers if isinstance(one, Exception) and not of_wrong_type(one)]:
                raise failed[0]
            for key, _ in odd:
                await self._redis.unlink(key)
            entries = odd

    async def _erased(self) -> set[bytes]:
        """Digests of the users who were erased."""
        found: set[bytes] = set()
        for number in range(N_SHARDS):
            found |= set((await hash_fields(self._redis, keyspace.of_shard("erased", number)))[::2])
        glob, ours = keyspace.EVERYBODY_GONE
        async for key in self._redis.scan_iter(match=glob, count=1000):
            if gone := ours.fullmatch(key):
                found.add(gone[1])
        return found

    async def erase(self, user_id: str) -> Erased:
        """Delete everything of a user, but a digest that keeps trained codes from being stored again."""
        try:
            erased = await self.erasures.erase(user_id)
        finally:
            self.changes.heard(user_id, erased=True)
        if erased.anything:
            self._rewrite_wanted.set()
        if self._rewriting is None:
            self._rewriting = asyncio.create_task(self._rewrite_logs())
        return erased

    async def forget(self, bundle_id: str) -> int:
        """Delete what a bundle that nobody serves any more has left here: how many keys. Votes and profiles stay."""
        return await clear(self._redis, bundle_id)

    async def _rewrite_logs(self) -> None:
        """What is deleted stays in a node's append-only file until that is written anew: after the erasures of
        REWRITE_EVERY_S together, the first at once."""
        while True:
            await self._rewrite_wanted.wait()
            self._rewrite_wanted.clear()
            left = set(nodes(self._redis))
            while left := {name for name in left & nodes(self._redis).keys() if not await self._rewrites_log(name)}:
                await asyncio.sleep(REWRITE_RETRY_S)
            await asyncio.sleep(REWRITE_EVERY_S)

    async def _rewrites_log(self, name: str) -> bool:
        """Whether a node has begun to, or never will."""
        if not self._has_room():
            return False  # a rewrite needs as much room again
        try:
            await self._redis.bgrewriteaof(**nodes(self._redis)[name])
        except ResponseError as error:
            if "in progress" in str(error):
                return False
            # Whoever runs this Redis has reserved the command, say.
            log.warning("Redis does not rewrite its append-only file: %s", error)
        except STORE_ERRORS as error:
            log.debug("redis: %s", type(error).__name__)
            return False
        return True


def _words(profile: bytes | None) -> str | None:
    """A profile as read; None for anything but a text such as the API takes."""
    if profile is None or len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        words = profile.decode()
    except UnicodeDecodeError:
        return None
    return words if words and is_printable(words) else None
