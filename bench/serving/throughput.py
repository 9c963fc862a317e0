"""make throughput (D1, D2): does the number of users cost tokens, and does personalization?

Everybody shares a system prompt of about 200 tokens and asks something else. D1: one server with a million known users;
every request another user, against ten users in turn. D2 over HTTP: that server, against `vllm serve` with the same
merged weights and no users. Once with every engine setting of ours that vLLM has for a CPU, once with the model in the
scheduler's process as well, which is ours, and once with vLLM's own settings (one core kept for the scheduler,
compiled); each waits while the other is measured. An engine's speed differs a little from start to start and the
machine's over minutes, so both servers are started in both orders, and our two APIs take turns. D2 in process: our
engine with user tokens and without, on the demo model, and on a tiny random one whose forward pass costs next to
nothing, so that what the host does shows.
"""

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import httpx

from bench.load.load import Window, drive, everyone, full, paired, uniform, zipf
from bench.load.sides import MAX_NUM_SEQS, chat_body, conversation, generate_body, many_users, ours, vllm_serve
from bench.results import provenance, record
from idiolect.bundle import Bundle
from idiolect_server.engine.base import EngineConfig, Sampling
from idiolect_server.engine.vllm import VllmEngine
from idiolect_server.prompt import UserTokens
from idiolect_training.demo_model import demo_model
from tests.live import ROOT
from tests.parts.tiny import tiny_bundle

COMMAND = "make throughput"
OUT = ROOT / "docs" / "results" / "throughput.json"
N_USERS = 1_000_000
N_REQUESTS, N_CALLERS, MAX_TOKENS, N_PAIRS = 32, 16, 128, 5
APIS = ("/generate", "/v1/chat/completions")
N_TURNS, N_PAIRS_A_TURN = 2, 2
TINY_MAX_TOKENS = 256


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle, users = many_users(folder / "bundle", N_USERS), everyone(N_USERS, first=500_000)
        with ours(folder / "ours", bundle) as (url, model):
            users_over_ten = await flat(url)
            record("D1", users_over_ten)
            with vllm_serve(model, folder / "as_it_comes.log", as_it_comes=True) as plain:
                as_it_comes = await over_vllm(url, "/generate", users, plain, N_PAIRS)
        value: dict[str, Any] = {"generate_over_vllm_serve_as_it_comes": as_it_comes}
        value["over_vllm_serve"] = await in_both_orders(folder, bundle, model, own_worker=True)
        value["over_vllm_serve_in_one_process"] = await in_both_orders(folder, bundle, model, own_worker=False)
        value["in_process"] = await in_process(str(model), many_users(folder / "few", N_REQUESTS), MAX_TOKENS)
        like, tiny, _ = tiny_bundle(folder / "tiny", demo_model())
        tiny_users = many_users(folder / "few_tiny", N_REQUESTS, like=like)
        value["in_process_tiny_model"] = await in_process(str(tiny), tiny_users, TINY_MAX_TOKENS)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    found = {"users_over_ten": users_over_ten, **value}
    OUT.write_text(json.dumps({**found, **provenance(COMMAND)}, indent=2) + "\n")
    record("D2", value)


async def in_both_orders(folder: Path, bundle: Bundle, model: Path, *, own_worker: bool) -> dict[str, Any]:
    """Our APIs over `vllm serve`, with servers of which now one and now the other has started first."""
    users = everyone(N_USERS, first=500_000)
    ratios: dict[str, list[float]] = {path: [] for path in APIS}
    for ours_first, apis in ((True, APIS), (False, APIS[::-1])):
        with both(folder, bundle, model, ours_first=ours_first, own_worker=own_worker) as (url, plain):
            for path in apis * N_TURNS:
                ratios[path] += (await over_vllm(url, path, users, plain, N_PAIRS_A_TURN))["ratios"]
    return {path: {"median": round(median(each), 4), "ratios": each} for path, each in ratios.items()}


@contextmanager
def both(folder: Path, bundle: Bundle, model: Path, *, ours_first: bool, own_worker: bool) -> Iterator[tuple[str, str]]:
    """Our server and `vllm serve`."""
    mine = ours(folder / "ours", bundle)
    theirs = vllm_serve(model, folder / "plain.log", own_worker=own_worker)
    if ours_first:
        with mine as (url, _), theirs as plain:
            yield url, plain
    else:
        with theirs as plain, mine as (url, _):
            yield url, plain


async def tokens_per_s(url: str, path: str, body: Any, users: Iterator[str]) -> float:
    window = await full(lambda: drive(url, path, body, users, N_REQUESTS, N_CALLERS), N_REQUESTS * MAX_TOKENS)
    return window.tokens_per_s


async def flat(url: str) -> dict[str, Any]:
    """A million users over ten: each request another one, and by Zipf's law."""
    body = generate_body(MAX_TOKENS)
    crowds = {
        f"{N_USERS:,}": everyone(N_USERS, first=1000),
        f"{N_USERS:,} by Zipf's law": zipf(N_USERS, seed=2),
    }
    few = uniform(10, seed=0)
    return {
        name: await paired(
            partial(tokens_per_s, url, "/generate", body, many),
            lambda: tokens_per_s(url, "/generate", body, few),
            N_PAIRS,
        )
        for name, many in crowds.items()
    }


async def in_process(model: str, bundle: Bundle, max_tokens: int) -> dict[str, Any]:
    """Our engine with the bundle's users over the same engine without, the same prompts."""
    engine = await VllmEngine.start(EngineConfig(model=model, max_num_seqs=MAX_NUM_SEQS))
    layout, numbers, sampling = bundle.manifest.layout, itertools.count(), Sampling(max_tokens=max_tokens)
    users = [UserTokens(bundle.user_model.user_tokens(code), bundle.bundle_id) for code in bundle.codes]

    async def reply(user: UserTokens | None, number: int) -> list[int]:
        placed = await engine.conversations.place(conversation(number), layout, user)
        found: list[int] = []
        async for chunk in engine.generate(placed, sampling, uuid4().hex):
            found += chunk.token_ids
        return found

    async def score(user: UserTokens | None) -> list[float]:
        placed = await engine.conversations.place(conversation(-1), layout, user)
        return await engine.score(placed, len(placed.token_ids) - 8, uuid4().hex)

    async def window(personalized: bool) -> Window:
        left, n_tokens, began = iter(users), 0, time.perf_counter()

        async def call() -> None:
            nonlocal n_tokens
            for user in left:
                token_ids = await reply(user if personalized else None, next(numbers))
                n_tokens += len(token_ids)

        await asyncio.gather(*(call() for _ in range(N_CALLERS)))
        return Window(n_tokens, time.perf_counter() - began, ())

    async def tokens_per_s(personalized: bool) -> float:
        return (await full(lambda: window(personalized), N_REQUESTS * max_tokens)).tokens_per_s

    try:
        assert await score(users[0]) != await score(None), "user tokens change nothing"
        return await paired(lambda: tokens_per_s(True), lambda: tokens_per_s(False), N_PAIRS)
    finally:
        engine.close()


async def over_vllm(url: str, path: str, users: Iterator[str], plain: str, n_pairs: int) -> dict[str, Any]:
    """One of our APIs over `vllm serve`."""
    theirs = chat_body(MAX_TOKENS, "plain")
    ours = generate_body(MAX_TOKENS) if path == "/generate" else chat_body(MAX_TOKENS, _model(url), with_user=True)

    async def other() -> float:
        return await tokens_per_s(plain, "/v1/chat/completions", theirs, users)

    return await paired(lambda: tokens_per_s(url, path, ours, users), other, n_pairs)


def _model(url: str) -> str:
    return str(httpx.get(f"{url}/v1/models").json()["data"][0]["id"])


if __name__ == "__main__":
    asyncio.run(main())
