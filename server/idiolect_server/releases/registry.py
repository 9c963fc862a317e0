"""The releases being served. A request takes a lease on one and holds it to its end: no reply mixes two bundles."""

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from idiolect.bundle import Bundle
from idiolect_server.admission import Admission
from idiolect_server.ending import end
from idiolect_server.engine.base import Adapter, Engine
from idiolect_server.errors import BundleServed, StoreError
from idiolect_server.releases.names import names
from idiolect_server.releases.probe import check_widths, probe
from idiolect_server.releases.release import Release
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.store import Store
from idiolect_server.users.cache import UserCache
from idiolect_server.users.learner import Learner
from idiolect_server.users.personalizer import Personalizer
from idiolect_server.users.scorer import Scorer

log = logging.getLogger(__name__)

STORE_RETRY_S = 1.0
LOAD_WAIT_S = 10.0


@dataclass
class _Served:
    """A release, what works for it in the background, and how many requests hold it."""

    release: Release
    tasks: Sequence[asyncio.Task[None]]
    n_leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()


class Releases:
    """What one engine serves from one store. Every bundle must be of the engine's base model.

    The first release is the active one, which requests are given.
    """

    def __init__(self, store: Store, engine: Engine, admission: Admission) -> None:
        self._store, self._engine, self._admission = store, engine, admission
        self.cache = UserCache(store.changes)
        self._served: dict[str, _Served] = {}
        self._adding: set[str] = set()
        self._active: _Served | None = None

    @property
    def active(self) -> Release:
        assert self._active is not None
        return self._active.release

    async def add(self, bundle: Bundle, adapter: Adapter | None, loading: asyncio.Task[None] | None = None) -> Release:
        """Serve a bundle too: its weights are loaded, its trained codes put into Redis, its votes scored.

        `loading` puts the codes into Redis, if that has begun before. Without an answer of Redis for LOAD_WAIT_S this
        returns none the less: replies are then degraded, not late.

        Raises BundleServed, and BundleError or ChatTemplateUnsupported when it cannot be served; nothing of it stays.
        """
        bundle_id = bundle.bundle_id
        if bundle_id in self._served or bundle_id in self._adding:
            raise BundleServed(f"bundle {bundle_id} is being served already")
        self._adding.add(bundle_id)
        try:
            await self._prove(bundle, adapter)
            return await self._serve(bundle, adapter, loading)
        finally:
            self._adding.discard(bundle_id)

    async def _prove(self, bundle: Bundle, adapter: Adapter | None) -> None:
        """Have the weights loaded, and a sound reply from them."""
        check_widths(self._engine, bundle)
        await self._engine.conversations.prove(bundle.manifest.layout)
        try:
            if adapter is not None:
                await self._engine.load_adapter(adapter)
            bundle.files.check_unchanged()
            await probe(self._engine, bundle, adapter)
        except BaseException:
            if adapter is not None and self._engine.alive:
                await self._engine.unload_adapter(adapter)
            raise

    async def _serve(self, bundle: Bundle, adapter: Adapter | None, loading: asyncio.Task[None] | None) -> Release:
        bundle_id = bundle.bundle_id
        self.cache.add(bundle_id)
        learner = Learner(bundle, self._store)
        release = Release(
            bundle,
            adapter,
            Personalizer(bundle, self._store, learner, self.cache),
            learner,
            names(self._engine, bundle, adapter),
        )
        tasks = [loading or asyncio.create_task(load_codes(self._store, bundle), name=f"load-codes-{bundle_id}")]
        await asyncio.wait(tasks, timeout=LOAD_WAIT_S)
        if learner.infers:
            scorer = Scorer(bundle, self._store, self._engine, adapter, self._admission)
            tasks.append(asyncio.create_task(scorer.run(), name=f"score-{bundle_id}"))
        else:
            log.warning("votes do not count: %s", learner.why_not)
        served = self._served[bundle_id] = _Served(release, tasks)
        if self._active is None:
            self._active = served
        log.info("serving bundle %s", bundle_id)
        return release

    def activate(self, bundle_id: str) -> None:
        """Give this release to requests from now on. Raises KeyError when it is not served."""
        self._active = self._served[bundle_id]

    def take(self, bundle_id: str | None = None) -> tuple[Release, Callable[[], None]]:
        """A lease on the active release, or on that of a bundle, and what ends it. Raises KeyError."""
        served = self._active if bundle_id is None else self._served[bundle_id]
        assert served is not None
        served.n_leases += 1
        served.idle.clear()

        def give_back() -> None:
            served.n_leases -= 1
            if not served.n_leases:
                served.idle.set()

        return served.release, give_back

    @contextmanager
    def lease(self, bundle_id: str | None = None) -> Generator[Release, None, None]:
        """A lease for the length of a block. Raises KeyError."""
        release, give_back = self.take(bundle_id)
        try:
            yield release
        finally:
            give_back()

    async def retire(self, bundle_id: str) -> None:
        """Serve a bundle no more: wait for its last request, then leave nothing of it in this process.

        Raises KeyError when it is not served, ValueError for the active one.
        """
        if self._served[bundle_id] is self._active:
            raise ValueError(f"bundle {bundle_id} is active: activate another one first")
        served = self._served.pop(bundle_id)
        await served.idle.wait()
        await end(served.tasks)
        self.cache.drop(bundle_id)
        if served.release.adapter is not None:
            await self._engine.unload_adapter(served.release.adapter)

    async def close(self) -> None:
        """End what works in the background, which talks to engine and store."""
        for served in self._served.values():
            await end(served.tasks)
        self.cache.close()


async def load_codes(store: Store, bundle: Bundle) -> None:
    """Put the bundle's trained codes into Redis, for as long as it takes Redis to answer."""
    while True:
        try:
            return await store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
        except StoreError as error:
            log.warning("%s; trained codes are not stored yet", error.message)
            await asyncio.sleep(STORE_RETRY_S)
