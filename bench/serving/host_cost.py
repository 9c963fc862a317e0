"""make host-cost (D3): what does personalizing a request cost the host, and does it grow with the prompt?

Our engine in process on a tiny random model, one new token a request: with user tokens, each request another user who
is looked up in Redis, and without. CPU time of every process that takes part (this one, vLLM's engine, Redis), prompts
of 128 and of 1,900 random tokens, one request at a time and eight at once. The model's own work on the user tokens is
in it. It computes with one thread: two would spin while they wait for each other, and that is no work.

The model's work on a prompt of 1,900 tokens is thirty times what a user adds, so windows are short and many: what
drifts between two of them is small. And the host's work is timed alone, too, step by step and without the model.
"""

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import numpy as np
import psutil
import uvloop
from vllm import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.request import Request
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from bench.load.load import everyone
from bench.load.sides import many_users
from bench.results import provenance, record
from idiolect_server.engine.base import EngineConfig, Sampling
from idiolect_server.engine.vllm import VllmEngine
from idiolect_server.prompt import Placed, UserTokens
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.store import Store
from idiolect_server.users.cache import UserCache
from idiolect_server.users.learner import Learner
from idiolect_server.users.personalizer import Personalizer
from idiolect_training.demo_model import demo_model
from tests.live import ROOT, Redis
from tests.parts.tiny import tiny_bundle

COMMAND = "make host-cost"
OUT = ROOT / "docs" / "results" / "host_cost.json"
N_USERS = 100_000
LENGTHS = (128, 1900)
CALLERS = (1, 8)
N_REQUESTS, N_WARM_UP, N_PAIRS = 16, 10, 151
STEPS = ("lookup", "preparation", "encoding", "decoding and block hashes")
N_WORK, N_WORK_TURNS = 300, 7


def cpu_s(redis_pid: int) -> dict[str, float]:
    """CPU seconds, so far, of this process, vLLM's engine, and Redis."""
    found = {"server": time.process_time(), "redis": _cpu_s(redis_pid)}
    return found | {"engine": sum(_cpu_s(child.pid) for child in psutil.Process().children() if child.pid != redis_pid)}


def _cpu_s(pid: int) -> float:
    """Of another process and all of its threads, to the nanosecond: Linux's clock_getcpuclockid(3)."""
    return time.clock_gettime(~pid << 3 | 2)


class Host:
    """Requests with and without a user."""

    def __init__(self, engine: VllmEngine, personalizer: Personalizer, redis_pid: int) -> None:
        self._engine, self._personalizer, self._redis_pid = engine, personalizer, redis_pid
        self._rng = np.random.default_rng(0)
        self._users = everyone(N_USERS)

    async def cpu_ms(self, n_tokens: int, n_callers: int, personalized: bool) -> dict[str, float]:
        """CPU milliseconds per request of each process and of all, over a window of them."""
        prompts = iter(self._rng.integers(100, 1000, size=(N_REQUESTS, n_tokens)).tolist())
        before = cpu_s(self._redis_pid)
        await asyncio.gather(*(self._call(prompts, personalized) for _ in range(n_callers)))
        taken = {name: 1000 * (after - before[name]) / N_REQUESTS for name, after in cpu_s(self._redis_pid).items()}
        return taken | {"all": sum(taken.values())}

    async def work_us(self, n_tokens: int, personalized: bool) -> dict[str, float]:
        """Microseconds of a request's way to vLLM's scheduler, nothing else running: medians of many."""
        llm, sampling, times_s = self._engine.llm, SamplingParams(max_tokens=1), defaultdict(list)
        cache = llm.vllm_config.cache_config
        hash_block = get_hash_fn_by_name(cache.prefix_caching_hash_algo)
        init_none_hash(hash_block)
        hash_blocks = get_request_block_hasher(cache.block_size, hash_block)
        encoder, decoder = MsgpackEncoder(), MsgpackDecoder(EngineCoreRequest)
        for ids in self._rng.integers(100, 1000, size=(N_WORK, n_tokens)).tolist():
            marks = [time.perf_counter()]
            user = await self._user() if personalized else None
            marks.append(time.perf_counter())
            given = self._engine.engine_input(Placed(ids, 1, user))
            request = llm.input_processor.process_inputs(uuid4().hex, given, sampling, ("generate",))
            marks.append(time.perf_counter())
            sent = encoder.encode(request)
            marks.append(time.perf_counter())
            received = Request.from_engine_core_request(decoder.decode(sent), hash_blocks)
            marks.append(time.perf_counter())
            assert len(received.block_hashes) == received.num_tokens // cache.block_size
            for name, (began, ended) in zip(STEPS, pairwise(marks), strict=True):
                times_s[name].append(ended - began)
        return {name: 1e6 * median(each) for name, each in times_s.items()}

    async def _user(self) -> UserTokens:
        who = await self._personalizer.find(next(self._users))
        assert who.state == "stored", who
        return who.user_tokens

    async def _call(self, prompts: Iterator[list[int]], personalized: bool) -> None:
        for ids in prompts:
            placed = Placed(ids, 1, await self._user() if personalized else None)
            async for chunk in self._engine.generate(placed, Sampling(max_tokens=1), uuid4().hex):
                assert chunk.n_cached_tokens == 0


async def measure(folder: Path, store_process: Redis) -> dict[str, Any]:
    small, model, _ = tiny_bundle(folder / "small", demo_model())
    bundle = many_users(folder / "bundle", N_USERS, like=small)
    store, table = Store(store_process.url), CodeTable.of(bundle)
    await store.load_codes(table, bundle.user_ids, bundle.codes)
    watching = asyncio.create_task(store.changes.watch())
    engine = await VllmEngine.start(EngineConfig(model=str(model)))
    cache = UserCache(store.changes)
    cache.add(bundle.bundle_id)
    assert store_process.process is not None
    host = Host(engine, Personalizer(bundle, store, Learner(bundle, store), cache), store_process.process.pid)
    found: dict[str, Any] = {}
    try:
        cases = list(itertools.product(CALLERS, LENGTHS))
        pairs: dict[tuple[int, int], list[tuple[dict[str, float], dict[str, float]]]] = {case: [] for case in cases}
        for turn in range(N_WARM_UP + N_PAIRS):
            for n_callers, n_tokens in cases:
                order = (True, False) if turn % 2 else (False, True)
                both = {with_user: await host.cpu_ms(n_tokens, n_callers, with_user) for with_user in order}
                pairs[n_callers, n_tokens].append((both[True], both[False]))
        for n_callers in CALLERS:
            short, long = (summary(pairs[n_callers, n_tokens][N_WARM_UP:]) for n_tokens in LENGTHS)
            ratio = round(long["added_ms"]["all"] / short["added_ms"]["all"], 3)
            lengths = {f"{n_tokens}_tokens": one for n_tokens, one in zip(LENGTHS, (short, long), strict=True)}
            found[f"{n_callers}_at_once"] = {**lengths, "long_over_short": ratio}
        found["work"] = await work(host)
    finally:
        engine.close()
        watching.cancel()
        await store.close()
    return found | {"pairs": N_PAIRS, "requests_a_window": N_REQUESTS}


async def work(host: Host) -> dict[str, Any]:
    """What a user adds to each step of a request's way to the scheduler."""
    found: dict[str, Any] = {}
    for n_tokens in LENGTHS:
        turns = [[await host.work_us(n_tokens, with_user) for with_user in (True, False)] for _ in range(N_WORK_TURNS)]
        added = {step: median(one[step] - other[step] for one, other in turns) for step in STEPS}
        added["all"] = median(sum(one.values()) - sum(other.values()) for one, other in turns)
        found[f"{n_tokens}_tokens"] = {"added_us": {step: round(us, 1) for step, us in added.items()}}
    short, long = (found[f"{n_tokens}_tokens"]["added_us"]["all"] for n_tokens in LENGTHS)
    return found | {"long_over_short": round(long / short, 3)}


def summary(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Medians of what a user adds, and of what a request costs without."""
    added = {name: [one[name] - other[name] for one, other in pairs] for name in pairs[0][0]}
    low, high = np.percentile(added["all"], [25, 75])
    return {
        "added_ms": {name: round(median(each), 3) for name, each in added.items()},
        "quartiles_of_all_ms": [round(low, 3), round(high, 3)],
        "plain_ms": round(median(plain["all"] for _, plain in pairs), 3),
    }


def main() -> None:
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = str(max(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        store = Redis(Path(name) / "redis")
        store.start()
        try:
            value = uvloop.run(measure(Path(name), store))
        finally:
            store.stop()
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    OUT.write_text(json.dumps({**value, **provenance(COMMAND)}, indent=2) + "\n")
    record("D3", value)


if __name__ == "__main__":
    main()
