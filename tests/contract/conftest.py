"""The engines of the contract, each started once for all tests of this folder."""

import asyncio
import random
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from idiolect.bundle import Bundle
from idiolect.prompt.layout import Layout
from idiolect_server.engine.base import Adapter, Engine, EngineConfig, Sampling
from idiolect_server.prompt import Placed, UserTokens
from tests.parts.second_bundle import LAYOUT, changed, second_bundle
from tests.parts.small_engine import SmallEngine
from tests.parts.tiny import tiny_bundle

MAX_MODEL_LEN = 512
N_INTERLEAVED = 200


def adapter_of(bundle: Bundle) -> Adapter:
    assert bundle.adapter_path is not None
    return Adapter(bundle.bundle_id, bundle.adapter_path)


@dataclass
class Running:
    """An engine with two adapters, and the loop that it lives in."""

    engine: Engine
    loop: asyncio.AbstractEventLoop
    bundles: tuple[Bundle, Bundle]
    n_interleaved: int

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    @property
    def adapters(self) -> tuple[Adapter, Adapter]:
        first, second = self.bundles
        return adapter_of(first), adapter_of(second)

    @property
    def layout(self) -> Layout:
        return self.bundles[0].manifest.layout

    def placed(self, prompt: str, user: int | None = 0) -> Placed:
        bundle = self.bundles[0]
        said = [{"role": "user", "content": prompt}]
        tokens = None
        if user is not None:
            tokens = UserTokens(bundle.user_model.user_tokens(bundle.codes[user]), bundle.bundle_id)
        return self.run(self.engine.conversations.place(said, self.layout, tokens))

    async def pieces(
        self, placed: Placed, sampling: Sampling, adapter: Adapter | None, stream: bool = False
    ) -> list[tuple[str, tuple[int, ...], str | None]]:
        """(text, token ids, finish_reason) of each chunk."""
        name = f"contract-{random.randbytes(8).hex()}"
        chunks = self.engine.generate(placed, sampling, name, adapter=adapter, stream=stream)
        return [(chunk.text, tuple(chunk.token_ids), chunk.finish_reason) async for chunk in chunks]

    def text(self, placed: Placed, adapter: Adapter | None = None, **sampling: Any) -> str:
        pieces = self.run(self.pieces(placed, Sampling(**({"max_tokens": 12} | sampling)), adapter))
        return "".join(text for text, _, _ in pieces)


@pytest.fixture(scope="package", params=["small", "vllm"])
def running(request, model_path: Path, tmp_path_factory) -> Iterator[Running]:
    """With a tiny model: no test of this folder is about what the weights say."""
    folder = tmp_path_factory.mktemp("contract")
    trained, model, _ = tiny_bundle(folder, model_path)
    codes = np.random.default_rng(0).dirichlet(np.full(trained.codes.shape[1], 0.1), 12).astype(np.float32)
    users = [f"user-{number}" for number in range(len(codes))]
    first = changed(trained, folder / "first", LAYOUT, codes, users, 1.0, model=model)
    bundles = first, second_bundle(first, folder / "second", model=model)
    loop = asyncio.new_event_loop()
    engine: Engine
    if request.param == "small":
        engine, n_interleaved = (
            SmallEngine(AutoTokenizer.from_pretrained(model_path), max_model_len=MAX_MODEL_LEN, hidden_size=64),
            2000,
        )
    else:
        from idiolect_server.engine.vllm import VllmEngine

        config = EngineConfig(
            str(model), adapter_of(bundles[0]), max_adapters=2, max_model_len=MAX_MODEL_LEN, max_num_seqs=32
        )
        engine, n_interleaved = loop.run_until_complete(VllmEngine.start(config)), N_INTERLEAVED
    running = Running(engine, loop, bundles, n_interleaved)
    for adapter in running.adapters:
        running.run(engine.load_adapter(adapter))
    yield running
    engine.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
