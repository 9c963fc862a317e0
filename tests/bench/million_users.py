"""make million-users (D7, D8): what a million users cost Redis and the server's memory, and how fast they are found.

Cluster users (K = 16) of a tiny random model: none of this depends on the model. The codes are loaded as a starting
server loads them, into a durable Redis. Then callers of POST /generate ask for replies, one and eight at once, each for
another user, and then for a thousand users again and again: lookup times are the server's own histogram. At last every
user is read once through GET /users/{id}, which looks a user up as every request does: memory is the resident size of
the server.
"""

import argparse
import asyncio
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
import redis

from idiolect.base_model import identify
from idiolect.bundle import Bundle, write_bundle
from idiolect.manifest import AdapterWeights
from idiolect.user_model import UserModel
from server.store.codes import CodeTable
from server.store.store import Store
from tests.bench.load import drive, everyone
from tests.bench.metrics import histogram, slowest
from tests.live import ROOT, Redis, running_server
from tests.record import provenance, record
from tests.unit.tiny import tiny_bundle
from training.demo_model import demo_model

COMMAND = "make million-users"
OUT = ROOT / "docs" / "results" / "million_users.json"
LOOKUPS = ("lookup_ms", "lookup_ms_without_replies")
K = 16
N_CALLERS = 8
N_LOOKUPS, N_HOT, REPLY_TOKENS = 2000, 1000, 8


def many_users(folder: Path, n_users: int) -> tuple[Bundle, Path]:
    """A bundle of `n_users` cluster users with random weights, for a tiny model that vLLM can serve."""
    small, model, _ = tiny_bundle(folder / "small", demo_model())
    adapter, rng = small.adapter_path, np.random.default_rng(0)
    assert adapter is not None
    basis = rng.normal(size=(K, 4, small.user_model.hidden_size)).astype(np.float32)
    bundle = write_bundle(
        folder / "bundle",
        base_model=identify(model),
        layout=small.manifest.layout,
        user_model=UserModel("cluster", basis, np.full(K, 1 / K, np.float32)),
        user_ids=[f"user-{number:07d}" for number in range(n_users)],
        codes=rng.dirichlet(np.full(K, 0.3), size=n_users).astype(np.float32),
        weights=AdapterWeights.model_validate(small.manifest.weights.model_dump()),
        write_weights=lambda to: [shutil.copy(file, to) for file in adapter.iterdir()] and None,
        training={},
    )
    return bundle, model


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


def percentiles(after: dict[float, float], before: dict[float, float]) -> dict[str, float]:
    """Upper bounds in milliseconds."""
    assert sum(after.values()) > sum(before.values())
    return {f"p{share}": slowest(after, before, share / 100) for share in (50, 90, 99)}


async def lookup_ms(url: str, http: httpx.Client, n_users: int) -> dict[str, dict[str, float]]:
    """Bounds of the lookups' times while replies are asked for, from Redis and from the server's memory."""
    numbers = itertools.count()

    def body(user: str) -> dict[str, Any]:
        return {"prompt": f"What of {next(numbers)}?", "user_id": user, "max_tokens": REPLY_TOKENS}

    async def measure(source: str, users: Iterator[str], n_callers: int) -> dict[str, float]:
        before = lookups(http, source)
        window = await drive(url, "/generate", body, users, N_LOOKUPS, n_callers)
        rate = {"requests_a_second": round(N_LOOKUPS / window.seconds, 1)}
        return percentiles(lookups(http, source), before) | rate

    await drive(url, "/generate", body, everyone(N_HOT), N_LOOKUPS, N_CALLERS)  # warm up
    new = everyone(n_users, first=N_HOT)
    return {
        f"{source}, {n_callers} at once": await measure(source, users, n_callers)
        for source, users in (("store", new), ("cache", everyone(N_HOT)))
        for n_callers in (1, N_CALLERS)
    }


async def read(url: str, user_ids: Iterable[str]) -> None:
    """Read users one after another."""
    async with aiohttp.ClientSession() as http:
        for user_id in user_ids:
            async with http.get(f"{url}/users/{user_id}") as answer:
                assert b'"state":"stored"' in await answer.read()


def resident(pid: int) -> dict[str, float]:
    """MiB of the server's process, and of all its processes together."""
    server = psutil.Process(pid)
    processes = [server, *server.children(recursive=True)]
    total = sum(process.memory_info().rss for process in processes)
    return {"server": round(server.memory_info().rss / 2**20, 1), "all": round(total / 2**20, 1)}


def lookups(http: httpx.Client, source: str) -> dict[float, float]:
    """Upper bound in seconds -> how many lookups took no longer."""
    return histogram(http, "idiolect_user_lookup_seconds", f'source="{source}"')


async def touch_everyone(url: str, pid: int, http: httpx.Client, user_ids: list[str]) -> dict[str, Any]:
    """Resident memory after each tenth of the users, and bounds of the lookups' times while nobody asks for replies."""
    sizes = []
    part = len(user_ids) // 10
    before = lookups(http, "store")
    for first in range(0, len(user_ids), part):
        began = time.monotonic()
        await asyncio.gather(*(read(url, user_ids[first + n : first + part : N_CALLERS]) for n in range(N_CALLERS)))
        sizes.append({"users": first + part, **resident(pid)})
        sys.stderr.write(f"{sizes[-1]}, {part / (time.monotonic() - began):.0f} users a second\n")
    after, cached = lookups(http, "store"), lookups(http, "cache")
    await asyncio.gather(*(read(url, user_ids[-N_HOT:] * (N_LOOKUPS // N_HOT)) for _ in range(N_CALLERS)))
    last_over_first = {which: round(sizes[-1][which] / sizes[0][which], 4) for which in ("server", "all")}
    return {
        "resident_mib": sizes,
        "resident_last_over_first": last_over_first,
        "lookup_ms_without_replies": {
            "store": percentiles(after, before),
            "cache": percentiles(lookups(http, "cache"), cached),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_000_000, help="smaller for a try; nothing is then recorded")
    n_users: int = parser.parse_args().users
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle, model = many_users(folder, n_users)
        store = Redis(folder / "redis")
        store.start()
        try:
            value = asyncio.run(load(store.url, bundle))
            sys.stderr.write(f"{value}\n")
            settings = {"bundle": str(bundle.path), "model": str(model), "redis_url": store.url}
            settings |= {"cache_dir": str(folder / "cache")}
            with (
                (folder / "server.log").open("wb") as log,
                running_server(log, **settings) as (url, process),
                httpx.Client(base_url=url, timeout=60) as http,
            ):
                value["lookup_ms"] = asyncio.run(lookup_ms(url, http, n_users))
                sys.stderr.write(f"{value}\n")
                value |= asyncio.run(touch_everyone(url, process.pid, http, list(bundle.user_ids)))
        finally:
            store.stop()
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    if n_users < 1_000_000:
        return
    OUT.write_text(json.dumps({"users": n_users, **value, **provenance(COMMAND)}, indent=2) + "\n")
    evidence = ROOT / "docs" / "evidence.json"
    redis_part = {name: value[name] for name in ("redis_bytes_a_user", "loaded_users_a_second", *LOOKUPS)}
    threshold = "<= 64 bytes; >= 50,000 users a second; lookup p99 <= 2 ms from the store, <= 0.05 ms from the cache"
    record(evidence, "D7", redis_part, threshold, COMMAND)
    flat = value["resident_last_over_first"]
    record(evidence, "D8", flat, "<= 1.03: a million users touched over a hundred thousand", COMMAND)


if __name__ == "__main__":
    main()
