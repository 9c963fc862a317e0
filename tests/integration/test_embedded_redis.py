"""The embedded Redis: a real one, which comes back when killed with all that it had acknowledged."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import redis

from server.errors import SettingsError, StoreUnavailable
from server.store import queue
from server.store.codes import CodeTable
from server.store.embedded import EmbeddedRedis
from server.store.store import Store

VOTE = {"messages": [{"role": "user", "content": "p"}], "chosen": "a", "rejected": "b"}


async def answering(store: Store) -> None:
    for _ in range(100):
        try:
            return await store.ping()
        except StoreUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("redis does not answer")


def test_killed_it_comes_back_with_every_vote(tmp_path: Path):
    async def scenario() -> None:
        embedded = EmbeddedRedis(tmp_path / "data")
        await embedded.start()
        store = Store(embedded.url)
        await answering(store)
        first = await store.votes.add("ada", "k1", VOTE)
        assert first.votes == 1
        killed = embedded.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await asyncio.sleep(0.5)
        await answering(store)
        assert embedded.pid != killed
        again = await store.votes.add("ada", "k1", VOTE)
        assert (again.duplicate, again.vote_id, again.votes) == (True, first.vote_id, 1)
        await store.close()
        await embedded.stop()

    asyncio.run(scenario())


def test_votes_outlive_the_scorer_that_took_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also when one of them is taken back meanwhile; and the same request is the same vote under another bundle."""
    monkeypatch.setattr(queue, "ABANDONED_MS", 0)

    async def scenario() -> None:
        embedded = EmbeddedRedis(tmp_path)
        await embedded.start()
        store = Store(embedded.url)
        await answering(store)
        log = store.votes
        one, other, third = (store.queue("b1") for _ in range(3))
        assert await one.take(9) == []
        gone, kept = [await log.add("ada", key, {**VOTE, "bundle_id": "b1"}) for key in ("k1", "k2")]
        assert (await log.add("ada", "k2", {**VOTE, "bundle_id": "b2"})).duplicate
        assert len(await one.take(9)) == 2
        assert await log.take_back("ada", gone.vote_id) == 1
        assert await log.take_back("ada", gone.vote_id) is None
        found = await other.take(9)
        assert {f"{vote.place[0]}-{vote.place[1]}": vote.vote is not None for vote in found} == {
            gone.vote_id: False,
            kept.vote_id: True,
        }
        await other.hold(found)
        await other.done(found)
        assert await third.take(9) == []
        assert [await store.margins.count_try("b1", pair) for pair in ("p", "p", "q")] == [1, 2, 1]
        later = store.queue("b2")  # another bundle starts with the first vote
        assert len(await later.take(9)) == 1
        await store.close()
        await embedded.stop()

    asyncio.run(scenario())


def test_a_second_server_cannot_use_the_same_folder(tmp_path: Path):
    async def scenario() -> None:
        first, second = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path)
        await first.start()
        with pytest.raises(SettingsError, match="in use"):
            await second.start()
        await first.stop()
        await second.start()
        await second.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("n_buckets", [0, 2])
def test_codes_are_loaded_once_and_read_back(tmp_path: Path, n_buckets: int):
    """In both layouts, but for those of users who were erased; packed ones in flat hashes."""
    users = [f"user {n}" for n in range(2500)]
    codes = np.array([[n, -n] for n in range(2500)], np.float32) / 4096
    table = CodeTable("b1", 2, n_buckets)

    async def scenario() -> None:
        embedded = EmbeddedRedis(tmp_path)
        await embedded.start()
        store = Store(embedded.url)
        await answering(store)
        await store.erase("user 5")
        await store.load_codes(table, users, codes)
        found = await store.user(table, "user 1999")
        assert found.trained is not None
        assert table.decode(found.trained).tolist() == [1999 / 4096, -1999 / 4096]
        assert (await store.user(table, "user 5")).trained is None
        assert (await store.user(CodeTable("b2", 2, n_buckets), "user 7")).trained is None
        await store.load_codes(table, users, codes + 1)  # not again
        assert (await store.user(table, "user 1999")).trained == found.trained
        assert (await store.erase("user 1999")).codes == 1
        assert (await store.user(table, "user 1999")).trained is None
        await store.close()
        connection = redis.Redis.from_url(embedded.url)
        buckets = list(connection.scan_iter("idiolect:*:codes:b1:*", count=10_000))
        assert len(buckets) == 64 * n_buckets
        assert {connection.object("encoding", bucket) for bucket in buckets} <= {b"ziplist", b"listpack"}
        await embedded.stop()

    asyncio.run(scenario())
