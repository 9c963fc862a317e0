"""What we did not write in Redis is nothing: no request fails of it, and every user can be erased."""

import asyncio
import random
from pathlib import Path

import pytest
import redis
from transformers import AutoTokenizer

from idiolect_server.store import keyspace
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.store import Store
from tests.live import Redis
from tests.parts.odd_values.values import TYPES, mutated, plant
from tests.parts.odd_values.walk import Walk
from tests.parts.service import Service, service
from tests.parts.small_engine import SmallEngine

EACH = 5
"""Values for each kind of key, and one mutation of what is there; bench/hostile/odd_values.py has all of them."""


def test_every_kind_of_key_may_hold_anything(model_path: Path):
    found: list[str] = []

    async def check(running: Service) -> None:
        store = running.live.store
        connection = redis.Redis.from_url(f"unix://{store._redis.connection_pool.connection_kwargs['path']}")
        table, rng, n = CodeTable.of(running.live.releases.active.bundle), random.Random(0), 0
        for place in range(16):
            for number in range(EACH + 1):
                walk, n = Walk(running.http, connection, table, f"odd-{place}-{number}-é"), n + 1
                await walk.begin()
                assert walk.odd == []
                where = walk.places[place]
                names = [name for name, _ in where.all()]
                chosen = rng.choice(sorted(TYPES) if number < 2 else names)
                if number < EACH:
                    plant(connection, where, dict(where.all())[chosen], beside=number % 2 == 0)
                else:
                    chosen = "mutated"
                    mutated(connection, where, rng)
                await walk.go_on()
                await walk.erase()
                found.extend(f"{where.name}, {chosen}: {odd}" for odd in walk.odd)
        assert n > 80

    async def main() -> None:
        async with service(SmallEngine(AutoTokenizer.from_pretrained(model_path))) as running:
            await check(running)

    asyncio.run(main())
    assert not found, "\n".join(found)


@pytest.mark.parametrize("odd", [b"\xb9" * 32, b"\0" * 32, b"z" * 32, b" " * 32])
def test_a_key_whose_digest_is_odd_says_nothing(in_memory: Path, odd: bytes):
    """Its vote may still be there: the same vote once more is another vote, on the same pair."""
    server = Redis(in_memory)
    server.start()
    vote = {"messages": [{"role": "user", "content": "p"}], "chosen": "a", "rejected": "b", "consent": True}

    async def check() -> None:
        store = Store(server.url)
        first = await store.votes.add("ann", "once", vote)
        assert (await store.votes.add("ann", "once", vote)).duplicate
        (name,) = redis.Redis.from_url(server.url).keys(f"{keyspace.idempotency('ann')}*")
        redis.Redis.from_url(server.url).set(name, odd + first.vote_id.partition("-")[2].encode())
        second = await store.votes.add("ann", "once", vote)
        assert (second.duplicate, second.votes) == (False, 2)
        await store.close()

    asyncio.run(check())
    server.stop()
