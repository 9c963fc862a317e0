"""make engine-settings: what vLLM's settings that we choose for a CPU are worth, one change at a time.

Our engine in process on the demo model, with user tokens, sixteen callers: as we set it up, over the same with one
setting changed; both engines are up, and one waits while the other is measured.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from idiolect.bundle import Bundle
from server.engine.engine import Engine, EngineConfig, Sampling, engine_args
from server.engine.injection import Placed, UserTokens
from tests.bench.load import paired
from tests.bench.sides import conversation
from tests.live import DEMO_BUNDLE, ROOT
from tests.record import provenance
from training.demo_model import demo_model

COMMAND = "make engine-settings"
OUT = ROOT / "docs" / "results" / "engine_settings.json"
N_REQUESTS, N_CALLERS, MAX_TOKENS, N_PAIRS = 16, 16, 48, 5
CHANGES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a core kept for the scheduler": ({}, {"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}),
    "blocks of 128 tokens": ({"block_size": 128}, {}),
    "no prefix cache": ({"enable_prefix_caching": False}, {}),
    "steps of 512 tokens": ({"max_num_batched_tokens": 512}, {}),
    "8 requests at once": ({"max_num_seqs": 8}, {}),
    "bfloat16": ({"dtype": "bfloat16"}, {}),
    "compiled": ({"enforce_eager": False}, {}),
}
"""Name -> changed arguments, and changed environment variables."""


class Side:
    """One engine, and tokens a second through it."""

    def __init__(self, arguments: Mapping[str, Any], env: Mapping[str, str]) -> None:
        bundle = Bundle.read(DEMO_BUNDLE)
        config = EngineConfig(model=str(demo_model()), bundle_id=bundle.bundle_id)
        args = replace(engine_args(config), **arguments)
        before = dict(os.environ)
        os.environ.update(env)
        try:
            llm = AsyncLLM.from_engine_args(args, usage_context=UsageContext.OPENAI_API_SERVER)
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.engine, self._layout = Engine(llm, config), bundle.manifest.layout
        rows = bundle.user_model.user_tokens(bundle.codes[0])
        jitter = np.random.default_rng(0).normal(size=(N_REQUESTS, *rows.shape)).astype(np.float32)
        self._users = [UserTokens(rows + 1e-3 * one, bundle.bundle_id) for one in jitter]
        self._numbers = itertools.count()

    async def tokens_per_s(self) -> float:
        left, n_tokens = iter(self._users), 0

        async def call() -> None:
            nonlocal n_tokens
            for user in left:
                ids = await self.engine.conversations.encode(conversation(next(self._numbers)))
                placed = Placed(ids, self._layout.offset(ids), user)
                async for chunk in self.engine.generate(placed, Sampling(max_tokens=MAX_TOKENS), uuid4().hex):
                    n_tokens += len(chunk.token_ids)

        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(N_CALLERS)))
        return n_tokens / (time.perf_counter() - began)


async def main() -> None:
    value: dict[str, Any] = {}
    for name, (arguments, env) in CHANGES.items():
        ours, other = Side({}, {}), Side(arguments, env)
        try:
            sys.stderr.write(f"{name}\n")
            value[name] = await paired(ours.tokens_per_s, other.tokens_per_s, N_PAIRS)
        finally:
            other.engine.close()
            ours.engine.close()
    found = {"ours_over": value, **provenance(COMMAND)}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    OUT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
