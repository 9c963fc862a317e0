"""Nothing in Redis grows without a bound, and what is there can be deleted without others waiting. Real Redis."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from idiolect_server.errors import StoreFull, StoreUnavailable, TooManyVotes, VoteTooLarge
from idiolect_server.store import erasures, export, keyspace, votes
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.connection import digest
from idiolect_server.store.generations import MAX_GENERATION_BYTES, MAX_GENERATIONS
from idiolect_server.store.store import Store
from idiolect_server.store.votes import MAX_USER_VOTES
from tests.live import Redis, memory_folder

VOTE = {"messages": [{"role": "user", "content": "p"}], "chosen": "a", "rejected": "b", "consent": True}
TABLE = CodeTable("b1", 2, 0)

Check = Callable[[Store, Any], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def server() -> Any:
    with memory_folder() as folder:
        server = Redis(folder)
        server.start()
        yield server
        server.stop()


@asynccontextmanager
async def store_of(server: Redis) -> AsyncIterator[Store]:
    store = Store(server.url)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def run(server: Redis) -> Callable[[Check], None]:
    connection = redis.Redis.from_url(server.url)
    connection.flushall()

    def go(check: Check) -> None:
        async def main() -> None:
            async with store_of(server) as store:
                await check(store, connection)

        asyncio.run(main())

    return go


def plant_votes(connection: Any, user_id: str, n_votes: int) -> None:
    """As `VoteLog.add` would write them, without its bound."""
    number, pipeline = keyspace.shard(user_id), connection.pipeline(transaction=False)
    for n in range(n_votes):
        name = hashlib.sha256(f"{user_id}\0{n}".encode()).hexdigest()[:32]
        vote = {**VOTE, "chosen": f"a{n}", "user_id": user_id}
        stream_id = f"{1_700_000_000_000 + n}-0"
        pipeline.xadd(keyspace.of_shard("votes", number), {"vote": json.dumps(vote, sort_keys=True)}, id=stream_id)
        given = json.dumps({"pair": f"{n:016x}", "first": True, "key": name})
        pipeline.hset(keyspace.of_user("given", user_id), stream_id, given)
        pipeline.set(keyspace.idempotency(user_id, name), f"{0:032x}{stream_id}")
        if n % 5000 == 4999:
            pipeline.execute()
    pipeline.set(keyspace.of_user("count", user_id), n_votes)
    pipeline.set(keyspace.of_user("revision", user_id), 7)
    pipeline.execute()


async def longest_wait_s(store: Store, work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """What comes of the work, and the longest that a neighbour in the same shard had to wait for Redis meanwhile."""
    worst_s, working = 0.0, asyncio.ensure_future(work)
    while not working.done():
        began = time.perf_counter()
        await store.user(TABLE, "neighbour")
        worst_s = max(worst_s, time.perf_counter() - began)
        await asyncio.sleep(0.001)
    return working.result(), worst_s


def test_a_user_with_too_many_votes_is_served_and_erased_beside_others(run):
    async def check(store: Store, connection: Any) -> None:
        plant_votes(connection, "ann", 20_000)
        given, waited_s = await longest_wait_s(store, store.votes.given(TABLE, "ann"))
        assert len(given.votes) == MAX_USER_VOTES
        assert given.votes[-1].given_ms == 1_700_000_019_999  # the latest
        assert given.votes[0].given_ms == 1_700_000_020_000 - MAX_USER_VOTES
        with pytest.raises(TooManyVotes):
            await store.votes.add("ann", "another", VOTE)
        erased, erasing_s = await longest_wait_s(store, store.erase("ann"))
        assert erased.votes == 20_000
        assert max(waited_s, erasing_s) < 0.5
        left = {key for key in connection.scan_iter() if connection.type(key) != b"stream" or connection.xlen(key)}
        assert left == {keyspace.of_shard("erased", keyspace.shard("ann")).encode()}

    run(check)


def test_an_erasure_counts_at_once_and_is_finished_by_others(run, monkeypatch: pytest.MonkeyPatch):
    async def check(store: Store, connection: Any) -> None:
        for n in range(3):
            await store.votes.add("ann", f"k{n}", {**VOTE, "chosen": f"a{n}"})
        bob = next(f"bob-{n}" for n in range(1000) if keyspace.shard(f"bob-{n}") == keyspace.shard("ann"))
        await store.votes.add(bob, "k", VOTE)
        store.erasures._finish_shard = gone  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await store.erase("ann")  # and the server with it, say
        del store.erasures._finish_shard
        assert (await store.votes.given(TABLE, "ann")).votes == []
        assert (await store.user(TABLE, "ann")).votes == 0
        exported = (await store.export.page(None, 100))[0]
        assert [vote["user_id"] for vote in exported] == [bob]
        # The same key is a new vote, which neither the erasure nor the export takes for an old one.
        again = await store.votes.add("ann", "k0", VOTE)
        assert (again.duplicate, again.votes) == (False, 1)
        other = Store(f"redis://127.0.0.1:{connection.connection_pool.connection_kwargs['port']}/0")
        await other.erasures.finish_all()
        await other.close()
        assert connection.xlen(keyspace.of_shard("votes", keyspace.shard("ann"))) == 2
        assert len((await store.votes.given(TABLE, "ann")).votes) == 1
        assert (await store.votes.add("ann", "k0", VOTE)).duplicate
        assert {vote["user_id"] for vote in (await store.export.page(None, 100))[0]} == {"ann", bob}
        assert connection.keys("*erasures*") + connection.keys("*erasing*") == []

    async def gone(number: int) -> None:
        raise StoreUnavailable("gone")

    run(check)


def test_erasures_of_the_unknown_leave_marks_that_go(run):
    async def check(store: Store, connection: Any) -> None:
        for n in range(300):
            assert not (await store.erase(f"nobody-{n}")).anything
        assert connection.keys("*:erased") == []
        marks = connection.keys("*:gone:*")
        assert len(marks) == len(connection.keys()) == 300
        assert all(0 < connection.ttl(mark) <= erasures.GONE_TTL_S for mark in marks)
        assert not store._rewrite_wanted.is_set()  # nothing has to leave the append-only file
        # A generation that was begun before is not kept, and codes that are on their way are not stored.
        generation = {"user_id": "nobody-1", "messages": VOTE["messages"], "profile": None, "text": "t"}
        await store.generations.remember("nobody-1", "gen-1", generation, time.time() - 60)
        assert await store.generations.get("nobody-1", "gen-1") is None
        assert digest("nobody-1").encode() in await store._erased()

    run(check)


def test_a_vote_has_a_largest_size_and_a_user_a_largest_number(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(votes, "MAX_USER_VOTES", 3)

    async def check(store: Store, connection: Any) -> None:
        with pytest.raises(VoteTooLarge):
            await store.votes.add("ann", "k", {**VOTE, "chosen": "é" * 16_384})
        assert connection.keys() == []
        made = [await store.votes.add("ann", f"k{n}", {**VOTE, "chosen": "x" * 32_000}) for n in range(3)]
        with pytest.raises(TooManyVotes):
            await store.votes.add("ann", "k3", VOTE)
        assert (await store.votes.add("ann", "k1", {**VOTE, "chosen": "x" * 32_000})).duplicate
        assert await store.votes.take_back("ann", made[0].vote_id) == 2
        assert (await store.votes.add("ann", "k3", VOTE)).votes == 3

    run(check)


def test_an_export_is_paged_by_bytes(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "PAGE_BYTES", 1 << 20)

    async def check(store: Store, connection: Any) -> None:
        key = keyspace.of_shard("votes", 3)
        for n in range(12):  # from a time when a vote could be as large as a body
            old = {**VOTE, "chosen": str(n % 10) * 900_000, "user_id": "ann"}
            place = connection.xadd(key, {"vote": json.dumps(old, sort_keys=True)})
            given = json.dumps({"pair": f"{n:016x}", "first": True, "key": "k"})
            connection.hset(keyspace.of_user("given", "ann"), place, given)
        connection.xadd(key, {"vote": b"x" * (2 << 20)})  # not ours
        for n in range(300):
            await store.votes.add(f"user-{n}", "k", {**VOTE, "chosen": "y" * 10_000})
        found, cursor, pages = 0, None, 0
        while True:
            page, after = await store.export.page(cursor, 10_000)
            assert sum(len(vote["chosen"]) for vote in page) < 3 << 20
            if after == cursor:
                break
            found, cursor, pages = found + len(page), after, pages + 1
        assert found == 312
        assert pages >= 10

    run(check)


def test_only_the_latest_generations_of_a_user_are_remembered(run):
    async def check(store: Store, connection: Any) -> None:
        generation = {"user_id": "ann", "messages": VOTE["messages"], "profile": None, "text": "t"}
        for n in range(MAX_GENERATIONS + 5):
            await store.generations.remember("ann", f"gen-{n}", generation, time.time() + n / 1000)
        await store.generations.remember("ann", "gen-large", generation | {"text": "x" * MAX_GENERATION_BYTES}, 1e10)
        assert await store.generations.get("ann", "gen-4") is None
        assert await store.generations.get("ann", "gen-5") == generation
        assert await store.generations.get("ann", "gen-large") is None
        assert len(connection.keys("*:generation:*")) == MAX_GENERATIONS

    run(check)


def test_a_redis_at_its_memory_limit_refuses_what_grows_and_nothing_else(run):
    async def check(store: Store, connection: Any) -> None:
        await store.votes.add("ann", "k0", VOTE)
        made = await store.votes.add("ann", "k1", VOTE)
        await store.put_profile("bob", "Brief.")
        connection.config_set("maxmemory", connection.info("memory")["used_memory"] - (100 << 10))
        try:
            with pytest.raises(StoreFull):
                await store.votes.add("ann", "k2", VOTE)
            with pytest.raises(StoreFull):
                await store.put_profile("ann", "Brief.")
            assert (await store.user(TABLE, "bob")).profile == "Brief."
            assert await store.votes.take_back("ann", made.vote_id) == 1
            assert (await store.erase("ann")).votes == 1
            assert (await store.erase("bob")).profiles == 1
            assert not (await store.erase("nobody")).anything
            assert connection.keys("*ann*") + connection.keys("*bob*") == []
        finally:
            connection.config_set("maxmemory", 0)
        assert (await store.votes.add("ann", "k2", VOTE)).votes == 1

    run(check)
