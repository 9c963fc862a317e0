"""A store on a real Redis that is its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from idiolect_server.errors import StoreUnavailable
from idiolect_server.store.embedded import EmbeddedRedis
from idiolect_server.store.store import Store


@asynccontextmanager
async def embedded_store(folder: Path) -> AsyncIterator[Store]:
    """It answers; its data lie below the folder."""
    embedded = EmbeddedRedis(folder / "data")
    await embedded.start()
    store = Store(embedded.url)
    try:
        for _ in range(100):
            with suppress(StoreUnavailable):
                await store.ping()
                break
            await asyncio.sleep(0.05)
        yield store
    finally:
        await store.close()
        await embedded.stop()
