"""make storm (H2): sixteen polite callers on the demo bundle, alone and beside twenty hostile ones for five minutes."""

import asyncio
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from bench.load.sides import conversation
from bench.results import record
from idiolect.bundle import Bundle
from tests.live import DEMO_BUNDLE, ROOT, Redis, running_server

N_POLITE, MAX_TOKENS = 16, 32
WARM_UP_S, ALONE_S, STORM_S, SETTLE_S = 30.0, 100.0, 300.0, 10.0
KEY = "storm"


@dataclass
class Polite:
    """Callers who each ask for one reply after the other; when each reply came, and of how many tokens."""

    url: str
    replies: list[tuple[float, int]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def ask(self, place: int, users: Sequence[str]) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(self.url, headers=headers) as http:
            for number in range(1 << 30):
                asked = number * N_POLITE + place
                # Of different lengths: callers who began together would otherwise come in waves.
                max_tokens = MAX_TOKENS // 2 + asked % MAX_TOKENS
                said = {"messages": conversation(asked), "max_tokens": max_tokens}
                try:
                    async with http.post("/generate", json={"user_id": users[number % len(users)], **said}) as response:
                        answer = await response.json()
                except aiohttp.ClientError as error:
                    self.failed.append(repr(error))
                    continue
                if response.status == 200:
                    self.replies.append((time.perf_counter(), answer["usage"]["completion_tokens"]))
                else:
                    self.failed.append(f"{response.status} {answer}")

    async def tokens_per_s(self, seconds: float) -> float:
        """From now on, after a time to settle."""
        await asyncio.sleep(SETTLE_S)
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        ended = time.perf_counter()
        return sum(n for at, n in self.replies if began <= at < ended) / (ended - began)


async def measure(url: str, pid: int) -> dict[str, Any]:
    server, polite = psutil.Process(pid), Polite(url)

    def memory() -> int:
        return sum(process.memory_info().rss for process in [server, *server.children(recursive=True)])

    # One honest use of structured outputs: the process that tries them is a part of the server from then on.
    form = {"messages": conversation(0), "structured_outputs": {"choice": ["yes", "no"]}}
    async with (
        aiohttp.ClientSession(url, headers={"authorization": f"Bearer {KEY}"}) as http,
        http.post("/v1/chat/completions", json=form) as response,
    ):
        assert response.status == 200, await response.text()
    callers = [asyncio.create_task(polite.ask(place, Bundle.read(DEMO_BUNDLE).user_ids)) for place in range(N_POLITE)]
    await asyncio.sleep(WARM_UP_S)
    before, memory_before = await polite.tokens_per_s(ALONE_S), memory()
    pids = {process.pid for process in server.children(recursive=True)}
    attack = [sys.executable, "-m", "bench.hostile.attackers", url, KEY]
    storm = subprocess.Popen(attack, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    during = await polite.tokens_per_s(STORM_S)
    memory_during = memory()
    said, _ = await asyncio.to_thread(storm.communicate)
    after = await polite.tokens_per_s(ALONE_S)
    for caller in callers:
        caller.cancel()
    answers: dict[str, int] = json.loads(said)
    for name, n in sorted(answers.items()):
        sys.stderr.write(f"{n:7} {name}\n")
    for line in polite.failed[:20]:
        sys.stderr.write(line + "\n")
    statuses = Counter[str]()
    for name, n in answers.items():
        statuses[name.split(" | ")[-1]] += n
    return {
        "polite_callers": N_POLITE,
        "storm_s": STORM_S,
        "hostile_kinds": len({name.split(" | ")[0] for name in answers}),
        "hostile_per_s": round(sum(answers.values()) / (STORM_S + SETTLE_S), 1),
        "answered": {name: n for name, n in statuses.items() if name.isdigit()},
        "answered_5xx": sum(n for name, n in statuses.items() if name.startswith("5")),
        "tokens_per_s": {"before": round(before, 1), "storm": round(during, 1), "after": round(after, 1)},
        "throughput": round(during / ((before + after) / 2), 3),
        "alone_spread": round(abs(before - after) / ((before + after) / 2), 3),
        "polite_replies": len(polite.replies),
        "polite_failed": len(polite.failed),
        "memory": round(memory_during / memory_before, 3),
        "same_processes": pids <= {process.pid for process in server.children(recursive=True)},
    }


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = Redis(folder / "redis")
        store.start()
        stack.callback(store.stop)
        log = stack.enter_context((folder / "server.log").open("wb"))
        settings = {"redis_url": store.url, "max_num_seqs": str(N_POLITE)}
        settings["api_keys"] = hashlib.sha256(KEY.encode()).hexdigest()
        url, process = stack.enter_context(running_server(log, **settings))
        value = asyncio.run(measure(url, process.pid))
        value["same_process"] = process.poll() is None
        value["tracebacks"] = (folder / "server.log").read_text(errors="replace").count("Traceback (most recent call")
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    record("H2", value)


if __name__ == "__main__":
    main()
