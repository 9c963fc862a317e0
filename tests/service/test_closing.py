"""How the service ends: one policy for both APIs, whole or streamed, whoever ends it. The small engine, real HTTP."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from idiolect_server.engine import heart
from tests.parts.service import Service, service
from tests.parts.small_engine import LONGEST, SmallEngine

ASKED: dict[str, dict[str, Any]] = {
    "/generate": {"prompt": "What is a compiler?"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "What is a compiler?"}]},
}
SLOW_S = 0.05
"""A token: a reply takes a second."""


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_path)


@pytest.fixture
def run(tokenizer: Any) -> Any:
    """run(check, ...settings): a service with a slow engine, for the length of one check."""

    def go(check: Any, **settings: Any) -> None:
        async def main() -> None:
            async with service(SmallEngine(tokenizer, token_s=SLOW_S), **settings) as running:
                await check(running)

        asyncio.run(main())

    return go


async def ask(running: Service, path: str, stream: bool) -> tuple[int, list[str]]:
    """Status, and the data of each event; of a whole reply the one object."""
    async with running.http.stream("POST", path, json=ASKED[path] | {"stream": stream}) as response:
        if not stream:
            return response.status_code, [(await response.aread()).decode()]
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
        return response.status_code, [line.removeprefix("data: ") for line in lines]


def all_kinds(running: Service) -> list[asyncio.Task[tuple[int, list[str]]]]:
    return [asyncio.create_task(ask(running, path, stream)) for path in ASKED for stream in (True, False)]


def is_whole(data: list[str]) -> bool:
    return data[-1] == "[DONE]" or "usage" in data[-1] or "choices" in data[-1]


def told(data: list[str]) -> tuple[str, bool]:
    error = json.loads(data[-1])["error"]
    return error["code"], error["retryable"]


async def all_run(running: Service, n: int = 4) -> None:
    while running.app.state.closing.n_running < n or not running.live.admission.n_replies:
        await asyncio.sleep(0.01)
    await asyncio.sleep(3 * SLOW_S)


async def ended(running: Service) -> float:
    """Seconds until the server has left its loop."""
    began = asyncio.get_running_loop().time()
    while not running.server.should_exit:
        await asyncio.sleep(0.01)
    return asyncio.get_running_loop().time() - began


def stop(running: Service) -> None:
    """What SIGTERM does, but for ending this process."""
    running.server.handle_exit(signal.SIGTERM, None)


@pytest.fixture(autouse=True)
def _no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn would end this process by the signal that it was told of."""
    monkeypatch.setattr(signal, "raise_signal", lambda number: None)


def test_what_runs_is_finished_and_nothing_new_is_taken(run):
    async def check(running: Service) -> None:
        replies = all_kinds(running)
        await all_run(running)
        stop(running)
        ready = await running.http.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "stopping"})
        assert (await running.http.get("/health/live")).status_code == 200
        for path in [*ASKED, "/feedback"]:
            refused = await running.http.post(path, json={})
            assert (refused.status_code, told([refused.text])) == (503, ("stopping", True))
            assert refused.headers["connection"] == "close"
        for reply in replies:
            status, data = await reply
            assert status == 200
            assert is_whole(data)
        assert await ended(running) < 1

    run(check)


def test_what_takes_too_long_ends_with_an_error_that_says_retry(run):
    async def check(running: Service) -> None:
        replies = all_kinds(running)
        await all_run(running)
        stop(running)
        done = await asyncio.gather(*replies)
        assert [told(data) for _, data in done] == [("stopping", True)] * 4
        assert [status for status, _ in done] == [200, 503, 200, 503]
        assert 1 < len(done[0][1]) < LONGEST + 2  # some of it had come
        assert json.loads(done[2][1][-1])["error"]["type"] == "server_error"
        assert await ended(running) < 1.5
        assert running.live.admission.n_replies == 0

    run(check, drain_s=0.2)


def test_who_sends_half_or_never_reads_does_not_hold_the_end(run):
    async def check(running: Service) -> None:
        url = running.http.base_url
        half = await asyncio.open_connection(url.host, url.port)
        half[1].write(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        deaf = await asyncio.open_connection(url.host, url.port, limit=1)
        body = json.dumps(ASKED["/generate"] | {"stream": True}).encode()
        deaf[1].write(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        deaf[1].write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        await all_run(running, 2)
        for connection in running.server.server_state.connections:
            connection.flow.pause_writing()  # as when nobody takes what is sent
        stop(running)
        assert await ended(running) < 3
        for _, writer in (half, deaf):
            writer.close()

    run(check, drain_s=0.2)


def test_an_engine_that_hangs_is_noticed_and_given_up(run, monkeypatch):
    monkeypatch.setattr(heart, "READY_S", 0.3)
    monkeypatch.setattr(heart, "REST_S", 0.05)
    monkeypatch.setattr(heart, "TICK_S", 0.05)

    async def check(running: Service) -> None:
        monkeypatch.setattr(running.live.heart, "_stall_s", 1.5)
        assert isinstance(running.engine, SmallEngine)
        replies = all_kinds(running)
        await all_run(running)
        assert (await running.http.get("/health/ready")).status_code == 200
        running.engine.goes_on.clear()
        while (ready := await running.http.get("/health/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        assert (ready.status_code, ready.json()) == (503, {"status": "stalled"})
        assert not any(reply.done() for reply in replies)
        done = await asyncio.gather(*replies)
        assert [told(data) for _, data in done] == [("engine_dead", True)] * 4
        assert [status for status, _ in done] == [200, 503, 200, 503]
        assert await ended(running) < 1.5
        assert running.app.state.closing.failed

    run(check)


def test_an_engine_that_goes_on_after_a_long_step_is_ready_again(run, monkeypatch):
    monkeypatch.setattr(heart, "READY_S", 0.3)
    monkeypatch.setattr(heart, "REST_S", 0.05)
    monkeypatch.setattr(heart, "TICK_S", 0.05)

    async def check(running: Service) -> None:
        assert isinstance(running.engine, SmallEngine)
        running.engine.goes_on.clear()
        asking = asyncio.create_task(ask(running, "/generate", stream=False))
        while (await running.http.get("/health/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        running.engine.goes_on.set()
        assert (await asking)[0] == 200
        assert (await running.http.get("/health/ready")).status_code == 200

    run(check)


def test_a_pause_of_ours_is_not_the_engines(monkeypatch, tokenizer):
    monkeypatch.setattr(heart, "TICK_S", 0.05)

    async def check() -> None:
        engine = SmallEngine(tokenizer)
        engine.goes_on.clear()
        beating = heart.Heart(engine, stall_s=10)
        watching = asyncio.create_task(beating.watch())
        await asyncio.sleep(0.2)
        before = beating.silent_s
        signal.sigtimedwait([], 1)  # this whole thread waits, its loop too
        await asyncio.sleep(0.1)
        assert before <= beating.silent_s < before + 0.5
        watching.cancel()
        engine.close()

    asyncio.run(check())


def test_an_engine_that_dies_ends_everything_at_once(run):
    async def check(running: Service) -> None:
        assert isinstance(running.engine, SmallEngine)
        url = running.http.base_url
        half = await asyncio.open_connection(url.host, url.port)
        half[1].write(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        replies = all_kinds(running)
        await all_run(running, 5)
        running.engine.dead = True
        for reply in replies:
            assert told((await reply)[1]) == ("engine_dead", True)
        assert await ended(running) < 4  # a beat, and what was to be said
        assert running.app.state.closing.failed
        half[1].close()

    run(check)


def test_a_start_is_given_up_when_the_server_is_stopped(tokenizer: Any):
    async def main() -> None:
        async with service(SmallEngine(tokenizer), starts=asyncio.Event()) as running:
            await asyncio.sleep(0.2)
            stop(running)
            assert await ended(running) < 1

    asyncio.run(asyncio.wait_for(main(), 10))


def test_one_policy_for_a_caller_who_has_left(run):
    async def check(running: Service) -> None:
        with pytest.raises(httpx.ReadTimeout):
            await running.http.post("/generate", json=ASKED["/generate"], timeout=0.3)
        while running.app.state.closing.n_running:
            await asyncio.sleep(0.01)
        stop(running)
        assert await ended(running) < 1

    run(check)
