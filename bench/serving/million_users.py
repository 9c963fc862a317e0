"""make million-users (D7, D8): what a million users cost Redis and the server's memory, and how fast they are found.

Cluster users (K = 16) of a tiny random model: bytes and memory do not depend on the model. The codes are loaded as a
starting server loads them, into a durable Redis. Then replies are asked for at random moments, at half of the rate that
the server can take, each for another user, and for some users again and again: lookup times are the server's own
histogram, with the tiny model and with the demo model. And every user is read once through GET /users/{id}, which looks
a user up as every request does: memory is the resident size of the server.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
import redis

from bench.load.load import arrive, at_random, drive, everyone
from bench.load.metrics import histogram, slowest
from bench.load.sides import many_users
from bench.results import provenance, record
from idiolect.bundle import Bundle
from idiolect_server.engine.time_slice import SHORTEST_NS, USUAL_NS, set_turn
from idiolect_server.store import keyspace
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.store import Store
from idiolect_training.demo_model import demo_model
from tests.live import ROOT, Redis, running_server
from tests.parts.tiny import tiny_bundle

COMMAND = "make million-users"
OUT = ROOT / "docs" / "results" / "million_users.json"
LOOKUPS = ("lookup_ms", "lookup_ms_demo_model", "lookup_ms_without_replies")
N_CALLERS = 8
N_LOOKUPS, N_HOT, REPLY_TOKENS, LOAD = 2000, 1000, 8, 0.5
N_LOOKUPS_DEMO, N_HOT_DEMO = 800, 100
"""Of the demo model, which takes a tenth of the requests."""
EQUAL = "_with_equal_turns"


@dataclass(frozen=True)
class Server:
    """Ours: where it is, a client for it, its process, and that of its Redis."""

    url: str
    http: httpx.Client
    pid: int
    redis_pid: int

    def set_turns(self, turn_ns: int) -> None:
        """Of both; a Redis that the server starts has the server's."""
        for process in (self.pid, self.redis_pid):
            for thread in psutil.Process(process).threads():
                set_turn(thread.id, turn_ns)


async def load(url: str, bundle: Bundle) -> dict[str, Any]:
    """Store all codes; bytes of Redis and seconds, and the proof that they are there."""
    connection = redis.Redis.from_url(url)
    before = connection.info("memory")["used_memory"]
    store, table = Store(url), CodeTable.of(bundle)
    began = time.monotonic()
    await store.load_codes(table, bundle.user_ids, bundle.codes)
    seconds = time.monotonic() - began
    n_bytes = connection.info("memory")["used_memory"] - before
    for place in np.random.default_rng(1).integers(len(bundle.user_ids), size=1000):
        found = await store.user(table, bundle.user_ids[place])
        assert found.trained is not None
        assert np.abs(table.decode(found.trained) - bundle.codes[place]).max() <= 2**-12
    await store.close()
    n_users = len(bundle.user_ids)
    return {"redis_bytes_a_user": round(n_bytes / n_users, 1), "loaded_users_a_second": round(n_users / seconds)}


def percentiles(after: Mapping[float, float], before: Mapping[float, float]) -> dict[str, float]:
    """Upper bounds in milliseconds."""
    assert sum(after.values()) > sum(before.values())
    return {f"p{share}": slowest(after, before, share / 100) for share in (50, 90, 99)}


async def lookup_ms(server: Server, n_users: int, n_hot: int, n_lookups: int) -> dict[str, Any]:
    """Bounds of the lookups' times while replies are asked for, from Redis and from the server's memory.

    Twice, in turns: as it is, and with turns of server and Redis as long as everybody's
    (idiolect_server/engine/time_slice.py).
    """
    numbers, hot = itertools.count(), everyone(n_hot)
    sources = {"store": everyone(n_users, first=n_hot), "cache": hot}

    def body(user: str) -> dict[str, Any]:
        return {"prompt": f"What of {next(numbers)}?", "user_id": user, "max_tokens": REPLY_TOKENS}

    # What is left of the capacity when all callers wait for a reply all the time is headroom.
    warm = await drive(server.url, "/generate", body, hot, n_lookups, N_CALLERS)
    per_second = LOAD * n_lookups / warm.seconds
    counts: dict[str, Counter[float]] = defaultdict(Counter)
    for turns, turn_ns in (("", SHORTEST_NS), (EQUAL, USUAL_NS), (EQUAL, USUAL_NS), ("", SHORTEST_NS)):
        server.set_turns(turn_ns)
        for source, users in sources.items():
            before = Counter(lookups(server.http, source))
            await arrive(server.url, "/generate", body, users, n_lookups // 2, per_second)
            counts[source + turns] += Counter(lookups(server.http, source)) - before
    return {"requests_a_second": round(per_second, 1), **{name: percentiles(each, {}) for name, each in counts.items()}}


async def read(http: aiohttp.ClientSession, user_id: str) -> None:
    async with http.get(f"/users/{user_id}") as answer:
        assert b'"state":"stored"' in await answer.read()


async def read_all(url: str, user_ids: Sequence[str]) -> float:
    """Read users, N_CALLERS at once; how many a second."""
    began, left = time.monotonic(), iter(user_ids)
    async with aiohttp.ClientSession(url) as http:

        async def call() -> None:
            for user_id in left:
                await read(http, user_id)

        await asyncio.gather(*(call() for _ in range(N_CALLERS)))
    return len(user_ids) / (time.monotonic() - began)


async def read_at_random(url: str, user_ids: Sequence[str], per_second: float) -> None:
    """Read users at random moments, as independent callers do."""
    async with aiohttp.ClientSession(url) as http:
        await at_random((read(http, user_id) for user_id in user_ids), len(user_ids), per_second)


def resident(pid: int) -> dict[str, float]:
    """MiB of the server's process, and of all its processes together."""
    server = psutil.Process(pid)
    processes = [server, *server.children(recursive=True)]
    total = sum(process.memory_info().rss for process in processes)
    return {"server": round(server.memory_info().rss / 2**20, 1), "all": round(total / 2**20, 1)}


def lookups(http: httpx.Client, source: str) -> dict[float, float]:
    """Upper bound in seconds -> how many lookups took no longer."""
    return histogram(http, "idiolect_user_lookup_seconds", f'source="{source}"')


async def touch_everyone(server: Server, user_ids: list[str]) -> dict[str, Any]:
    """Resident memory after each tenth of the users, and bounds of the lookups' times while nobody asks for replies."""
    sizes = []
    part, per_second = len(user_ids) // 10, 0.0
    for first in range(0, len(user_ids), part):
        per_second = await read_all(server.url, user_ids[first : first + part])
        sizes.append({"users": first + part, **resident(server.pid)})
        sys.stderr.write(f"{sizes[-1]}, {per_second:.0f} users per second\n")
    last_over_first = {which: round(sizes[-1][which] / sizes[0][which], 4) for which in ("server", "all")}
    found: dict[str, Any] = {"requests_a_second": round(LOAD * per_second, 1)}
    # By now the first ones are forgotten, and the last ones are remembered.
    for source, those in (("store", user_ids[:N_LOOKUPS]), ("cache", user_ids[-N_LOOKUPS:])):
        before = lookups(server.http, source)
        await read_at_random(server.url, those, LOAD * per_second)
        found[source] = percentiles(lookups(server.http, source), before)
    return {
        "resident_mib": sizes,
        "resident_last_over_first": last_over_first,
        "lookup_ms_without_replies": found,
    }


@contextmanager
def serving(folder: Path, bundle: Bundle, model: Path, store: Redis) -> Iterator[Server]:
    """Our server with a bundle's users."""
    settings = {"bundle": str(bundle.path), "model": str(model), "redis_url": store.url}
    settings |= {"cache_dir": str(folder / "cache")}
    with (
        (folder / "server.log").open("ab") as log,
        running_server(log, **settings) as (url, process),
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        connection = redis.Redis.from_url(store.url)
        while not connection.exists(keyspace.loaded(bundle.bundle_id)):
            time.sleep(0.5)
        assert store.process is not None
        yield Server(url, http, process.pid, store.process.pid)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_000_000, help="smaller for a try; nothing is then recorded")
    n_users: int = parser.parse_args().users
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, model, _ = tiny_bundle(folder / "small", demo_model())
        bundle = many_users(folder / "bundle", n_users, like=small)
        store = Redis(folder / "redis")
        store.start()
        try:
            value = asyncio.run(load(store.url, bundle))
            sys.stderr.write(f"{value}\n")
            with serving(folder, bundle, model, store) as server:
                value["lookup_ms"] = asyncio.run(lookup_ms(server, n_users, N_HOT, N_LOOKUPS))
                sys.stderr.write(f"{value}\n")
                value |= asyncio.run(touch_everyone(server, list(bundle.user_ids)))
            demo = many_users(folder / "demo", n_users)
            with serving(folder, demo, demo_model(), store) as server:
                value["lookup_ms_demo_model"] = asyncio.run(lookup_ms(server, n_users, N_HOT_DEMO, N_LOOKUPS_DEMO))
        finally:
            store.stop()
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    if n_users < 1_000_000:
        return
    OUT.write_text(json.dumps({"users": n_users, **value, **provenance(COMMAND)}, indent=2) + "\n")
    redis_part = {name: value[name] for name in ("redis_bytes_a_user", "loaded_users_a_second", *LOOKUPS)}
    record("D7", redis_part)
    flat = value["resident_last_over_first"]
    record("D8", flat)


if __name__ == "__main__":
    main()
