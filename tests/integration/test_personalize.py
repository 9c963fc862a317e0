"""What a server keeps of users is true: it hears of every change, on real Redis, and knows when it does not."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import redis

from idiolect.bundle import Bundle
from idiolect_server.errors import StoreUnavailable
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.connection import PATIENT_S, TIMEOUT_S
from idiolect_server.store.record import encode_code
from idiolect_server.store.store import Store
from idiolect_server.users.cache import UserCache
from idiolect_server.users.learner import Learner
from idiolect_server.users.personalizer import Personalizer
from tests.live import Redis, memory_folder
from tests.parts.bundles import small_bundle, with_bank

VOTE = {"messages": [{"role": "user", "content": "p"}], "chosen": "a", "rejected": "b"}


class Replica:
    """One server's store and users."""

    def __init__(self, url: str, bundle: Bundle, timeout_s: float = PATIENT_S) -> None:
        self.store = Store(url, timeout_s=timeout_s)
        cache = UserCache(self.store.changes)
        cache.add(bundle.bundle_id)
        self.users = Personalizer(bundle, self.store, Learner(bundle, self.store), cache)


@asynccontextmanager
async def replicas(url: str, bundle: Bundle, n: int, timeout_s: float = PATIENT_S) -> AsyncIterator[list[Replica]]:
    started = [Replica(url, bundle, timeout_s) for _ in range(n)]
    watching = [asyncio.create_task(replica.store.changes.watch()) for replica in started]
    try:
        for replica in started:
            await soon(lambda replica=replica: hears(replica))
        yield started
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for replica in started:
            await replica.store.close()


async def hears(replica: Replica) -> bool:
    return replica.store.changes.epoch is not None


async def deaf(replica: Replica) -> bool:
    return not await hears(replica)


async def seconds(work: Awaitable[object]) -> float:
    """How long it took."""
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def soon(true: Callable[[], Awaitable[bool]], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not await true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def reads(connection: redis.Redis) -> int:
    return connection.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]


def served(tmp_path: Path, scenario: Callable[[Redis, Bundle], Awaitable[None]]) -> None:
    with memory_folder() as folder:
        store = Redis(folder)
        store.start()
        try:
            asyncio.run(scenario(store, small_bundle(tmp_path / "bundle")))
        finally:
            store.stop()


def test_a_user_is_read_once_until_something_changes(tmp_path: Path):
    async def scenario(store: Redis, bundle: Bundle) -> None:
        connection = redis.Redis.from_url(store.url)
        async with replicas(store.url, bundle, 1) as (one,):
            await one.store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
            await asyncio.sleep(0.5)  # its own message has come back
            before = reads(connection)
            together = await asyncio.gather(*(one.users.find("ada") for _ in range(20)))
            assert {who.state for who in together} == {"stored"}
            assert len({id(who.user_tokens) for who in together}) == 1
            for _ in range(20):
                await one.users.find("ada")
                await one.users.find("stranger")
            assert reads(connection) == before + 2  # the stranger too is remembered, as one
            await one.store.put_profile("ada", "I sail.")
            assert (await one.users.find("ada")).profile == "I sail."
            assert (await one.store.votes.add("ada", "k", VOTE)).votes == 1
            assert (await one.users.find("ada")).votes == 1
            assert (await one.users.find("stranger")).state == "generic"
            assert reads(connection) == before + 4

    served(tmp_path, scenario)


def test_a_request_that_leaves_takes_nobody_with_it(tmp_path: Path):
    async def scenario(store: Redis, bundle: Bundle) -> None:
        async with replicas(store.url, bundle, 1) as (one,):
            await one.store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
            for leaves in (0, 1):  # the one that reads, and one that waits for it
                one.store.changes.heard("ada")
                together = [asyncio.create_task(one.users.find("ada")) for _ in range(4)]
                await asyncio.sleep(0)
                together.pop(leaves).cancel()
                assert [who.state for who in await asyncio.gather(*together)] == ["stored"] * 3

    served(tmp_path, scenario)


def test_other_servers_hear_of_every_change(tmp_path: Path):
    async def scenario(store: Redis, bundle: Bundle) -> None:
        async with replicas(store.url, bundle, 2) as (one, other):
            await one.store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
            await soon(lambda: is_in(other, "ada", state="stored"))

            await one.store.put_profile("ada", "I sail.")
            await soon(lambda: is_in(other, "ada", profile="I sail."))
            receipt = await one.store.votes.add("ada", "k", VOTE)
            await soon(lambda: is_in(other, "ada", votes=1))
            await one.store.votes.take_back("ada", receipt.vote_id)
            await soon(lambda: is_in(other, "ada", votes=0))
            await one.store.votes.add("ada", "k2", VOTE)
            revision = (await one.store.votes.given(CodeTable.of(bundle), "ada")).revision
            record = encode_code(np.array([1, 0, 0, 0], np.float32), "inferred")
            assert await one.store.put_inferred(bundle.bundle_id, "ada", record, revision)
            await soon(lambda: is_in(other, "ada", state="inferred"))
            await one.store.erase("ada")
            await soon(lambda: is_in(other, "ada", state="generic", votes=0, profile=None))

    async def is_in(replica: Replica, user_id: str, **expected: object) -> bool:
        who = await replica.users.find(user_id)
        return all(getattr(who, name) == value for name, value in expected.items())

    served(tmp_path, scenario)


def test_nothing_is_taken_for_granted_while_redis_is_away(tmp_path: Path):
    """A change that nobody heard of is seen as soon as Redis answers; until then the last code and profile serve."""

    async def scenario(store: Redis, bundle: Bundle) -> None:
        async with replicas(store.url, bundle, 1) as (one,):
            await one.store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
            await one.store.put_profile("ada", "I sail.")
            await asyncio.sleep(0.5)  # its own message has come back
            known = await one.users.find("ada")
            store.kill()
            await soon(lambda: deaf(one))
            kept = await one.users.find("ada")
            assert (kept.state, kept.votes, kept.profile) == ("degraded", None, "I sail.")
            assert kept.user_tokens is known.user_tokens
            assert (await one.users.find("stranger")).state == "degraded"
            store.start()
            redis.Redis.from_url(store.url).flushall()  # unheard
            await soon(lambda: hears(one))
            assert (await one.users.find("ada")).state == "generic"

    served(tmp_path, scenario)


def test_the_last_code_serves_while_a_new_one_cannot_be_inferred(tmp_path: Path):
    """The margins of the user's pair are out of reach, as on a lost node: the user does not become a stranger."""

    async def scenario(store: Redis, bundle: Bundle) -> None:
        async with replicas(store.url, with_bank(bundle), 1) as (one,):
            await one.store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
            await asyncio.sleep(0.5)  # its own message has come back
            known = await one.users.find("ada")
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(one.store.margins, "get", out_of_reach)
                await one.store.votes.add("ada", "k", VOTE)
                meanwhile = await one.users.find("ada")
            assert (known.state, meanwhile.state, meanwhile.votes) == ("stored", "degraded", 1)
            assert meanwhile.user_tokens is known.user_tokens
            assert (await one.users.find("ada")).state == "stored"

    served(tmp_path, scenario)


async def out_of_reach(bundle_id: str, pairs: Sequence[str]) -> NoReturn:
    raise StoreUnavailable("its node is lost")


def test_a_redis_that_hangs_is_noticed(tmp_path: Path):
    """And holds up only whoever finds that out."""

    async def scenario(store: Redis, bundle: Bundle) -> None:
        async with replicas(store.url, bundle, 1, TIMEOUT_S) as (one,):
            assert store.process is not None
            os.kill(store.process.pid, signal.SIGSTOP)
            try:
                await soon(lambda: deaf(one))
                waits_s = [await seconds(one.users.find(f"stranger-{number}")) for number in range(50)]
                assert max(waits_s[1:]) < 0.1 < waits_s[0]
            finally:
                os.kill(store.process.pid, signal.SIGCONT)
            await soon(lambda: hears(one))

    served(tmp_path, scenario)
