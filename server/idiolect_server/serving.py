"""What a running server has: bundle, store, engine. Started once, in order, and closed in reverse."""

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from idiolect.base_model import check_base_model, identify
from idiolect.bundle import Bundle
from idiolect.errors import BundleError
from idiolect.manifest import Manifest
from idiolect.merge import merge_bundle
from idiolect_server.engine.engine import Engine, EngineConfig, is_cpu
from idiolect_server.engine.openai import OpenAI
from idiolect_server.errors import NotReady, SettingsError, StoreUnavailable
from idiolect_server.learner import Learner
from idiolect_server.personalize import Personalizer
from idiolect_server.scorer import Scorer
from idiolect_server.settings import DEMO_MODEL, Settings
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.embedded import EmbeddedRedis
from idiolect_server.store.store import Store

log = logging.getLogger(__name__)

STORE_RETRY_S = 1.0
LOAD_WAIT_S = 10.0


@dataclass(frozen=True)
class Serving:
    """The parts that requests use."""

    bundle: Bundle
    store: Store
    engine: Engine
    personalizer: Personalizer
    learner: Learner
    openai: OpenAI

    @property
    def frequency_penalty(self) -> float:
        """That of the bundle, for requests that bring none."""
        decoding = self.bundle.manifest.decoding
        return 0.0 if decoding is None else decoding.frequency_penalty


def serving(app: FastAPI) -> Serving:
    """The running parts. Raises NotReady until the engine is up."""
    live = app.state.serving
    if live is None:
        raise NotReady("the engine is starting", hint="ask /health/ready")
    assert isinstance(live, Serving)
    return live


@asynccontextmanager
async def start(settings: Settings) -> AsyncGenerator[Serving, None]:
    """Read the bundle, start Redis if need be, start the engine; stop them on the way out.

    Raises BundleError and SettingsError.
    """
    bundle, model, adapter = await asyncio.to_thread(prepare, settings)
    embedded = EmbeddedRedis(settings.data_dir) if settings.redis_url is None else None
    if embedded is not None:
        await embedded.start()
    try:
        store = Store(embedded.url if embedded is not None else str(settings.redis_url))
        loading = asyncio.create_task(_load_codes(store, bundle))
        watching = asyncio.create_task(store.changes.watch())
        try:
            engine = await Engine.start(
                EngineConfig(
                    model=model,
                    adapter=adapter,
                    bundle_id=bundle.bundle_id,
                    injection=settings.injection,
                    max_model_len=settings.max_model_len,
                    max_num_seqs=settings.max_num_seqs,
                    dtype=settings.dtype,
                )
            )
            scoring: asyncio.Task[None] | None = None
            try:
                # Ready with the trained users in place, unless Redis lets us wait: then replies are degraded, not late.
                await asyncio.wait([loading], timeout=LOAD_WAIT_S)
                learner = Learner(bundle, store)
                personalizer = Personalizer(bundle, store, learner)
                openai = OpenAI(engine, bundle.manifest.layout, bundle.manifest.base_model.name)
                if learner.infers:
                    scoring = asyncio.create_task(Scorer(bundle, store, engine).run())
                # All of this stays: no garbage collection needs to look at it again, while replies wait.
                gc.collect()
                gc.freeze()
                yield Serving(bundle, store, engine, personalizer, learner, openai)
            finally:
                gc.unfreeze()
                if scoring is not None:
                    scoring.cancel()
                    await asyncio.wait([scoring])  # it talks to the engine
                engine.close()
        finally:
            for task in (loading, watching):
                task.cancel()
            await asyncio.wait((loading, watching))
            await store.close()
    finally:
        if embedded is not None:
            await embedded.stop()


def prepare(settings: Settings) -> tuple[Bundle, str, Path | None]:
    """The checked bundle, the folder of the model to load, and the adapter to serve beside it if it is not merged."""
    bundle = Bundle.read(settings.bundle)
    if bundle.model_path is not None:
        return bundle, str(bundle.model_path), None
    base = _base_model(settings)
    check_base_model(bundle.manifest.base_model, identify(base))
    merge = settings.adapter == "merged" or (settings.adapter == "auto" and is_cpu())
    if not merge:
        return bundle, str(base), bundle.adapter_path
    folder = settings.cache_dir / "merged" / bundle.bundle_id
    try:
        Manifest.read(folder)
    except BundleError:
        log.info("merging the adapter of bundle %s into %s", bundle.bundle_id, base)
        merge_bundle(bundle, base, folder)
    return bundle, str(folder / "model"), None


def _base_model(settings: Settings) -> Path:
    """The base model's folder; a Hugging Face id is looked up in, or fetched into, the Hugging Face cache."""
    if settings.model == "demo":
        path = settings.cache_dir / "models" / DEMO_MODEL
        if not path.is_dir():
            raise SettingsError(f"the demo model is not in {path}", hint="run `make model`")
        return path
    if Path(settings.model).is_dir():
        return Path(settings.model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(settings.model))


async def _load_codes(store: Store, bundle: Bundle) -> None:
    """Put the bundle's trained codes into Redis, for as long as it takes Redis to answer."""
    while True:
        try:
            return await store.load_codes(CodeTable.of(bundle), bundle.user_ids, bundle.codes)
        except StoreUnavailable as error:
            log.warning("%s; trained codes are not stored yet", error.message)
            await asyncio.sleep(STORE_RETRY_S)
