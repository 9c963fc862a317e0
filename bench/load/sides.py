"""What the throughput benchmarks compare: our server with many users, and vLLM's own server, with the same engine."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import redis
from safetensors.numpy import load_file, save_file

from bench.load import one_process
from bench.load.load import Body
from idiolect.bundle import Bundle, write_bundle
from idiolect.manifest import AdapterWeights
from idiolect.prompt.layout import Placement
from idiolect.user_model import UserModel
from idiolect_server.engine.launch import CPU_STEP_TOKENS, FEW_CORES, INTEL_OPENMP
from idiolect_server.store import keyspace
from idiolect_training.demo_model import demo_model
from tests.live import DEMO_BUNDLE, Redis, free_port, running_server, wait_until_ready

K, N_USER_TOKENS = 16, 4
MAX_NUM_SEQS = 64


def many_users(folder: Path, n_users: int, like: Bundle | None = None, placement: Placement | None = None) -> Bundle:
    """Cluster users of the model of `like` (the demo's), user-0000000 and on, whose user tokens are close to its own.

    The adapter has the size of that of `like` and no effect: the demo's writes short replies to some questions, and
    sides that do not write equally many tokens cannot be compared.
    """
    like = like or Bundle.read(DEMO_BUNDLE)
    layout, rng = like.manifest.layout, np.random.default_rng(0)
    generic = like.user_model.user_tokens(like.user_model.generic_code)
    generic = np.resize(generic, (N_USER_TOKENS, generic.shape[1]))
    basis = generic + 0.05 * generic.std() * rng.normal(size=(K, *generic.shape))
    return write_bundle(
        folder,
        base_model=like.manifest.base_model,
        layout=layout if placement is None else layout.model_copy(update={"placement": placement}),
        user_model=UserModel("cluster", basis.astype(np.float32), np.full(K, 1 / K, np.float32)),
        user_ids=[f"user-{number:07d}" for number in range(n_users)],
        codes=rng.dirichlet(np.full(K, 0.3), size=n_users).astype(np.float32),
        weights=AdapterWeights.model_validate(like.manifest.weights.model_dump()),
        write_weights=lambda to: write_idle_adapter(to, like),
        training={},
    )


def write_idle_adapter(folder: Path, like: Bundle) -> None:
    """An adapter of the same size that adds zero."""
    assert like.adapter_path is not None
    shutil.copy(like.adapter_path / "adapter_config.json", folder)
    weights = load_file(like.adapter_path / "adapter_model.safetensors")
    idle = {name: np.zeros_like(one) if "lora_B" in name else one for name, one in weights.items()}
    save_file(idle, folder / "adapter_model.safetensors", {"format": "pt"})


@contextmanager
def ours(folder: Path, bundle: Bundle) -> Iterator[tuple[str, Path]]:
    """Our server with all of the bundle's users in a durable Redis: its URL, and the model that it serves."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Redis(folder / "redis")
    store.start()
    cache = folder / "cache"
    settings = {"bundle": str(bundle.path), "redis_url": store.url, "max_num_seqs": str(MAX_NUM_SEQS)}
    settings |= {"cache_dir": str(cache), "model": str(demo_model())}
    try:
        with (folder / "server.log").open("wb") as log, running_server(log, **settings) as (url, _):
            connection = redis.Redis.from_url(store.url)
            while not connection.exists(keyspace.loaded(bundle.bundle_id)):
                time.sleep(0.5)
            yield url, next((cache / "merged").glob(f"{bundle.bundle_id}-*")) / "model"
    finally:
        store.stop()


@contextmanager
def vllm_serve(
    model: Path, log: Path, *more: str, own_worker: bool = False, as_it_comes: bool = False
) -> Iterator[str]:
    """`vllm serve` as our engine is set up, with `more` arguments; its base URL. The model is called `plain`.

    `own_worker`: every setting of ours that vLLM has for a CPU, which computes the model in a worker process then.
    `as_it_comes`: its own settings, but float32 and as much memory.
    """
    port = free_port()
    arguments = ["--model", str(model), "--served-model-name", "plain", "--port", str(port), "--host", "127.0.0.1"]
    arguments += ["--dtype", "float32"]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_PLUGINS": ""}
    module = "vllm.entrypoints.openai.api_server"
    if not as_it_comes:
        arguments += ["--enforce-eager", "--block-size", "32", "--max-num-seqs", str(MAX_NUM_SEQS)]
        arguments += ["--max-num-batched-tokens", str(CPU_STEP_TOKENS)]
        arguments += ["--generation-config", "vllm", "--disable-log-stats", "--scheduling-policy", "priority"]
        if len(os.sched_getaffinity(0)) <= FEW_CORES:
            env["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
        if own_worker and INTEL_OPENMP.exists():
            env["LD_PRELOAD"] = str(INTEL_OPENMP)
        elif not own_worker:
            module, arguments = (
                one_process.__name__,
                [*arguments, "--distributed-executor-backend", one_process.EXECUTOR],
            )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, *more],
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


SYSTEM = """You are the assistant of a public library. People write to you from the reading room, from home and from
the bus, and most of them read your answer on a small screen. Answer the question that was asked before anything else.
If you do not know something, say so and name a shelf, a catalogue or a librarian who might. Quote titles and names
exactly as they are written. Never invent a book, an author or a year. Do not give medical or legal advice; point to
the advice desk on the second floor instead. Opening hours are from nine in the morning to eight in the evening, and
until four on Saturdays; the library is closed on Sundays and on public holidays. Loans run for four weeks and can be
renewed twice, unless somebody else has reserved the book. Children under twelve need the signature of a parent for
their first card. If a message is rude, stay friendly and keep to the matter. If it asks for several things, answer
them one after another in the order in which they came."""
"""About 200 tokens that everybody shares, as a service's prompt would be: six whole blocks of vLLM's prefix cache."""


_numbers = itertools.count()
"""Of the conversations, one count for all sides: a server would find in its cache what another side asked it before."""


def conversation(number: int) -> list[dict[str, str]]:
    """Asks something else for every number, in the first block behind the system prompt, so that no answer is cached.

    Replies run into their limit, so that both sides of a comparison write equally many tokens.
    """
    question = f"Request {number}: write a long essay about the history of books."
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def generate_body(max_tokens: int) -> Body:
    """POST /generate, another conversation each time."""
    return lambda user: {"messages": conversation(next(_numbers)), "user_id": user, "max_tokens": max_tokens}


def chat_body(max_tokens: int, model: str | None = None, with_user: bool = False) -> Body:
    """POST /v1/chat/completions with the same; `model` None: each user has one, called as the user is."""

    def body(user: str) -> dict[str, Any]:
        asked = {"model": model or user, "messages": conversation(next(_numbers)), "max_tokens": max_tokens}
        return asked | {"temperature": 0} | ({"user": user} if with_user else {})

    return body
