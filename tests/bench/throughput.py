"""make throughput (D1, D2): does the number of users cost tokens, and does personalization?

D1: one server with a million known users; every request another user, against ten users in turn. D2 over HTTP: that
server, against `vllm serve` with the same merged weights and engine settings and no users; both wait while the other is
measured. Prompts differ in every request, so that no side finds another's answer in the prefix cache.
"""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import redis

from idiolect.bundle import Bundle, write_bundle
from idiolect.manifest import AdapterWeights
from idiolect.user_model import UserModel
from tests.bench.load import Body, drive, everyone, paired, uniform
from tests.live import DEMO_BUNDLE, ROOT, Redis, free_port, running_server, wait_until_ready
from tests.record import provenance, record
from training.demo_model import demo_model

COMMAND = "make throughput"
OUT = ROOT / "docs" / "results" / "throughput.json"
N_USERS, K = 1_000_000, 16
N_REQUESTS, N_CALLERS, MAX_TOKENS, N_PAIRS = 96, 16, 16, 7
MAX_NUM_SEQS = 64


def many_users(folder: Path) -> Bundle:
    """A million cluster users of the demo's adapter, whose user tokens are all close to the generic ones."""
    demo = Bundle.read(DEMO_BUNDLE)
    adapter, rng = demo.adapter_path, np.random.default_rng(0)
    assert adapter is not None
    generic = demo.user_model.user_tokens(demo.user_model.generic_code)
    basis = generic + 0.05 * generic.std() * rng.normal(size=(K, *generic.shape))
    return write_bundle(
        folder,
        base_model=demo.manifest.base_model,
        layout=demo.manifest.layout,
        user_model=UserModel("cluster", basis.astype(np.float32), np.full(K, 1 / K, np.float32)),
        user_ids=[f"user-{number:07d}" for number in range(N_USERS)],
        codes=rng.dirichlet(np.full(K, 0.3), size=N_USERS).astype(np.float32),
        weights=AdapterWeights.model_validate(demo.manifest.weights.model_dump()),
        write_weights=lambda to: [shutil.copy(file, to) for file in adapter.iterdir()] and None,
        training={},
    )


@contextmanager
def plain_vllm(model: Path, log: Path) -> Iterator[str]:
    """`vllm serve` as it comes, with the settings of our engine; its base URL."""
    port = free_port()
    arguments = ["--model", str(model), "--served-model-name", "plain", "--port", str(port), "--host", "127.0.0.1"]
    arguments += ["--dtype", "float32", "--enforce-eager", "--block-size", "32", "--max-num-seqs", str(MAX_NUM_SEQS)]
    arguments += ["--generation-config", "vllm", "--disable-log-stats", "--scheduling-policy", "priority"]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_PLUGINS": ""}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process, path="/health")
            yield url
        finally:
            process.terminate()
            process.wait()


def wait_until_loaded(store: Redis, bundle: Bundle) -> None:
    connection = redis.Redis.from_url(store.url)
    while not connection.exists(f"idiolect:loaded:{bundle.bundle_id}"):
        time.sleep(0.5)


def generate_body() -> Body:
    numbers = itertools.count()
    return lambda user: {
        "prompt": f"What comes to your mind about the number {next(numbers)}?",
        "user_id": user,
        "max_tokens": MAX_TOKENS,
    }


def chat_body(model: str, with_user: bool) -> Body:
    numbers = itertools.count()

    def body(user: str) -> dict[str, Any]:
        prompt = f"What comes to your mind about the number {next(numbers)}?"
        asked = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS}
        return asked | {"temperature": 0} | ({"user": user} if with_user else {})

    return body


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = many_users(folder / "bundle")
        store = Redis(folder / "redis")
        store.start()
        settings = {"bundle": str(bundle.path), "redis_url": store.url, "max_num_seqs": str(MAX_NUM_SEQS)}
        settings |= {"cache_dir": str(folder / "cache"), "model": str(demo_model())}
        try:
            with (folder / "server.log").open("wb") as log, running_server(log, **settings) as (url, _):
                wait_until_loaded(store, bundle)
                value: dict[str, Any] = {"users": flat(url)}
                model = folder / "cache" / "merged" / bundle.bundle_id / "model"
                with plain_vllm(model, folder / "plain.log") as plain:
                    value |= over_plain(url, plain)
        finally:
            store.stop()
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    OUT.write_text(json.dumps({**value, **provenance(COMMAND)}, indent=2) + "\n")
    evidence = ROOT / "docs" / "evidence.json"
    record(evidence, "D1", value["users"], "tokens a second, 1,000,000 users over 10: >= 0.98", COMMAND)


def flat(url: str) -> dict[str, Any]:
    """Tokens a second with a million users, each request another one, over ten users."""
    many, few, body = everyone(N_USERS, first=1000), uniform(10, seed=0), generate_body()

    def measure(users: Iterator[str]) -> float:
        return asyncio.run(drive(url, "/generate", body, users, N_REQUESTS, N_CALLERS)).tokens_per_s

    return paired(lambda: measure(many), lambda: measure(few), N_PAIRS)


def over_plain(url: str, plain: str) -> dict[str, Any]:
    """Tokens a second of our two APIs over plain `vllm serve`."""
    users = everyone(N_USERS, first=500_000)
    model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
    sides = {
        "generate": (url, "/generate", generate_body()),
        "chat": (url, "/v1/chat/completions", chat_body(model, with_user=True)),
        "plain": (plain, "/v1/chat/completions", chat_body("plain", with_user=False)),
    }

    def measure(side: str) -> float:
        base, path, body = sides[side]
        return asyncio.run(drive(base, path, body, users, N_REQUESTS, N_CALLERS)).tokens_per_s

    return {
        f"{side}_over_vllm_serve": paired(lambda side=side: measure(side), lambda: measure("plain"), N_PAIRS)
        for side in ("generate", "chat")
    }


if __name__ == "__main__":
    main()
