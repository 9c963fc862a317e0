"""make odd-values (H4-redis): 2,000 values that are not ours, under every kind of key, on the real engine.

For each, somebody new says something of themselves, gets a reply, votes and answers a question. Then something else
writes to Redis: another type, an odd text, field or entry, or what was there with some bytes changed. Then the user
does all that the API has, and is erased. Whatever is not a documented answer counts, and whatever an erasure leaves.
"""

import asyncio
import json
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import redis
from tqdm import tqdm

from bench.results import record
from idiolect_server.store.codes import CodeTable
from idiolect_training.demo_model import demo_model
from tests.live import Redis, memory_folder, running_server
from tests.parts.odd_values.values import Place, mutated, plant
from tests.parts.odd_values.walk import Walk
from tests.parts.tiny import tiny_bundle

N_VALUES, N_MUTATED = 2000, 640


def cases(places: list[Place], rng: random.Random) -> list[tuple[int, str]]:
    """Kinds of key, and what is done to each: as many as N_VALUES, mutations among them."""
    planted = [(number, name) for number, place in enumerate(places) for name, _ in place.all()]
    general = [case for case in planted if not case[1].startswith(("field", "entry"))]
    special = rng.sample([case for case in planted if case not in general], N_VALUES - N_MUTATED - len(general))
    changed = [(number % len(places), "mutated") for number in range(N_MUTATED)]
    return general + special + changed


async def walk(url: str, connection: Any, table: CodeTable) -> dict[str, Any]:
    rng, found, slowest_s = random.Random(0), list[str](), 0.0
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        witness = Walk(http, connection, table, "witness", chats=True)
        await witness.begin()
        todo = cases(witness.places, rng)
        for number, (kind, name) in enumerate(tqdm(todo, disable=None)):
            one = Walk(http, connection, table, f"odd-{number}-é", chats=True)
            await one.begin()
            where = one.places[kind]
            if name == "mutated":
                mutated(connection, where, rng)
            else:
                plant(connection, where, dict(where.all())[name], beside=rng.random() < 0.5)
            began = time.perf_counter()
            await one.go_on()
            await one.erase()
            slowest_s = max(slowest_s, time.perf_counter() - began)
            if not (await http.get("/users/witness")).json()["known"]:
                one.odd.append("the witness is unknown")
            found += [f"{where.name}, {name}: {odd}" for odd in one.odd]
    for line in found:
        sys.stderr.write(line + "\n")
    return {
        "values": len(todo),
        "kinds_of_key": len(witness.places),
        "mutated": sum(name == "mutated" for _, name in todo),
        "other_outcomes": len(found),
        "slowest_user_s": round(slowest_s, 2),
    }


def main() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder())
        bundle, model, _ = tiny_bundle(folder, demo_model())
        store = Redis(folder / "redis")
        store.start()
        stack.callback(store.stop)
        log = stack.enter_context((folder / "server.log").open("wb"))
        settings = {"bundle": str(bundle.path), "model": str(model), "redis_url": store.url}
        settings |= {"cache_dir": str(folder / "cache")}
        url, process = stack.enter_context(running_server(log, **settings))
        value = asyncio.run(walk(url, redis.Redis.from_url(store.url), CodeTable.of(bundle)))
        value |= {"same_process": process.poll() is None, "tracebacks": _tracebacks(folder / "server.log")}
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    record("H4-redis", value)


def _tracebacks(log: Path) -> int:
    return log.read_text(errors="replace").count("Traceback (most recent call last)")


if __name__ == "__main__":
    main()
