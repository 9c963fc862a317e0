"""The embedded Redis: a real one, which comes back when killed with all that it had acknowledged."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import redis

from idiolect_server.errors import SettingsError, StoreUnavailable
from idiolect_server.store import queue
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.embedded import EmbeddedRedis
from idiolect_server.store.store import Store
from tests.parts.bundles import small_bundle

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
def test_a_forgotten_bundle_leaves_only_what_users_said(tmp_path: Path, n_buckets: int):
    """Codes, margins and scorers' books go; votes stay, other bundles too, and the bundle can come back."""
    old, new = CodeTable("0" * 16, 2, n_buckets), CodeTable("1" * 16, 2, n_buckets)
    tricky = f"x:{old.bundle_id}:y"
    users, codes = [f"user {n}" for n in range(300)] + [tricky], np.ones((301, 2), np.float32)

    async def scenario() -> None:
        embedded = EmbeddedRedis(tmp_path)
        await embedded.start()
        store, connection = Store(embedded.url), redis.Redis.from_url(embedded.url)
        await answering(store)
        await store.votes.add(tricky, "k", VOTE)
        await store.put_profile(tricky, "Brief.")
        for table in (old, new):
            await store.load_codes(table, users, codes)
            given = await store.votes.given(table, tricky)
            assert await store.put_inferred(table.bundle_id, tricky, b"code", given.revision)
            await store.margins.put(table.bundle_id, "pair", np.ones(3))
            await store.margins.count_try(table.bundle_id, "pair")
            assert len(await store.queue(table.bundle_id).take(9)) == 1
        before = set(connection.scan_iter(count=10_000))
        n_keys = await store.forget(old.bundle_id)
        left = set(connection.scan_iter(count=10_000))
        assert n_keys == len(before - left) == len({old.place(user)[0] for user in users}) + 4
        theirs = re.compile(f"idiolect:.*:(codes?|inferred|tries|margins):{old.bundle_id}.*|idiolect:loaded:0+")
        assert {key for key in before if theirs.fullmatch(key.decode())} == before - left
        assert await store.forget(old.bundle_id) == 0
        assert await store.queue(old.bundle_id).backlog() == 0
        gone, kept = await store.user(old, tricky), await store.user(new, tricky)
        assert (gone.trained, gone.inferred, gone.votes, gone.profile) == (None, None, 1, "Brief.")
        assert (kept.trained is not None, kept.inferred, kept.votes) == (True, b"code", 1)
        assert len(await store.margins.get(new.bundle_id, ["pair"])) == 1
        await store.load_codes(old, users, codes)
        assert (await store.user(old, "user 7")).trained is not None
        erased = await store.erase(tricky)
        assert (erased.votes, erased.codes) == (1, 3)
        await store.close()
        await embedded.stop()

    asyncio.run(scenario())


def test_a_bundle_is_forgotten_by_command(tmp_path: Path):
    """With the server's settings; not the bundle that is served."""
    old, served = (small_bundle(tmp_path / f"bundle-{seed}", seed=seed) for seed in (0, 1))

    async def load() -> None:
        embedded = EmbeddedRedis(tmp_path / "data")
        await embedded.start()
        store = Store(embedded.url)
        await answering(store)
        await store.load_codes(CodeTable.of(old), old.user_ids, old.codes)
        await store.close()
        await embedded.stop()

    def run(bundle_id: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"IDIOLECT_BUNDLE": str(served.path), "IDIOLECT_DATA_DIR": str(tmp_path / "data")}
        command = [sys.executable, "-m", "idiolect_cli", "bundle", "forget", bundle_id]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    asyncio.run(load())
    for wrong, why in ((served.bundle_id, "IDIOLECT_BUNDLE"), ("*", "not the id of a bundle")):
        refused = run(wrong)
        assert (refused.returncode, why in refused.stderr) == (1, True)
    n_keys = len({CodeTable.of(old).place(user)[0] for user in old.user_ids}) + 1
    assert f"{old.bundle_id}: {n_keys} keys deleted" in run(old.bundle_id).stdout
    assert f"{old.bundle_id}: 0 keys deleted" in run(old.bundle_id).stdout


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
