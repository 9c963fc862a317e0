"""make before-after OTHER=FOLDER (R4): has this checkout's server become slower than another checkout's?

Both serve the demo bundle at once, each with its own virtual environment, and are asked in turns: tokens per second
with 16 callers, CPU time of the server's own process per request of one token, and seconds per lookup of a user in
memory. Two engines of the same code differ by up to 5 % from one start to the next, so they are started several times,
now the one first and now the other. `COMMAND` is how the other one is started, where that was another command.
"""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.load.load import Window, drive, paired
from bench.load.metrics import metric
from bench.results import commit, record
from idiolect.bundle import Bundle
from tests.live import DEMO_BUNDLE, ROOT, free_port, wait_until_ready

N_STARTS, N_PAIRS = 4, 5
"""Of both servers, and windows of each start."""
MEASURES = ("tokens_per_s", "cpu_per_request", "lookup")
LOOKUPS = 'idiolect_user_lookup_seconds_{}{{source="cache"}}'


@dataclass
class Side:
    """One running server."""

    url: str
    pid: int
    users: list[str]

    async def window(self, n_requests: int, n_callers: int, max_tokens: int) -> Window:
        numbers = itertools.count()

        def body(user: str) -> dict[str, Any]:
            prompt = f"Tell me about number {next(numbers)}."
            return {"user_id": user, "prompt": prompt, "max_tokens": max_tokens}

        return await drive(self.url, "/generate", body, itertools.cycle(self.users), n_requests, n_callers)

    async def tokens_per_s(self) -> float:
        return (await self.window(48, 16, 24)).tokens_per_s

    async def cpu_per_request(self) -> float:
        began = self._cpu_s()
        await self.window(150, 8, 1)
        return (self._cpu_s() - began) / 150

    async def lookup(self) -> float:
        with httpx.Client(base_url=self.url) as http:
            before = [metric(http, LOOKUPS.format(what)) for what in ("sum", "count")]
            await self.window(100, 8, 1)
            total, n = (metric(http, LOOKUPS.format(what)) for what in ("sum", "count"))
        return (total - before[0]) / (n - before[1])

    def _cpu_s(self) -> float:
        """Of the process and all of its threads: Linux's clock_getcpuclockid(3)."""
        return time.clock_gettime(~self.pid << 3 | 2)


@contextmanager
def running(root: Path, command: list[str], folder: Path, users: list[str]) -> Iterator[Side]:
    port = free_port()
    env = os.environ | {"IDIOLECT_BUNDLE": str(DEMO_BUNDLE), "IDIOLECT_PORT": str(port)}
    env |= {"IDIOLECT_DATA_DIR": str(folder / "data"), "VLLM_LOGGING_LEVEL": "WARNING"}
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(root / ".venv" / "bin" / "python"), *command], cwd=root, env=env, stdout=log, stderr=log
        )
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process)
            yield Side(f"http://127.0.0.1:{port}", process.pid, users)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def main(other: Path, command: list[str]) -> None:
    users = list(Bundle.read(DEMO_BUNDLE).user_ids)
    ratios: dict[str, list[float]] = {name: [] for name in MEASURES}
    for number in range(N_STARTS):
        sides = [("ours", ROOT, ["-m", "idiolect_cli", "serve"]), ("other", other, command)]
        if number % 2:
            sides.reverse()
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            started = {
                name: stack.enter_context(running(root, how, Path(folder) / name, users)) for name, root, how in sides
            }
            for name in MEASURES:
                measure, beside = (getattr(started[side], name) for side in ("ours", "other"))
                ratios[name] += asyncio.run(paired(measure, beside, N_PAIRS))["ratios"]
    found = {name: {"median": round(median(each), 4), "ratios": each} for name, each in ratios.items()}
    before = subprocess.check_output(["git", "rev-parse", "--short=12", "HEAD"], cwd=other, text=True).strip()
    value = {name: each["median"] for name, each in found.items()} | {"over": before, "ours": commit(), "pairs": found}
    row = record("R4", value)
    sys.stdout.write(f"{ {name: each['median'] for name, each in found.items()} } met: {row['met']}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or ["-m", "idiolect_cli", "serve"])
