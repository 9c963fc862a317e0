"""Users on a real Redis Cluster of three primaries and three replicas, one of which is lost under load."""

import asyncio
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from idiolect.bundle import Bundle
from idiolect_server.errors import StoreUnavailable
from idiolect_server.store import keyspace
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.connection import STORE_ERRORS, TIMEOUT_S, connect, send
from idiolect_server.store.store import Store
from tests.integration.test_personalize import VOTE, Replica, replicas, soon
from tests.live import N_SLOTS, Cluster
from tests.parts.bundles import small_bundle
from tests.parts.small_server import small_server

USERS = tuple(f"user-{number}" for number in range(60))


@pytest.fixture
def cluster(in_memory: Path) -> Iterator[Cluster]:
    nodes = Cluster(in_memory)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return small_bundle(tmp_path / "bundle", user_ids=USERS)


def test_everything_of_a_user_is_there(cluster: Cluster, bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    """Codes, votes, profile, margins and what is heard of changes; then all of it erased, on replicas too."""
    monkeypatch.setattr("idiolect_server.store.store.REWRITE_EVERY_S", 0.2)

    async def scenario() -> None:
        table = CodeTable.of(bundle)
        async with replicas(cluster.url, bundle, 2, TIMEOUT_S) as (one, other):
            await one.store.load_codes(table, bundle.user_ids, bundle.codes)
            for user_id, code in zip(USERS, bundle.codes, strict=True):
                stored = (await one.store.user(table, user_id)).trained
                assert stored is not None
                assert np.abs(table.decode(stored) - code).max() < 1e-3
                await other.users.find(user_id)
                await one.store.put_profile(user_id, f"I am {user_id}.")
                assert (await one.store.votes.add(user_id, "k", VOTE)).votes == 1
            for user_id in USERS:
                await soon(lambda user_id=user_id: is_known(other, user_id))
                assert len((await other.store.votes.given(table, user_id)).votes) == 1

            listed, cursor = await other.store.user_pages.page(None, 1)
            while cursor is not None:
                more, cursor = await other.store.user_pages.page(cursor, 1)
                listed += more
            assert sorted((user.user_id, user.votes, user.has_profile) for user in listed) == [
                (user_id, 1, True) for user_id in sorted(USERS)
            ]
            queue = one.store.queue(bundle.bundle_id)
            taken = await queue.take(8)
            assert sorted(vote.vote["user_id"] for vote in taken if vote.vote) == sorted(USERS)
            await queue.hold(taken)
            assert await queue.backlog() == len(USERS)
            await queue.done(taken)
            assert await queue.backlog() == 0
            await one.store.margins.put(bundle.bundle_id, "pair", np.ones(3))
            assert await one.store.margins.count_try(bundle.bundle_id, "pair") == 1
            assert list(await other.store.margins.get(bundle.bundle_id, ["pair", "none"])) == ["pair"]
            await one.store.votes.touch(USERS)

            for user_id in USERS:
                assert (await one.store.erase(user_id)).votes == 1
            await soon(lambda: is_gone(cluster))
            assert await other.store.forget(bundle.bundle_id) > 0
            await soon(lambda: is_forgotten(cluster))

    async def is_known(replica: Replica, user_id: str) -> bool:
        who = await replica.users.find(user_id)
        return (who.votes, who.profile) == (1, f"I am {user_id}.")

    async def is_forgotten(cluster: Cluster) -> bool:
        ours = f"*{bundle.bundle_id}*"
        return not any(list(cluster.client(node).scan_iter(ours, count=10_000)) for node in cluster.nodes)

    async def is_gone(cluster: Cluster) -> bool:
        files = (file for node in cluster.nodes for file in node.folder.rglob("append*") if file.is_file())
        return not any(b"I am user-" in file.read_bytes() for file in files)

    asyncio.run(scenario())


def test_connections_are_closed_while_commands_are_sent(cluster: Cluster):
    """As all that wait in a node's pool are when one of them fails: an answer, or an error that is known as Redis's."""

    async def scenario() -> None:
        redis = connect(cluster.url)
        await redis.initialize()
        keys = [f"{{{keyspace.shard(user_id)}}}" for user_id in USERS]
        right = [key.encode() for key in keys]
        assert all(await asyncio.gather(*(redis.set(key, key) for key in keys)))

        async def ask() -> list[Any]:
            pipeline = redis.pipeline()
            for key in keys[:3]:
                pipeline.get(key)
            asked = [*(redis.get(key) for key in keys), send(pipeline)]
            return await asyncio.gather(*asked, return_exceptions=True)

        async def all_is_right() -> bool:
            return await ask() == [*right, right[:3]]

        for n in range(10):
            closing = [asyncio.create_task(node.disconnect_free_connections()) for node in redis.get_nodes()]
            if n % 2:
                await asyncio.sleep(0)
            for found, expected in zip(await ask(), [*right, right[:3]], strict=True):
                assert found == expected or isinstance(found, STORE_ERRORS)
            await asyncio.gather(*closing)
        await soon(all_is_right)
        await redis.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_primary_is_lost_under_load(cluster: Cluster, bundle: Bundle, how: signal.Signals):
    """Votes that were acknowledged are there once; users of other nodes notice nothing; nobody waits for long."""
    acknowledged: set[str] = set()
    waits_s: list[float] = []
    states: dict[str, set[str]] = {user: set() for user in USERS}

    async def vote(store: Store, number: int, stop: asyncio.Event) -> None:
        n = 0
        while not stop.is_set():
            user_id, key = USERS[(number + 7 * n) % len(USERS)], uuid.uuid4().hex
            for _ in range(50):
                try:
                    prompt = [{"role": "user", "content": key}]
                    await store.votes.add(user_id, key, {**VOTE, "messages": prompt, "consent": True})
                except StoreUnavailable:
                    await asyncio.sleep(0.1)  # and again with the same key, as a client does
                else:
                    acknowledged.add(key)
                    break
            n += 1
            await asyncio.sleep(0.002)

    async def read_all(replica: Replica) -> set[str]:
        for user_id in USERS:
            began = time.monotonic()
            states[user_id].add((await replica.users.find(user_id)).state)
            waits_s.append(time.monotonic() - began)
        return {(await replica.users.find(user_id)).state for user_id in USERS}

    async def scenario() -> None:
        async with replicas(cluster.url, bundle, 1, TIMEOUT_S) as (one,):
            await one.store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
            stop = asyncio.Event()
            votes = [asyncio.create_task(vote(one.store, number, stop)) for number in range(4)]
            await asyncio.sleep(1)
            lost = cluster.nodes[0].process
            assert lost is not None
            os.kill(lost.pid, how)
            began = time.monotonic()
            while time.monotonic() - began < 6:
                await read_all(one)
                await asyncio.sleep(0.05)
            stop.set()
            await asyncio.gather(*votes)
            assert await read_all(one) == {"stored"}
            lost.kill()  # and not to be asked for what it has
            found = await everything(one.store)
            assert acknowledged <= set(found)
            assert len(found) == len(set(found))

    asyncio.run(scenario())
    assert len(acknowledged) > 500
    theirs = {user_id for user_id in USERS if has(cluster, 0, user_id)}
    assert 0 < len(theirs) < len(USERS)
    assert {frozenset(states[user_id]) for user_id in theirs} == {frozenset({"stored", "degraded"})}
    assert {frozenset(states[user_id]) for user_id in states.keys() - theirs} == {frozenset({"stored"})}
    assert np.percentile(waits_s, 99) < 0.1


def test_replies_go_on_while_a_primary_is_lost(cluster: Cluster, tmp_path: Path):
    """The server's process, on the small engine: replies and votes, while a node dies and its replica takes over."""
    statuses: list[int] = []
    stop = threading.Event()
    with small_server(tmp_path, cluster.url) as url:

        def ask() -> None:
            with httpx.Client(base_url=url, timeout=60) as http:
                while not stop.is_set():
                    body = {"user_id": "short-prose-plain-1", "prompt": "Hi", "max_tokens": 4}
                    statuses.append(http.post("/generate", json=body).status_code)

        def state() -> str:
            body = {"user_id": "short-prose-plain-1", "prompt": "Hi", "max_tokens": 1}
            return str(httpx.post(f"{url}/generate", json=body).json()["personalization"]["state"])

        assert state() == "stored"
        asking = threading.Thread(target=ask)
        asking.start()
        cluster.nodes[next(number for number in range(3) if has(cluster, number, "short-prose-plain-1"))].kill()
        deadline = time.monotonic() + 30
        vote = {"user_id": "short-prose-plain-1", "prompt": "p", "chosen": "a", "rejected": "b"}
        answers = []
        while not answers or answers[-1] != 200:
            assert time.monotonic() < deadline
            answers.append(httpx.post(f"{url}/feedback", json=vote, headers={"Idempotency-Key": "one"}).status_code)
            time.sleep(0.1)
        stop.set()
        asking.join()
        assert set(answers[:-1]) == {503}
        assert set(statuses) == {200}
        while state() not in ("stored", "inferred"):  # inferred as soon as the vote is scored
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert httpx.get(f"{url}/users/short-prose-plain-1").json()["votes"] == 1


def has(cluster: Cluster, number: int, user_id: str) -> bool:
    """Whether a user was at this primary when the cluster started."""
    slot = int(cluster.client(cluster.nodes[-1]).execute_command("CLUSTER KEYSLOT", keyspace.of_user("given", user_id)))
    return N_SLOTS * number // 3 <= slot < N_SLOTS * (number + 1) // 3


async def everything(store: Store) -> list[str]:
    """Prompts of all votes that are stored."""
    found = []
    for number in range(keyspace.N_SHARDS):
        for _, fields in await store._redis.xrange(keyspace.of_shard("votes", number)):
            found.append(json.loads(fields[b"vote"])["messages"][0]["content"])
    return found
