"""Delete what a bundle that is served no more has left in Redis.

Takes the server's settings, to find its Redis. Users' votes and profiles stay, and the bundle's folder: should it be
served again, its codes are stored anew, and what votes tell is inferred anew.
"""

import asyncio
import re

from idiolect.bundle import Bundle
from idiolect_server.errors import SettingsError, StoreUnavailable
from idiolect_server.settings import Settings
from idiolect_server.store.embedded import EmbeddedRedis
from idiolect_server.store.store import Store


async def forget(settings: Settings, bundle_id: str) -> int:
    """How many keys were deleted. Raises SettingsError for what is no bundle's id, and for the one that is served."""
    if not re.fullmatch(r"[0-9a-f]{16}", bundle_id):
        raise SettingsError(f"{bundle_id!r} is not the id of a bundle", hint="its manifest.json has it: bundle_id")
    if bundle_id == Bundle.read(settings.bundle).bundle_id:
        raise SettingsError(f"{bundle_id} is the bundle of IDIOLECT_BUNDLE", hint="serve another one first")
    embedded = EmbeddedRedis(settings.data_dir) if settings.redis_url is None else None
    if embedded is not None:
        await embedded.start()
    try:
        store = Store(embedded.url if embedded is not None else str(settings.redis_url))
        try:
            if embedded is not None:
                await _ready(store)
            return await store.forget(bundle_id)
        finally:
            await store.close()
    finally:
        if embedded is not None:
            await embedded.stop()


async def _ready(store: Store) -> None:
    """A Redis that was just started reads its file first."""
    while True:
        try:
            return await store.ping()
        except StoreUnavailable:
            await asyncio.sleep(0.1)
