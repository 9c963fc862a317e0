"""make greedy (H5-store): one user's 100,000 votes, 10,000 erasures of nobody, a full Redis and a full disk.

A neighbour votes and asks for replies all the while, over the same server and in the same shard of the store. A tiny
random model, so that what is measured is the server. The disk is a tmpfs of 96 MB of its own, which root may mount;
without that right the full disk is missing from the result, and the line with it.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import redis

from bench.hostile.neighbour import GREEDY, NEIGHBOUR, Neighbour, each, vote
from bench.results import record
from idiolect_server.routes.feedback import CURSOR_HEADER
from idiolect_training.demo_model import demo_model
from tests.live import Redis, memory_folder, running_server
from tests.parts.tiny import tiny_bundle

N_VOTES, N_ERASURES = 100_000, 10_000
ALONE_S = 20.0
DISK_MB, NEARLY_FULL_BYTES = 96, 16 << 20


async def exported(http: httpx.AsyncClient) -> set[str]:
    """Ids of the votes that an export from the beginning brings."""
    found: set[str] = set()
    asked: dict[str, str | int] = {"limit": 1000}
    while True:
        page = await http.get("/feedback", params=asked)
        page.raise_for_status()
        found |= {json.loads(line)["vote_id"] for line in page.text.splitlines()}
        if page.headers[CURSOR_HEADER] == asked.get("cursor"):
            return found
        asked["cursor"] = page.headers[CURSOR_HEADER]


async def n_votes(http: httpx.AsyncClient) -> int:
    """Of the neighbour, which are more than an export has: of a day not all count."""
    return int((await http.get(f"/users/{NEIGHBOUR}")).json()["votes"])


async def is_gone(http: httpx.AsyncClient, user_id: str) -> bool:
    reply = await http.post("/generate", json={"user_id": user_id, "prompt": "x", "max_tokens": 2})
    erased = await http.delete(f"/users/{user_id}")
    user = (await http.get(f"/users/{user_id}")).json()
    return (reply.status_code, erased.status_code, user["known"], user["votes"]) == (200, 200, False, 0)


async def many(http: httpx.AsyncClient, connection: Any) -> dict[str, Any]:
    """Votes, erasures, and Redis at its memory limit, beside the neighbour."""
    neighbour = Neighbour(http)
    living = asyncio.create_task(neighbour.live())
    _, alone_s = await neighbour.slowest_s(asyncio.sleep(ALONE_S))
    offered, votes_wait_s = await neighbour.slowest_s(
        each(N_VOTES, lambda number: http.post("/feedback", json=vote(GREEDY, number)))
    )
    greedy_gone = await is_gone(http, GREEDY) and not connection.keys(f"*{GREEDY}*")
    used = connection.info("memory")["used_memory"]
    erased, erasures_wait_s = await neighbour.slowest_s(
        each(N_ERASURES, lambda number: http.delete(f"/users/nobody-{number}"))
    )
    grown = connection.info("memory")["used_memory"] - used
    full = await at_the_limit(http, connection, neighbour)
    living.cancel()
    return {
        "offered": N_VOTES,
        "votes": dict(offered),
        "greedy_gone": greedy_gone,
        "erasures": dict(erased),
        "bytes_per_erasure": round(grown / N_ERASURES),
        "alone_s": round(alone_s, 3),
        "votes_wait_s": round(votes_wait_s, 3),
        "erasures_wait_s": round(erasures_wait_s, 3),
        "neighbour": {"votes": len(neighbour.votes_s), "failed": len(neighbour.failed)},
        "neighbour_failures": neighbour.failed[:5],
        "full_redis": full,
    }


async def at_the_limit(http: httpx.AsyncClient, connection: Any, neighbour: Neighbour) -> dict[str, Any]:
    """Votes are refused by name; replies, erasures and the export go on; what was acknowledged is there."""
    await http.post("/feedback", json=vote("leaving", 0))
    neighbour.refusal = "store_full"
    connection.config_set("maxmemory", connection.info("memory")["used_memory"] - (100 << 10))
    answers, wait_s = await neighbour.slowest_s(each(200, lambda n: http.post("/feedback", json=vote(f"new-{n}", n))))
    during = await exported(http)
    gone = await is_gone(http, "leaving")
    connection.config_set("maxmemory", 0)
    neighbour.refusal = "none"
    acknowledged = len(neighbour.acknowledged)
    lost = max(0, acknowledged - await n_votes(http))
    again = (await http.post("/feedback", json=vote("after", 0))).status_code
    return {
        "votes": dict(answers),
        "refused_neighbour": len(neighbour.refused),
        "wait_s": round(wait_s, 3),
        "exported": len(during),
        "user_gone": gone,
        "lost": lost,
        "taken_after": again == 200,
    }


async def on_a_full_disk(http: httpx.AsyncClient, data: Path) -> dict[str, Any]:
    """First nearly full, when votes are refused; then to the last byte, when Redis itself may end."""
    neighbour, ballast = Neighbour(http), data / "ballast"
    living = asyncio.create_task(neighbour.live())
    await asyncio.sleep(5)
    disk = os.statvfs(data)
    neighbour.refusal = "store_full"
    ballast.write_bytes(b"x" * (disk.f_bavail * disk.f_frsize - NEARLY_FULL_BYTES))
    await asyncio.sleep(3)
    refused = await each(50, lambda n: http.post("/feedback", json=vote(f"new-{n}", n)))
    nearly = {"votes": dict(refused), "exported": len(await exported(http)), "replies_failed": len(neighbour.failed)}
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    await asyncio.sleep(5)
    living.cancel()
    reply = await http.post("/generate", json={"user_id": NEIGHBOUR, "prompt": "x", "max_tokens": 2})
    ballast.unlink()
    began = time.perf_counter()
    while (await http.post("/feedback", json=vote("after", 0))).status_code != 200:
        await asyncio.sleep(0.1)
        if time.perf_counter() - began > 60:
            break
    back_s = time.perf_counter() - began
    return {
        "nearly": nearly,
        "reply_when_full": reply.status_code,
        "back_s": round(back_s, 1),
        "acknowledged": len(neighbour.acknowledged),
        "lost": len(neighbour.acknowledged) - await n_votes(http),
        "replies_failed": len(neighbour.failed),
        "failures": neighbour.failed[:5],
    }


def mounted(stack: ExitStack, at: Path) -> bool:
    """A file system of DISK_MB in memory. False where that is not allowed."""
    at.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", at], check=False).returncode:
        return False
    stack.callback(lambda: subprocess.run(["umount", "--lazy", at], check=True))
    return True


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle, model, _ = tiny_bundle(folder, demo_model())
        settings = {"bundle": str(bundle.path), "model": str(model), "cache_dir": str(folder / "cache")}
        store = Redis(stack.enter_context(memory_folder()))
        store.start()
        stack.callback(store.stop)
        log = stack.enter_context((folder / "server.log").open("wb"))
        with running_server(log, redis_url=store.url, **settings) as (url, process):
            value = asyncio.run(_with(url, lambda http: many(http, redis.Redis.from_url(store.url))))
            value["same_process"] = process.poll() is None
        if mounted(stack, folder / "disk"):
            with running_server(log, data_dir=str(folder / "disk"), **settings) as (url, process):
                value["full_disk"] = asyncio.run(_with(url, lambda http: on_a_full_disk(http, folder / "disk")))
                value["same_process"] = value["same_process"] and process.poll() is None
        log_text = (folder / "server.log").read_text(errors="replace")
        value["tracebacks"] = log_text.count("Traceback (most recent call last)")
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    record("H5-store", value)


async def _with(url: str, work: Callable[[httpx.AsyncClient], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=64)) as http:
        return await work(http)


if __name__ == "__main__":
    main()
