"""make crashes (C7): server, scorer and Redis are killed at random moments while votes come in.

The clients repeat a vote with its idempotency key until it is acknowledged, as the Python client does. At the end every
acknowledged vote must be in the log once, every user's count must be the number of the user's votes, and when the
backlog is scored every user's code must be what the votes say. The scorer lives in the server, and dies with it.
"""

import json
import random
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import redis

from bench.results import record
from idiolect_server.store import keyspace
from idiolect_server.store.keyspace import N_SHARDS
from idiolect_training.demo_model import demo_model
from tests.live import Redis, free_port, start_server, wait_until_ready
from tests.parts.tiny import tiny_bundle

COMMAND = "make crashes"
N_VOTES, N_CLIENTS, N_USERS, N_PAIRS = 10_000, 8, 50, 12
KILLS = ("redis", "server", "redis", "redis", "server", "redis")


def vote_until_acknowledged(url: str, numbers: list[int], keys: dict[int, str], acknowledged: list[int]) -> None:
    """Give the votes with these numbers, each with its key, until the server has them."""
    with httpx.Client(base_url=url, timeout=10) as http:
        for number in numbers:
            body = {
                "user_id": f"user-{number % N_USERS}",
                "prompt": f"Question {number % N_PAIRS}?",
                "chosen": "yes" if number % 3 else "no",
                "rejected": "no" if number % 3 else "yes",
            }
            while True:
                try:
                    answer = http.post("/feedback", json=body, headers={"Idempotency-Key": keys[number]})
                    if answer.status_code == 200:
                        break
                    assert answer.json()["error"]["retryable"], answer.text
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
            acknowledged.append(number)


def main() -> None:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        bundle, model, _ = tiny_bundle(folder, demo_model())
        store = Redis(folder / "redis")
        store.start()
        stack.callback(store.stop)
        log = stack.enter_context((folder / "server.log").open("wb"))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        settings = {"bundle": str(bundle.path), "model": str(model), "redis_url": store.url}
        settings |= {"cache_dir": str(folder / "cache")}
        process = start_server(port, log, **settings)
        stack.callback(lambda: process.kill())
        wait_until_ready(url, process)

        keys = {number: uuid.uuid4().hex for number in range(N_VOTES)}
        acknowledged: list[int] = []
        clients = [
            threading.Thread(
                target=vote_until_acknowledged,
                args=(url, list(range(first, N_VOTES, N_CLIENTS)), keys, acknowledged),
            )
            for first in range(N_CLIENTS)
        ]
        for client in clients:
            client.start()
        killed: Counter[str] = Counter()
        for place, victim in enumerate(KILLS, 1):
            # Spread over the votes, each at a random one of its share.
            at = N_VOTES * (place - rng.random()) / (len(KILLS) + 1)
            while len(acknowledged) < at:
                time.sleep(0.01)
            sys.stderr.write(f"{len(acknowledged)} votes acknowledged: SIGKILL for {victim}\n")
            if victim == "redis":
                store.kill()
                time.sleep(rng.random())
                store.start()
            else:
                process.kill()
                process.wait()
                process = start_server(port, log, **settings)
                wait_until_ready(url, process)
            killed[victim] += 1
        for client in clients:
            client.join()

        connection: Any = redis.Redis.from_url(store.url)  # its types allow for every way of decoding
        stored = [
            json.loads(fields[b"vote"])
            for number in range(N_SHARDS)
            for _, fields in connection.xrange(keyspace.of_shard("votes", number))
        ]
        by_user = Counter(vote["user_id"] for vote in stored)
        expected = Counter(f"user-{number % N_USERS}" for number in range(N_VOTES))
        counted = {user: int(connection.get(keyspace.of_user("count", user)) or 0) for user in expected}
        with httpx.Client(base_url=url, timeout=60) as http:
            waited = time.monotonic()
            while _unfinished(connection, bundle.bundle_id):
                assert time.monotonic() - waited < 600, "the backlog is not scored"
                time.sleep(1)
            known = [http.get(f"/users/{user}").json() for user in expected]
        margins = sum(connection.hlen(keyspace.margins(bundle.bundle_id, n)) for n in range(N_SHARDS))
        value = {
            "acknowledged": len(acknowledged),
            "lost": len(acknowledged) - len(stored) if len(stored) < len(acknowledged) else 0,
            "counted_twice": sum((by_user - expected).values()),
            "counts_equal": counted == dict(expected),
            "killed": dict(killed),
            "pairs_scored": margins,
            "users_inferred": sum(user["state"] == "inferred" for user in known),
        }
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
        assert by_user == expected
        assert counted == dict(expected)
        assert (margins, value["users_inferred"]) == (N_PAIRS, N_USERS)
    record("C7", value)


def _unfinished(connection: Any, bundle_id: str) -> int:
    """Votes that no scorer has finished: not yet read, or taken and not acknowledged."""
    left = 0
    for number in range(N_SHARDS):
        stream = keyspace.of_shard("votes", number)
        for group in connection.xinfo_groups(stream) if connection.exists(stream) else ():
            if group["name"] == f"scorer:{bundle_id}".encode():
                unread = connection.xrange(stream, min=b"(" + group["last-delivered-id"], count=1)
                left += group["pending"] + len(unread)
    return left


if __name__ == "__main__":
    main()
