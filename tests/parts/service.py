"""The service in this process, on a real port and a real Redis, with an engine that is given to it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from idiolect_server.app import create_app
from idiolect_server.door.server import Server
from idiolect_server.engine.base import Engine, EngineConfig
from idiolect_server.serving import Serving
from idiolect_server.settings import Settings
from tests.live import DEMO_BUNDLE, free_port, memory_folder


@dataclass
class Service:
    app: FastAPI
    http: httpx.AsyncClient
    engine: Engine
    server: Server
    config: EngineConfig | None = None
    """What the engine was started with."""

    @property
    def live(self) -> Serving:
        live = self.app.state.serving
        assert isinstance(live, Serving)
        return live


@asynccontextmanager
async def service(
    engine: Engine,
    bundle: Path = DEMO_BUNDLE,
    starts: asyncio.Event | None = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    """A service that answers; its engine is up when `starts` is set, if that is given, and else at once."""

    async def start_engine(config: EngineConfig) -> Engine:
        running.config = config
        if starts is not None:
            await starts.wait()
        return engine

    with memory_folder() as data_dir:
        # The adapter live: nothing is merged for an engine that has no weights.
        chosen = Settings(bundle=bundle, data_dir=data_dir, adapter="live", **settings)
        app, port = create_app(chosen, start_engine), free_port()
        server = Server(app, "127.0.0.1", port)
        serving = asyncio.create_task(server.serve())
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                running = Service(app, http, engine, server)
                # A start that fails may end the server before it has begun to listen.
                while not app.state.closing.failed and (
                    not server.started or (starts is None and app.state.serving is None)
                ):
                    await asyncio.sleep(0.01)
                yield running
        finally:
            server.should_exit = True
            await serving


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Name and data of each event of a stream."""
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
