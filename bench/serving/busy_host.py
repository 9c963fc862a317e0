"""make busy-host (D9): what is left of the engine's speed on a CPU when other processes compute on its cores?

Our engine in process on the demo model, as vLLM binds its threads to cores and in other ways, all of them up at
once and measured in turns; the others wait meanwhile. Eight callers, windows of ten seconds whose tokens are counted,
beside none, one and as many processes as there are cores that never rest.
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any
from uuid import uuid4

import psutil

from bench.results import provenance, record
from bench.serving.engine_settings import Side
from idiolect_server.engine.base import Sampling
from idiolect_server.engine.time_slice import USUAL_NS, set_turn
from tests.live import ROOT

COMMAND = "make busy-host"
OUT = ROOT / "docs" / "results" / "busy_host.json"
N_CORES = os.cpu_count() or 1
BOUND, ANY_CORE = {"VLLM_CPU_OMP_THREADS_BIND": "auto"}, {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
LONGEST_NS = 100_000_000
"""What Linux takes at most; the engine had it until 2026-11-29."""
WAYS: dict[str, tuple[dict[str, str], int]] = {
    "bound to cores": (BOUND, USUAL_NS),
    "bound to cores, longest turns": (BOUND, LONGEST_NS),
    "on any core": (ANY_CORE | {"OMP_NUM_THREADS": str(N_CORES)}, USUAL_NS),
    "one thread, on any core": (ANY_CORE | {"OMP_NUM_THREADS": "1"}, USUAL_NS),
}
"""Environment of the engine's start, and the turns of its threads (idiolect_server/engine/time_slice.py). On few cores
the server has them on any core; bound to cores is vLLM's own choice."""
NEIGHBOURS = {"alone": 0, "beside one": 1, "beside one per core": N_CORES}
N_ROUNDS, WINDOW_S, N_CALLERS, MAX_TOKENS = 3, 10.0, 8, 48


@contextmanager
def neighbours(n: int) -> Iterator[None]:
    """Processes that compute without end."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def started(env: dict[str, str], turn_ns: int) -> Side:
    before = {child.pid for child in psutil.Process().children()}
    side = Side({}, env)
    for engine in (child for child in psutil.Process().children() if child.pid not in before):
        for thread in engine.threads():
            set_turn(thread.id, turn_ns)
    return side


async def tokens_per_s(side: Side) -> float:
    """Of whatever is written in a window, replies that are cut off at its end included."""
    n_tokens, began = 0, time.perf_counter()

    async def call() -> None:
        nonlocal n_tokens
        while True:
            placed, name = await side.placed(), uuid4().hex
            async for chunk in side.engine.generate(placed, Sampling(max_tokens=MAX_TOKENS), name, stream=True):
                n_tokens += len(chunk.token_ids)

    callers = asyncio.gather(*(call() for _ in range(N_CALLERS)))
    with suppress(TimeoutError):
        await asyncio.wait_for(callers, WINDOW_S)
    return n_tokens / (time.perf_counter() - began)


async def main() -> None:
    sides = {name: started(env, turn_ns) for name, (env, turn_ns) in WAYS.items()}
    speeds: dict[str, dict[str, list[float]]] = {name: {load: [] for load in NEIGHBOURS} for name in WAYS}
    try:
        for side in sides.values():
            await tokens_per_s(side)  # warm
        for turn, (load, n) in itertools.product(range(N_ROUNDS), NEIGHBOURS.items()):
            for name in list(WAYS)[:: 1 if turn % 2 else -1]:
                with neighbours(n):
                    speeds[name][load].append(await tokens_per_s(sides[name]))
            sys.stderr.write(f"{turn} {load}: { ({name: round(speeds[name][load][-1], 1) for name in WAYS}) }\n")
    finally:
        for side in sides.values():
            side.engine.close()
    bound = speeds["bound to cores"]
    value: dict[str, Any] = {
        "of_its_speed_alone": {
            name: {load: _ratios(found[load], found["alone"]) for load in NEIGHBOURS if load != "alone"}
            for name, found in speeds.items()
        },
        "over_bound_to_cores": {
            name: {load: _ratios(found[load], bound[load]) for load in NEIGHBOURS}
            for name, found in speeds.items()
            if found is not bound
        },
        "cores": N_CORES,
    }
    OUT.write_text(json.dumps({**value, **provenance(COMMAND)}, indent=2) + "\n")
    record("D9", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _ratios(some: list[float], others: list[float]) -> dict[str, Any]:
    """Of windows of the same turn."""
    found = [one / other for one, other in zip(some, others, strict=True)]
    return {"median": round(median(found), 3), "all": [round(one, 3) for one in found]}


if __name__ == "__main__":
    asyncio.run(main())
