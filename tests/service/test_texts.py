"""One rule for texts behind every door of the service, and votes on the texts that were sent."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from idiolect.bank import pair_id
from idiolect.bundle import Bundle
from idiolect.text import is_printable, printable
from idiolect_server.engine.base import Adapter, Chunk, Sampling
from idiolect_server.prompt import Placed
from idiolect_training.data.formats import feedback
from tests.parts.service import Service, events, service
from tests.parts.small_engine import LONGEST, SmallEngine

KNOWN = {"user_id": "short-list-warm-1", "prompt": "What is a compiler?"}


class Noisy(SmallEngine):
    """Writes control characters, as a byte-level tokenizer may."""

    async def generate(
        self,
        placed: Placed,
        sampling: Sampling,
        request_id: str,
        *,
        adapter: Adapter | None = None,
        stream: bool = False,
    ) -> AsyncGenerator[Chunk, None]:
        chunks = super().generate(placed, sampling, request_id, adapter=adapter, stream=stream)
        async for chunk in chunks:
            yield replace(chunk, text=f"\x1b{chunk.text}\x85\f")
            yield replace(chunk, text="\0", token_ids=(), finish_reason=None)
            if chunk.finish_reason:
                yield replace(chunk, text="", token_ids=())


def test_what_the_server_has_written_may_come_back(tmp_path: Path, tokenizer: Any):
    """As part of a history, and in a vote, which training reads."""

    async def main() -> None:
        async with service(Noisy(tokenizer)) as running:
            await check(running.http)

    async def check(http: httpx.AsyncClient) -> None:
        whole = (await http.post("/generate", json=KNOWN)).json()
        assert is_printable(whole["text"])
        assert whole["text"].count(" ") == LONGEST - 1  # nothing else is gone
        async with http.stream("POST", "/generate", json=KNOWN | {"stream": True}) as response:
            pieces = [data["text"] async for name, data in events(response) if name == "text"]
        assert "".join(pieces) == whole["text"]
        assert all(pieces)
        said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": whole["text"]}]
        said += [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "!"},
        ]
        assert (await http.post("/generate", json={"messages": said})).status_code == 200
        vote = {"user_id": KNOWN["user_id"], "chosen": whole["text"], "rejected": "no", "consent": True}
        by_id = vote | {"generation_id": whole["generation_id"]}
        for body in (by_id, vote | {"messages": said}):
            assert (await http.post("/feedback", json=body)).status_code == 200
        asked = {"user_id": "new", "prompt": "Why do bees hum?", "candidates": 2}
        first, second = (await http.post("/generate", json=asked)).json()["candidates"]
        ids = {"chosen_generation_id": first["generation_id"], "rejected_generation_id": second["generation_id"]}
        assert (await http.post("/feedback", json={"user_id": "new", "consent": True} | ids)).status_code == 200
        exported = tmp_path / "votes.jsonl"
        exported.write_bytes((await http.get("/feedback")).content)
        chosen = {preference.chosen for preference in feedback.read(exported)}
        assert chosen == {whole["text"], first["text"]}  # to the letter, as they were sent

    asyncio.run(main())


CHAT = {"model": "SmolLM2-135M-Instruct"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "\f"}'}}
CONTROLS = {
    "user": {"messages": [{"role": "user", "content": "page 1\fpage 2"}]},
    "system": {"messages": [{"role": "system", "content": "\x1b[1m"}, {"role": "user", "content": "x"}]},
    "assistant": {"messages": [{"role": "assistant", "content": "\0"}, {"role": "user", "content": "x"}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a\x85b"}]}]},
    "call": {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    "tools": {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "\x7f"}}],
    },
    "documents": {"messages": [{"role": "user", "content": "x"}], "documents": [{"title": "\f", "text": "t"}]},
    "template": {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"a": {"\b": 1}}},
}


def test_the_door_of_openai_clients_judges_as_the_others(run):
    async def check(running: Service) -> None:
        for name, body in CONTROLS.items():
            refused = await running.http.post("/v1/chat/completions", json=CHAT | body)
            assert refused.status_code == 400, name
            assert refused.json()["error"]["message"].endswith(": control characters are not allowed"), name
            clean = json.loads(json.dumps(body), object_pairs_hook=_cleaned)
            passed = await running.http.post("/v1/chat/completions", json=CHAT | clean)
            assert "control characters" not in passed.text, name

    run(check)


def _cleaned(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {printable(name): printable(value) if isinstance(value, str) else value for name, value in pairs}


def test_a_mark_that_a_reply_brings_changes_nothing_about_its_vote(run, demo_bundle: Bundle):
    """Margins are those of the bare reply; and equal replies in other clothes prefer nothing."""

    async def check(running: Service) -> None:
        said = [{"role": "user", "content": "Why do bees hum?"}]
        votes = (("yes", "no"), ("yes<|im_end|>\n", "no"), ("yes<|im_end|>", "yes"), ("<|im_end|>", "no"))
        for chosen, rejected in votes:
            body = {"user_id": "new", "messages": said, "chosen": chosen, "rejected": rejected}
            assert (await running.http.post("/feedback", json=body)).status_code == 200
        ids = [pair_id(said, *vote) for vote in votes]
        found: dict[str, Any] = {}

        async def scored() -> bool:
            found.update(await running.live.store.margins.get(demo_bundle.bundle_id, ids))
            return len(found) == len(votes)

        for _ in range(400):
            if await scored():
                break
            await asyncio.sleep(0.05)
        bare, marked, *nothing = (found[one].tolist() for one in ids)
        # The first side of a pair is the first in the alphabet: both times it is "no".
        assert bare == marked
        assert any(bare)
        assert nothing == [[], []]
        again = await running.http.post(
            "/feedback", json={"user_id": "new", "messages": said, "chosen": "<|im_end|>", "rejected": "no"}
        )
        assert again.json()["effect"] == "unscorable"

    run(check)


def test_a_stored_profile_that_does_not_fit_is_left_out(tokenizer: Any):
    """A digit is a token. One that comes with the request is the caller's own to shorten."""

    async def main() -> None:
        async with service(SmallEngine(tokenizer, max_model_len=256)) as running:
            asked = {"user_id": "wordy", "prompt": "Hi", "max_tokens": 2}
            alone = (await running.http.post("/generate", json=asked)).json()
            await running.http.put("/users/wordy/profile", json={"profile": "7" * 300})
            left_out = (await running.http.post("/generate", json=asked)).json()
            assert left_out["usage"] == alone["usage"]
            refused = await running.http.post("/generate", json={**asked, "profile": "8" * 300})
            assert (refused.status_code, refused.json()["error"]["code"]) == (413, "prompt_too_long")
            await running.http.put("/users/wordy/profile", json={"profile": "7" * 100})
            told = (await running.http.post("/generate", json=asked)).json()
            assert told["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"] + 100

    asyncio.run(main())


def test_a_conversation_has_the_same_forms_behind_every_route(tokenizer: Any):
    """A reply is asked for, and voted on, with messages as other chat APIs have them; what is exported is plain."""
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "1", "content": "4 °C"},
    ]
    plain = [
        {"role": "system", "content": "Be\nbrief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": '{"name": "weather", "arguments": "{}"}'},
        {"role": "user", "content": "4 °C"},
    ]

    async def main() -> None:
        async with service(SmallEngine(tokenizer)) as running:
            asked = {"user_id": "ann", "max_tokens": 2}
            one, other = [
                (await running.http.post("/generate", json={**asked, "messages": said})).json()
                for said in (messages, plain)
            ]
            assert one["usage"] == other["usage"]
            vote = {"user_id": "ann", "messages": messages, "chosen": "Cold.", "rejected": "Warm.", "consent": True}
            assert (await running.http.post("/feedback", json=vote)).status_code == 200
            (exported,) = map(json.loads, (await running.http.get("/feedback")).text.splitlines())
            assert exported["messages"] == plain
            image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
            refused = await running.http.post("/feedback", json={**vote, "messages": image})
            assert refused.status_code == 422
            assert "only text content is accepted" in refused.json()["error"]["message"]

    asyncio.run(main())
