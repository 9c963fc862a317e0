"""A server without an engine: the door alone, on real sockets, before a route that only counts."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from idiolect_server.door.access import Access
from idiolect_server.door.closing import Closing
from idiolect_server.door.server import Server
from tests.live import free_port


class Door:
    def __init__(self, port: int, server: Server, closing: Closing) -> None:
        self.port, self.server, self.closing = port, server, closing

    async def open(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))

    async def say(self, *pieces: bytes, pause_s: float = 0.0) -> bytes:
        """All that comes back until the server closes."""
        reader, writer = await self.open()
        heard = bytearray()

        async def listen() -> None:
            with suppress(ConnectionError):
                while piece := await reader.read(65_536):
                    heard.extend(piece)

        listening = asyncio.create_task(listen())
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        try:
            async with asyncio.timeout(10):
                await listening
        finally:
            writer.close()
        return bytes(heard)

    async def polite(self) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=5) as http:
            assert (await http.get("/health/live")).status_code == 200
            assert (await http.post("/generate", content=b"x" * 70_000)).json() == {"n": 70_000}


@asynccontextmanager
async def door(n_connections: int = 64) -> AsyncIterator[Door]:
    app, closing = FastAPI(redirect_slashes=False), Closing(finish_s=5)
    app.state.closing = closing

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {}

    @app.post("/generate")
    async def count(http: Request, wait_s: float = 0.0) -> dict[str, int]:
        n = len(await http.body())
        await asyncio.sleep(wait_s)
        return {"n": n}

    @app.post("/flood")
    async def flood() -> StreamingResponse:
        return StreamingResponse(b"x" * 65_536 for _ in range(1_000))

    app.add_middleware(Access, key_digests=(), max_body_bytes=1 << 20, closing=closing)
    port = free_port()
    server = Server(app, "127.0.0.1", port, n_connections)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield Door(port, server, closing)
    finally:
        server.should_exit = True
        await serving


def run(check: Callable[[Door], Awaitable[None]], n_connections: int = 64) -> None:
    async def main() -> None:
        async with door(n_connections) as opened:
            await check(opened)

    asyncio.run(main())


def answers(said: bytes) -> list[tuple[int, Any]]:
    """(status, content) of each answer in what a connection said."""
    found = []
    while said:
        head, _, rest = said.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
        found.append((int(lines[0].split()[1]), json.loads(rest[:length])))
        said = rest[length:]
    return found


def code(said: bytes) -> tuple[int, str]:
    (status, content), *more = answers(said)
    assert not more
    return status, content["error"]["code"]
