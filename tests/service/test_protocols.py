"""The routes of all protocols around the small engine: names of models, tokens, version, health."""

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
        assert found == {"tokens": tokenizer(text)["input_ids"], "count": found["count"], "max_model_len": 2048}
        assert (await running.http.post("/detokenize", json={"tokens": found["tokens"]})).json() == {"prompt": text}
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
