"""The service around its engine, in seconds: real HTTP, real Redis, the small engine instead of a model."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from idiolect.bundle import Bundle
from idiolect.prompt.layout import Layout
from idiolect.trained_votes import TrainedVotes, digest
from tests.parts.second_bundle import second_bundle
from tests.parts.service import Service, events, service
from tests.parts.small_engine import LONGEST, SmallEngine

KNOWN = {"user_id": "short-list-warm-1", "prompt": "What is a compiler?"}


def leases(running: Service) -> int:
    return sum(served.n_leases for served in running.live.releases._served.values())


async def soon(true: Any) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def test_health_answers_while_the_engine_starts(run):
    starts = asyncio.Event()

    async def check(running: Service) -> None:
        http = running.http
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).json() == {"status": "starting"}
        refused = await http.post("/generate", json=KNOWN)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        starts.set()
        await soon(lambda: running.app.state.serving is not None)
        assert (await http.get("/health/ready")).json()["status"] == "ready"

    run(check, starts=starts)


def test_a_whole_reply_and_its_stream_are_one(run):
    async def check(running: Service) -> None:
        whole = (await running.http.post("/generate", json=KNOWN)).json()
        assert whole["personalization"]["state"] == "stored"
        async with running.http.stream("POST", "/generate", json=KNOWN | {"stream": True}) as response:
            seen = [event async for event in events(response)]
        assert [name for name, _ in seen] == ["start", *["text"] * LONGEST, "done"]
        assert "".join(data["text"] for name, data in seen if name == "text") == whole["text"]
        assert seen[-1][1]["usage"] == whole["usage"]
        await soon(lambda: running.live.admission.n_replies == leases(running) == 0)

    run(check)


def test_a_lease_lasts_until_the_last_byte_and_ends_when_the_caller_leaves(run):
    async def check(running: Service) -> None:
        asked = KNOWN | {"stream": True}
        async with running.http.stream("POST", "/generate", json=asked) as response:
            async for name, _ in events(response):
                if name == "text":
                    assert leases(running) == running.live.admission.n_replies == 1
                    break
        await soon(lambda: leases(running) == running.live.admission.n_replies == 0)
        with pytest.raises(httpx.ReadTimeout):
            await running.http.post("/generate", json=KNOWN, timeout=0.1)
        await soon(lambda: leases(running) == running.live.admission.n_replies == 0)

    run(check, token_s=0.05)


def test_two_candidates_can_be_voted_on(run):
    async def check(running: Service) -> None:
        asked = {"user_id": "new", "prompt": "Why do bees hum?", "candidates": 2}
        first, second = (await running.http.post("/generate", json=asked)).json()["candidates"]
        assert first["text"] != second["text"]
        ids = {"chosen_generation_id": first["generation_id"], "rejected_generation_id": second["generation_id"]}
        vote = (await running.http.post("/feedback", json={"user_id": "new"} | ids)).json()
        assert vote["effect"] == "to_be_scored"

        async def scored() -> bool:
            return bool((await running.http.get("/users/new")).json()["effective_votes"])

        for _ in range(200):
            if await scored():
                break
            await asyncio.sleep(0.05)
        assert await scored()

    run(check)


def test_a_vote_that_trained_its_users_code_is_said_to_have(run, tmp_path: Path, demo_bundle: Bundle):
    """Under the bundle that it has trained; changed afterwards it counts."""
    assert demo_bundle.bank is not None
    user_id, question = "short-list-warm-1", demo_bundle.bank.questions[0]
    votes = TrainedVotes.of([digest(user_id, question.question_id, True)])
    bundle = second_bundle(demo_bundle, tmp_path / "bundle", trained_votes=votes)
    answer = {"question_id": question.question_id, "chosen": question.first, "rejected": question.second}
    changed = answer | {"chosen": question.second, "rejected": question.first}

    async def check(running: Service) -> None:
        async def effect(user_id: str, answer: dict[str, str]) -> tuple[str, str, int, int]:
            vote = (await running.http.post("/feedback", json={"user_id": user_id} | answer)).json()
            user = (await running.http.get(f"/users/{user_id}")).json()
            assert user["state"] == vote["state"]
            assert user["effective_votes"] == vote["effective_votes"]
            return vote["effect"], user["state"], user["trained_votes"], user["effective_votes"]

        assert await effect(user_id, answer) == ("trained", "stored", 1, 0)
        assert await effect(user_id, changed) == ("counted", "inferred", 0, 1)
        assert await effect(user_id, answer) == ("trained", "stored", 1, 0)
        assert await effect("new", answer) == ("counted", "inferred", 0, 1)

    run(check, bundle=bundle.path)


def test_an_engine_that_dies_ends_streams_with_an_error_and_the_service(run):
    async def check(running: Service) -> None:
        assert isinstance(running.engine, SmallEngine)
        async with running.http.stream("POST", "/generate", json=KNOWN | {"stream": True}) as response:
            seen = []
            async for name, data in events(response):
                seen.append((name, data))
                running.engine.dead = True
        assert seen[-1][0] == "error"
        assert seen[-1][1]["error"]["code"] == "engine_dead"
        await soon(lambda: running.app.state.closing.failed)

    run(check, token_s=0.02)


def test_a_stream_of_the_openai_api_ends_with_an_error_of_its_own(run):
    async def check(running: Service) -> None:
        assert isinstance(running.engine, SmallEngine)
        asked = {"messages": [{"role": "user", "content": "What is a compiler?"}], "stream": True}
        async with running.http.stream("POST", "/v1/chat/completions", json=asked) as response:
            seen = []
            async for _, data in events(response):
                seen.append(data)
                running.engine.dead = True
        error = seen[-1]["error"]
        assert error.keys() == {"message", "type", "param", "code", "hint", "retryable"}
        assert (error["type"], error["code"], error["retryable"]) == ("server_error", "engine_dead", True)

    run(check, token_s=0.02)


def test_the_engine_is_started_on_what_the_settings_say(run, demo_bundle):
    async def check(running: Service) -> None:
        assert running.config is not None
        assert running.config.adapter is not None
        assert running.config.adapter.bundle_id == demo_bundle.bundle_id
        assert running.config.adapter in running.engine.adapters

    run(check)


def test_a_bundle_for_another_chat_template_is_not_served(
    tmp_path: Path, tokenizer: Any, demo_bundle: Bundle, caplog: pytest.LogCaptureFixture
):
    layout = Layout(placement="after_system", opening="[INST]", folds_system=False, end_id=2)
    bundle = second_bundle(demo_bundle, tmp_path / "bundle", layout)

    async def start() -> bool:
        async with service(SmallEngine(tokenizer), bundle.path) as running:
            return bool(running.app.state.closing.failed)

    assert asyncio.run(start())
    assert "no safe place in this chat template: the prompt has no '[INST]'" in caplog.text
