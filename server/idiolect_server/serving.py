"""What a running server has: engine, store, releases. Started once, in order, and closed in reverse."""

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request

from idiolect_server.admission import Admission
from idiolect_server.ending import end
from idiolect_server.engine.base import Engine, EngineConfig
from idiolect_server.engine.heart import Heart
from idiolect_server.errors import NotReady, SettingsError, StoreDenied, StoreError, StoreUnavailable
from idiolect_server.giving_back import give_back_after
from idiolect_server.releases.prepare import prepare
from idiolect_server.releases.registry import Releases, load_codes
from idiolect_server.releases.release import Release
from idiolect_server.settings import Settings
from idiolect_server.store.embedded import EmbeddedRedis
from idiolect_server.store.store import Store

log = logging.getLogger(__name__)

ACCESS_TRIES, ACCESS_RETRY_S = 20, 0.1
"""An embedded Redis has only just been started."""

StartEngine = Callable[[EngineConfig], Awaitable[Engine]]


@dataclass(frozen=True)
class Serving:
    """The parts that requests use."""

    engine: Engine
    store: Store
    releases: Releases
    admission: Admission
    heart: Heart


def serving(app: FastAPI) -> Serving:
    """The running parts. Raises NotReady until the engine is up."""
    live = app.state.serving
    if live is None:
        raise NotReady("the engine is starting", hint="ask /health/ready")
    assert isinstance(live, Serving)
    return live


def leased(http: Request) -> Release:
    """The release of this request, held until the last byte of its answer is sent. Raises NotReady."""
    release, give_back = serving(http.app).releases.take()
    give_back_after(http, give_back)
    return release


async def start_vllm_engine(config: EngineConfig) -> Engine:
    """The real engine. vLLM and torch are imported here, in a thread: that takes long, and health must answer."""

    def load() -> StartEngine:
        from idiolect_server.engine.vllm import VllmEngine

        return VllmEngine.start

    return await (await asyncio.to_thread(load))(config)


def merges(settings: Settings) -> bool:
    """Adapters are merged on a CPU, where vLLM's kernels for live ones halve its speed, and in float32, for which it
    has none on a GPU.
    """
    from idiolect_server.engine.launch import is_cpu

    return settings.dtype == "float32" or is_cpu()


@asynccontextmanager
async def start(settings: Settings, start_engine: StartEngine = start_vllm_engine) -> AsyncGenerator[Serving, None]:
    """Read the bundle, start Redis if need be, start the engine; stop them on the way out.

    Raises BundleError and SettingsError.
    """
    prepared = await asyncio.to_thread(prepare, settings, lambda: merges(settings))
    async with AsyncExitStack() as stack:
        store = await _store(settings, stack)
        stack.push_async_callback(store.close)
        await check_access(store)
        loading = asyncio.create_task(load_codes(store, prepared.bundle))
        watching = asyncio.create_task(store.changes.watch())
        finishing = asyncio.create_task(store.erasures.keep_finishing())
        stack.push_async_callback(end, (loading, watching, finishing))
        engine = await start_engine(
            EngineConfig(
                model=prepared.model,
                adapter=prepared.adapter,
                injection=settings.injection,
                max_model_len=settings.max_model_len,
                max_num_seqs=settings.max_num_seqs,
                dtype=settings.dtype,
                tensor_parallel_size=settings.tensor_parallel_size,
                gpu_memory=settings.gpu_memory,
                kv_cache_dtype=settings.kv_cache_dtype,
                quantization=settings.quantization,
                structured_outputs=settings.structured_outputs,
                tool_call_parser=settings.tool_call_parser,
                reasoning_parser=settings.reasoning_parser,
                chat_template=_chat_template(settings),
                vllm_args=settings.vllm_args,
            )
        )
        stack.callback(engine.close)
        prepared.loaded.check_unchanged()
        admission = Admission(engine.capacity, settings.deadline_s, settings.max_waiting_tokens)
        releases = Releases(store, engine, admission)
        stack.push_async_callback(releases.close)
        await releases.add(prepared.bundle, prepared.adapter, loading)
        # All of this stays: no garbage collection needs to look at it again, while replies wait.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        yield Serving(engine, store, releases, admission, Heart(engine, settings.stall_s))


def _chat_template(settings: Settings) -> str | None:
    """Raises SettingsError."""
    if settings.chat_template is None:
        return None
    try:
        return settings.chat_template.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"IDIOLECT_CHAT_TEMPLATE: {error}") from None


async def _store(settings: Settings, stack: AsyncExitStack) -> Store:
    """In the Redis of the settings, or in one of our own, which is stopped with the server."""
    if settings.redis_url is not None:
        return Store(settings.redis_url)
    embedded = EmbeddedRedis(settings.data_dir)
    await embedded.start()
    stack.push_async_callback(embedded.stop)
    return Store(embedded.url, embedded.has_room)


async def check_access(store: Store) -> None:
    """Raises SettingsError when Redis refuses the server. One that does not answer for a while may come back."""
    for _ in range(ACCESS_TRIES):
        try:
            return await store.check_access()
        except StoreDenied as error:
            raise SettingsError(error.message, hint=error.hint) from error
        except StoreUnavailable:
            await asyncio.sleep(ACCESS_RETRY_S)
        except StoreError:
            break
    log.warning("the user store does not do what it is asked; the server starts without it")
