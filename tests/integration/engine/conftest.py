"""Real engines on the demo bundle, each started once for all tests of this folder."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from idiolect.bundle import Bundle
from idiolect.merge import merge_bundle
from idiolect.prompt.chat import prompt_ids
from idiolect_server.engine.base import Adapter, Chunk, EngineConfig, Sampling
from idiolect_server.engine.vllm import VllmEngine
from idiolect_server.prompt import Placed


@dataclass
class Running:
    """An engine and the loop that it lives in."""

    engine: VllmEngine
    adapter: Adapter | None
    loop: asyncio.AbstractEventLoop
    label: str

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def generate(self, placed: Placed, sampling: Sampling, name: str) -> AsyncGenerator[Chunk, None]:
        return self.engine.generate(placed, sampling, name, adapter=self.adapter)

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        return prompt_ids(messages, self.engine.tokenizer)


WAYS = {"passthrough-merged": True, "mixed-adapter": True, "passthrough-adapter": False, "mixed-merged": False}
"""Injection and weights; whether each run of the tests starts such an engine, or only one that keeps evidence."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "running" in metafunc.fixturenames:
        every = metafunc.config.getoption("--evidence")
        ways = [way for way, always in WAYS.items() if always or every]
        if metafunc.definition.get_closest_marker("any_way"):
            ways = ways[:1]
        metafunc.parametrize("running", ways, indirect=True, scope="package")


@pytest.fixture(scope="package")
def running(request, demo_bundle: Bundle, model_path: Path, tmp_path_factory) -> Iterator[Running]:
    injection, weights = request.param.split("-")
    model, adapter = model_path, Adapter(demo_bundle.bundle_id, demo_bundle.path / "adapter")
    if weights == "merged":
        merged = merge_bundle(demo_bundle, model_path, tmp_path_factory.mktemp("merged") / "bundle")
        model, adapter = merged.model_path, None
    config = EngineConfig(str(model), adapter, injection=injection, max_model_len=2048, max_num_seqs=32)
    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(VllmEngine.start(config))
    yield Running(engine, adapter, loop, request.param)
    engine.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
