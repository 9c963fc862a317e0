"""Tokens a second: with user tokens over without, and with a live adapter over without, in neighbouring windows."""

import asyncio
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from bench.load.load import paired
from idiolect_server.engine.base import Adapter, EngineConfig
from idiolect_server.engine.vllm import VllmEngine, lora_request
from idiolect_server.prompt import Placed, UserTokens

N_USERS, N_USER_TOKENS = 4096, 4
N_SHARED, N_OWN = 128, 124
"""Tokens of the system prompt that all share, and of each prompt behind it."""
MAX_MODEL_LEN, N_PAIRS = 1024, 3


class Load:
    """Requests of made-up tokens: speed does not need sense, and prompts that nobody has asked are in no cache."""

    def __init__(self, engine: VllmEngine, n_callers: int, n_reply_tokens: int) -> None:
        self._engine, self._n_callers, self._rng = engine, n_callers, np.random.default_rng(0)
        hidden_size = engine.llm.model_config.get_hidden_size()
        self._rows = self._rng.normal(size=(N_USERS, N_USER_TOKENS, hidden_size)).astype(np.float32) * 0.02
        self._shared = self._rng.integers(1000, 40_000, N_SHARED).tolist()
        self._params = SamplingParams(
            max_tokens=n_reply_tokens, ignore_eos=True, temperature=0.0, output_kind=RequestOutputKind.FINAL_ONLY
        )

    async def tokens_per_s(self, personalized: bool, adapter: Adapter | None = None, waves: int = 3) -> float:
        left = [self._placed(personalized) for _ in range(waves * self._n_callers)]
        n_tokens = len(left) * (self._params.max_tokens or 0)

        async def call() -> None:
            while left:
                asked = self._engine.engine_input(left.pop())
                name, lora = uuid.uuid4().hex, lora_request(adapter)
                async for _ in self._engine.llm.generate(asked, self._params, name, lora_request=lora):
                    pass

        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(self._n_callers)))
        return n_tokens / (time.perf_counter() - began)

    def _placed(self, personalized: bool) -> Placed:
        ids = [*self._shared, *self._rng.integers(1000, 40_000, N_OWN).tolist()]
        rows = self._rows[self._rng.integers(N_USERS)]
        return Placed(ids, N_SHARED, UserTokens(rows, "speed") if personalized else None)


async def speed(shape: Path, callers: tuple[int, ...], n_reply_tokens: int) -> dict[str, Any]:
    """Personalized over plain on one engine, for each number of callers at once."""
    began = time.perf_counter()
    engine = await VllmEngine.start(_config(shape, None, None))
    found: dict[str, Any] = {"start_s": round(time.perf_counter() - began, 1)}
    try:
        for n_callers in callers:
            load = Load(engine, n_callers, n_reply_tokens)
            tokens_per_s = load.tokens_per_s
            ratios = await paired(partial(tokens_per_s, True), partial(tokens_per_s, False), N_PAIRS)
            found[str(n_callers)] = {**ratios, "tokens_per_s": round(await tokens_per_s(True))}
    finally:
        engine.close()
    return found


async def live_over_merged(shape: Path, adapter: Adapter, n_callers: int, n_reply_tokens: int) -> dict[str, Any]:
    """An engine with the adapter live over one without (as when it is merged), side by side, users in both."""
    live = await VllmEngine.start(_config(shape, adapter, 0.45))
    try:
        merged = await VllmEngine.start(_config(shape, None, 0.45))
        try:
            ours, theirs = (Load(engine, n_callers, n_reply_tokens) for engine in (live, merged))
            return await paired(lambda: ours.tokens_per_s(True, adapter), lambda: theirs.tokens_per_s(True), N_PAIRS)
        finally:
            merged.close()
    finally:
        live.close()


def _config(shape: Path, adapter: Adapter | None, gpu_memory: float | None) -> EngineConfig:
    return EngineConfig(
        str(shape), adapter, max_model_len=MAX_MODEL_LEN, gpu_memory=gpu_memory, vllm_args="--load-format dummy"
    )
