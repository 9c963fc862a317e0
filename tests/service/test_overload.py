"""More work than the engine can do, a reply that takes too long, a store without room: refused by name, and counted."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from idiolect_server.admission import Capacity
from idiolect_server.errors import SettingsError, StoreRefused, StoreUnavailable
from idiolect_server.serving import check_access
from idiolect_server.store import connection, embedded
from idiolect_server.store.embedded import EmbeddedRedis
from idiolect_server.store.store import Store
from tests.live import Redis
from tests.parts.service import Service, service
from tests.parts.small_engine import SmallEngine

ASKED = {"user_id": "short-list-warm-1", "prompt": "What is a compiler?", "max_tokens": 20}


@pytest.fixture
def run(model_path: Path) -> Any:
    def go(check: Any, token_s: float, n_replies: int = 2, **settings: Any) -> None:
        async def main() -> None:
            engine = SmallEngine(AutoTokenizer.from_pretrained(model_path), token_s=token_s)
            engine.capacity = Capacity(n_replies, 4096)
            async with service(engine, **settings) as running:
                await check(running)

        asyncio.run(main())

    return go


def said(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def counted(running: Service, code: str) -> float:
    lines, name = (await running.http.get("/metrics")).text.splitlines(), f'idiolect_errors_total{{code="{code}"}}'
    return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0)


def test_excess_is_refused_at_once_and_served_again_afterwards(run):
    async def check(running: Service) -> None:
        before = await counted(running, "overloaded")
        working = [asyncio.create_task(running.http.post("/generate", json=ASKED)) for _ in range(4)]
        while running.live.admission.n_replies < 4:
            await asyncio.sleep(0.01)
        for body in (ASKED, ASKED | {"stream": True}, ASKED | {"candidates": 2}):
            began = time.perf_counter()
            refused = await running.http.post("/generate", json=body)
            assert time.perf_counter() - began < 0.05
            assert said(refused) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["retryable"]
        chat = {"messages": [{"role": "user", "content": "x"}]}
        assert said(await running.http.post("/v1/chat/completions", json=chat)) == (429, "overloaded")
        assert await counted(running, "overloaded") == before + 4
        assert (await running.http.get("/health/ready")).status_code == 200
        assert {answer.status_code for answer in await asyncio.gather(*working)} == {200}
        assert running.live.admission.n_replies == 0
        assert (await running.http.post("/generate", json=ASKED)).status_code == 200

    run(check, token_s=0.05, max_waiting_tokens=150)


def test_a_reply_that_takes_too_long_is_given_up(run):
    async def check(running: Service) -> None:
        answer = await running.http.post("/generate", json=ASKED)
        assert said(answer) == (504, "deadline_exceeded")
        assert answer.headers["retry-after"]
        streamed = (await running.http.post("/generate", json=ASKED | {"stream": True})).text
        assert streamed.count("event: text") >= 2
        assert "event: error" in streamed
        assert "deadline_exceeded" in streamed
        while running.live.admission.n_replies:  # a stream gives back after its last byte
            await asyncio.sleep(0.01)
        short = await running.http.post("/generate", json=ASKED | {"max_tokens": 2})
        assert short.status_code == 200

    run(check, token_s=0.1, deadline_s=0.5)


def test_votes_are_refused_below_a_mark_of_free_space(run, monkeypatch: pytest.MonkeyPatch):
    async def check(running: Service) -> None:
        vote = {"user_id": "ann", "prompt": "p", "chosen": "a", "rejected": "b"}
        first = (await running.http.post("/feedback", json=vote)).json()
        monkeypatch.setattr(embedded, "MIN_FREE_BYTES", 1 << 60)
        assert said(await running.http.post("/feedback", json=vote)) == (507, "store_full")
        assert said(await running.http.put("/users/ann/profile", json={"profile": "x"})) == (507, "store_full")
        reply = (await running.http.post("/generate", json=ASKED | {"user_id": "ann"})).json()
        assert reply["personalization"] == {**reply["personalization"], "state": "generic", "votes": 1}
        assert (await running.http.delete(f"/users/ann/votes/{first['vote_id']}")).status_code == 200
        assert (await running.http.delete("/users/ann")).status_code == 200
        monkeypatch.undo()
        assert (await running.http.post("/feedback", json=vote)).json()["votes"] == 1

    run(check, token_s=0)


def test_a_redis_that_ends_again_and_again_is_started_after_longer_and_longer_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def check() -> None:
        running = EmbeddedRedis(tmp_path)
        await running.start()
        pids, ended = {running.pid}, time.monotonic() + 4
        while time.monotonic() < ended:
            assert running.pid is not None
            if running._process is not None and running._process.poll() is None:
                os.kill(running.pid, signal.SIGKILL)
            pids.add(running.pid)
            await asyncio.sleep(0.01)
        await running.stop()
        assert 3 <= len(pids) <= 6  # 0.4, 0.6, 1.0 and 1.8 s after each other, not every 0.2 s

    asyncio.run(check())


def test_a_redis_that_refuses_the_server_stops_the_start(
    in_memory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """A wrong password, a user who is unknown, one who may not do enough. None of it is in the log."""
    monkeypatch.setattr(connection, "_said_s", {})
    redis = Redis(in_memory, ["--requirepass", "secret", *["--user", "reader", "on", ">weak", "~*", "+get", "+eval"]])
    redis.start()

    async def check(name: str) -> None:
        store = Store(redis.url.replace("://", f"://{name}@"))
        try:
            await check_access(store)
        finally:
            await store.close()

    try:
        asyncio.run(check(":secret"))
        for refused in (":wrong", "nobody:secret", "reader:weak"):
            with pytest.raises(SettingsError, match="does not accept this server"):
                asyncio.run(check(refused))
    finally:
        redis.stop()
    assert "does not accept this server" in caplog.text
    assert "weak" not in caplog.text


def test_an_error_that_redis_answers_is_not_silence(in_memory: Path):
    redis = Redis(in_memory)
    redis.start()

    async def check() -> None:
        store = Store(redis.url)
        await store._redis.rpush("list", 1)
        with pytest.raises(StoreRefused) as refused:
            async with connection.mapped():
                await store._redis.get("list")
        assert not refused.value.retryable
        await store._redis.execute_command("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(StoreUnavailable):  # another node takes over, say
            await store.put_profile("ann", "Brief.")
        await store.close()

    try:
        asyncio.run(check())
    finally:
        redis.stop()
