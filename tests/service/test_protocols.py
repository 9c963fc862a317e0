"""The routes of all protocols around the small engine: names of models, tokens, version, health."""

import asyncio
import json
from typing import Any

import pytest

from tests.parts.service import Service

SAID = [{"role": "user", "content": "What is a compiler?"}]
USER = "short-list-warm-1"
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID, "user": USER},
    "/v1/completions": {"prompt": "A compiler", "user": USER},
    "/v1/responses": {"input": "What is a compiler?", "user": USER},
    "/v1/messages": {"messages": SAID, "max_tokens": 8, "metadata": {"user_id": USER}},
}


def test_every_protocol_is_personalized(run):
    async def check(running: Service) -> None:
        for path, body in ASKED.items():
            answer = await running.http.post(path, json=body)
            assert (answer.status_code, answer.headers["x-idiolect-personalization"]) == (200, "stored"), path
            other = await running.http.post(path, json={**body, "user": None, "metadata": {}})
            assert other.headers["x-idiolect-personalization"] == "generic"
            assert other.json() != answer.json()
        assert running.live.admission.n_replies == 0

    run(check)


def test_streams_of_all_protocols_are_not_held_back_by_a_proxy(run):
    async def check(running: Service) -> None:
        for path, body in ASKED.items():
            answer = await running.http.post(path, json={**body, "stream": True})
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")

    run(check)


@pytest.mark.parametrize("path", ASKED)
def test_an_engine_that_dies_is_told_in_the_words_of_the_protocol(run, path: str):
    async def check(running: Service) -> None:
        running.engine.dead = True  # type: ignore[attr-defined]
        answer = await running.http.post(path, json={**ASKED[path], "stream": True})
        said = answer.text if answer.status_code == 200 else answer.json()["error"]["code"]
        assert "engine_dead" in said
        assert answer.status_code == 503 or ("event: error" in said) == (path in ("/v1/responses", "/v1/messages"))

    run(check)


def test_a_release_answers_by_three_names(run):
    async def check(running: Service) -> None:
        cards = (await running.http.get("/v1/models")).json()["data"]
        name = cards[0]["id"]
        assert [card["id"] for card in cards] == [name, f"{name}:generic", f"{name}:base"]
        for card in cards:
            assert (await running.http.get(f"/v1/models/{card['id']}")).json() == card
        said = {}
        for model in (None, name, f"{name}:generic", f"{name}:base"):
            answer = await running.http.post(
                "/v1/chat/completions", json={"messages": SAID, "user": USER, "model": model}
            )
            said[model] = (
                answer.headers["x-idiolect-personalization"],
                answer.json()["choices"][0]["message"]["content"],
            )
        assert said[None] == said[name]
        assert [state for state, _ in said.values()] == ["stored", "stored", "generic", "generic"]
        assert len({text for _, text in said.values()}) == 3
        stranger = await running.http.post("/v1/chat/completions", json={"messages": SAID, "user": "nobody"})
        assert stranger.json()["choices"][0]["message"]["content"] == said[f"{name}:generic"][1]
        for model in ("gpt-4o", f"{name}:other", 7):
            refused = await running.http.post("/v1/chat/completions", json={"messages": SAID, "model": model})
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert (await running.http.get("/v1/models/gpt-4o")).status_code == 404

    run(check)


def test_control_characters_are_refused_in_every_protocol(run):
    async def check(running: Service) -> None:
        odd = [
            ("/v1/completions", {"prompt": "a\x1b[1m"}),
            ("/v1/responses", {"input": "a\x1b[1m"}),
            ("/v1/responses", {"input": "a", "instructions": "\0"}),
            ("/v1/messages", {"messages": SAID, "max_tokens": 1, "system": "\0"}),
            ("/v1/chat/completions", {"messages": SAID, "tools": [{"function": {"name": "f", "description": "\0"}}]}),
        ]
        for path, body in odd:
            answer = await running.http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), path

    run(check)


def test_tokens_and_texts(run, tokenizer: Any):
    async def check(running: Service) -> None:
        text = "Grüße, <|im_end|> and 🙂"
        found = (await running.http.post("/tokenize", json={"prompt": text})).json()
        assert found == {
            "tokens": tokenizer(text)["input_ids"],
            "count": found["count"],
            "max_model_len": 2048,
            "token_strs": None,
        }
        assert (await running.http.post("/detokenize", json={"tokens": found["tokens"]})).json() == {"prompt": text}
        named = (await running.http.post("/tokenize", json={"prompt": text, "return_token_strs": True})).json()
        assert named["token_strs"] == tokenizer.convert_ids_to_tokens(found["tokens"])
        placed = await running.live.engine.conversations.place(SAID, running.live.releases.active.layout)
        found = (await running.http.post("/tokenize", json={"messages": SAID})).json()
        assert found["tokens"] == placed.token_ids
        long = "x " * 400_000
        assert (await running.http.post("/tokenize", json={"prompt": long})).status_code == 413
        assert (await running.http.post("/detokenize", json={"tokens": [1] * 4000})).status_code == 413
        for body in ({"tokens": [1 << 40]}, {"tokens": [-1]}, {"tokens": "x"}, {}):
            assert (await running.http.post("/detokenize", json=body)).status_code == 422
        for body in ({}, {"prompt": "x", "messages": SAID}, {"prompt": "x", "other": 1}):
            assert (await running.http.post("/tokenize", json=body)).status_code == 422

    run(check)


def test_version_and_health_as_other_servers_have_them(run):
    async def check(running: Service) -> None:
        version = (await running.http.get("/version")).json()
        assert version["version"] == running.app.version
        assert version["vllm"].startswith("0.")
        assert (await running.http.get("/health")).status_code == 200
        running.app.state.serving = None
        assert (await running.http.get("/health")).status_code == 503

    run(check)


def test_a_chat_completion_is_voted_on_by_its_id(run):
    """Whole and streamed; each choice by its index, and only by its user. The small engine has one choice."""
    said = {"messages": [{"role": "developer", "content": "Be brief."}, *SAID], "user": "ann"}

    async def check(running: Service) -> None:
        post = running.http.post
        whole = (await post("/v1/chat/completions", json=said)).json()
        streamed = (await post("/v1/chat/completions", json={**said, "stream": True})).text
        chunk = json.loads(streamed.split("\n\n")[0].removeprefix("data: "))
        reply = whole["choices"][0]["message"]["content"]
        for completion_id in (whole["id"], chunk["id"]):
            vote = {"user_id": "ann", "generation_id": completion_id, "consent": True}
            thumb = await post("/feedback", json={**vote, "thumb": "up"})
            assert thumb.status_code == 200, thumb.text
            edit = await post("/feedback", json={**vote, "edit": "Shorter.", "reply_index": 0})
            assert edit.status_code == 200, edit.text
            assert (await post("/feedback", json={**vote, "chosen": "Yes.", "rejected": reply})).status_code == 200
            for odd in ({"chosen_index": 0, "rejected_index": 1}, {"thumb": "up", "reply_index": 1}):
                refused = await post("/feedback", json={**vote, **odd})
                assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")
                assert "no choice 1" in refused.json()["error"]["message"]
            other = await post("/feedback", json={**vote, "user_id": "bob", "thumb": "up"})
            assert (other.status_code, other.json()["error"]["code"]) == (404, "unknown_generation")
        stored = list(map(json.loads, (await running.http.get("/feedback")).text.splitlines()))
        assert {vote["kind"] for vote in stored if "kind" in vote} == {"thumb", "edit"}
        assert {json.dumps(vote["messages"]) for vote in stored} == {
            json.dumps([{"role": "system", "content": "Be brief."}, *SAID])
        }

    run(check)


def test_what_cannot_be_voted_on_is_not_kept(run):
    """Nobody's completions, and those that say nothing."""

    async def check(running: Service) -> None:
        whole = (await running.http.post("/v1/chat/completions", json={"messages": SAID})).json()
        vote = {"user_id": "ann", "generation_id": whole["id"], "thumb": "up"}
        assert (await running.http.post("/feedback", json=vote)).status_code == 404

    run(check)


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_under_way_while_its_user_is_erased_is_not_kept(run, stream: bool):
    async def check(running: Service) -> None:
        body = {"messages": SAID, "user": "ann", "stream": stream}
        asked = asyncio.create_task(running.http.post("/v1/chat/completions", json=body))
        while not running.live.admission.n_replies:
            await asyncio.sleep(0.005)
        assert (await running.http.delete("/users/ann")).status_code == 200
        assert not asked.done()
        said = (await asked).text.split("\n\n")[0].removeprefix("data: ")
        vote = {"user_id": "ann", "generation_id": json.loads(said)["id"], "thumb": "up"}
        assert (await running.http.post("/feedback", json=vote)).status_code == 404

    run(check, token_s=0.1)
