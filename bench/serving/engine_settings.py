"""make engine-settings: what vLLM's settings that we choose for a CPU are worth, one change at a time.

Our engine in process on the demo model, with user tokens, sixteen callers: as we set it up, over the same with one
setting changed; both engines are up, and one waits while the other is measured. An engine's speed differs a little from
start to start, so that a ratio within 0.03 of 1 says nothing.

Where a step has another size: also the longest wait between two tokens of a reply beside which a prompt of about 4,000
tokens comes, and that prompt's time. In bfloat16: also how far the log-probabilities of replies are from those
in float32.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import uuid4

import numpy as np
from vllm.v1.engine.async_llm import AsyncLLM

from bench.learning.length_users import first_sentences
from bench.load.load import Window, full, paired
from bench.load.sides import conversation
from bench.results import provenance
from idiolect.bundle import Bundle
from idiolect_server.engine.base import EngineConfig, Sampling
from idiolect_server.engine.launch import engine_args, start_vllm
from idiolect_server.engine.vllm import VllmEngine
from idiolect_server.prompt import Placed, UserTokens
from idiolect_training.demo_model import demo_model
from tests.live import DEMO_BUNDLE, ROOT

COMMAND = "make engine-settings"
OUT = ROOT / "docs" / "results" / "engine_settings.json"
N_REQUESTS, N_CALLERS, MAX_TOKENS, N_PAIRS = 16, 16, 48, 5
N_LONG_WORDS = 3000
"""About 4,000 tokens."""
CHANGES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "PyTorch's OpenMP": ({}, {"LD_PRELOAD": ""}),
    "a process for the worker": ({"distributed_executor_backend": "mp"}, {}),
    "a core kept for the scheduler": ({}, {"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}),
    "blocks of 128 tokens": ({"block_size": 128}, {}),
    "no prefix cache": ({"enable_prefix_caching": False}, {}),
    "steps of 2,048 tokens": ({"max_num_batched_tokens": 2048}, {}),
    "8 requests at once": ({"max_num_seqs": 8}, {}),
    "bfloat16": ({"dtype": "bfloat16"}, {}),
    "compiled": ({"enforce_eager": False}, {}),
}
"""Name -> changed arguments, and changed environment variables."""


class Side:
    """One engine, and tokens per second through it."""

    def __init__(self, arguments: Mapping[str, Any], env: Mapping[str, str]) -> None:
        bundle = Bundle.read(DEMO_BUNDLE)
        config = EngineConfig(model=str(demo_model()))
        args = replace(engine_args(config), **arguments)
        before = dict(os.environ)
        os.environ.update(env)
        try:
            # A worker's OpenMP is set up by vLLM; set up by us as well, it was as slow as on one core (056f9764).
            own_worker = args.distributed_executor_backend == "mp"
            llm = AsyncLLM.from_engine_args(args) if own_worker else start_vllm(args)
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.engine, self._layout = VllmEngine(llm, config), bundle.manifest.layout
        rows = bundle.user_model.user_tokens(bundle.codes[0])
        jitter = np.random.default_rng(0).normal(size=(N_REQUESTS, *rows.shape)).astype(np.float32)
        self._users = [UserTokens(rows + 1e-3 * one, bundle.bundle_id) for one in jitter]
        self._numbers = itertools.count()

    async def tokens_per_s(self) -> float:
        return (await full(self._window, N_REQUESTS * MAX_TOKENS)).tokens_per_s

    async def _window(self) -> Window:
        left, n_tokens = iter(self._users), 0

        async def call() -> None:
            nonlocal n_tokens
            for user in left:
                said = conversation(next(self._numbers))
                placed = await self.engine.conversations.place(said, self._layout, user)
                async for chunk in self.engine.generate(placed, Sampling(max_tokens=MAX_TOKENS), uuid4().hex):
                    n_tokens += len(chunk.token_ids)

        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(N_CALLERS)))
        return Window(n_tokens, time.perf_counter() - began, ())

    async def placed(self, n_more: int = 0) -> Placed:
        """A prompt that nobody has sent before, with `n_more` random words in its system prompt."""
        number = next(self._numbers)
        messages = conversation(number)
        if n_more:
            words = np.random.default_rng(number).choice(messages[0]["content"].split(), size=n_more)
            messages[0] = {"role": "system", "content": " ".join(words)}
        return await self.engine.conversations.place(messages, self._layout, self._users[number % N_REQUESTS])

    async def beside_a_long_prompt(self) -> tuple[float, float]:
        """Seconds: the longest wait for a reply's next token, and until the long prompt's reply."""
        short, long, arrivals, began = (
            await self.placed(),
            await self.placed(N_LONG_WORDS),
            list[float](),
            asyncio.Event(),
        )

        async def read() -> None:
            async for _ in self.engine.generate(short, Sampling(max_tokens=96), uuid4().hex, stream=True):
                arrivals.append(time.perf_counter())
                began.set()

        reading = asyncio.create_task(read())
        await began.wait()
        sent = time.perf_counter()
        async for _ in self.engine.generate(long, Sampling(max_tokens=1), uuid4().hex):
            pass
        seconds = time.perf_counter() - sent
        await reading
        assert arrivals[-1] > sent + seconds, "the reply was over before the long prompt"
        return max(later - earlier for earlier, later in pairwise(arrivals)), seconds

    async def log_probabilities(self) -> list[float]:
        """Of the tokens of some replies, each for another user."""
        found = []
        for (prompt, first, second), user in zip(first_sentences(), self._users, strict=False):
            said = [{"role": "user", "content": prompt}]
            placed = await self.engine.conversations.place(said, self._layout, user)
            found += await self.engine.score_reply(placed, f"{first} {second}", self._layout)
        return found


async def waits(ours: Side, other: Side) -> dict[str, Any]:
    """Of others while a long prompt is computed, and of the one who sent it: ours over the other."""

    async def longest_wait(side: Side) -> float:
        return (await side.beside_a_long_prompt())[0]

    async def long_prompt(side: Side) -> float:
        return (await side.beside_a_long_prompt())[1]

    return {
        "longest_wait": await paired(partial(longest_wait, ours), partial(longest_wait, other), N_PAIRS),
        "long_prompt": await paired(partial(long_prompt, ours), partial(long_prompt, other), N_PAIRS),
    }


async def apart(ours: Side, other: Side) -> dict[str, Any]:
    """How far the log-probabilities of reply tokens are apart."""
    difference = np.abs(np.subtract(await ours.log_probabilities(), await other.log_probabilities()))
    return {"log_probabilities_apart": {"mean": round(difference.mean(), 4), "max": round(difference.max(), 4)}}


MORE = {"steps of 2,048 tokens": waits, "bfloat16": apart}
"""What else is asked where a name's change is looked at."""


async def main() -> None:
    value: dict[str, Any] = {}
    for name, (arguments, env) in CHANGES.items():
        ours, other = Side({}, {}), Side(arguments, env)
        try:
            sys.stderr.write(f"{name}\n")
            value[name] = await paired(ours.tokens_per_s, other.tokens_per_s, N_PAIRS)
            if name in MORE:
                value[name] |= await MORE[name](ours, other)
        finally:
            other.engine.close()
            ours.engine.close()
    found = {"ours_over": value, **provenance(COMMAND)}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    OUT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
