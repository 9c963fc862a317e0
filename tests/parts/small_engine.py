"""A deterministic engine without a model, for fast tests only: each token depends on all that a model's would."""

import asyncio
import hashlib
import json
import math
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import numpy as np

from idiolect.prompt.layout import Layout
from idiolect_server.admission import Capacity
from idiolect_server.engine import chat_request
from idiolect_server.engine.base import Adapter, ChatApi, Chunk, Sampling
from idiolect_server.engine.conversation import Conversations
from idiolect_server.engine.protocol import completion_request, message_request, response_request
from idiolect_server.errors import EngineDead, GenerationFailed, PromptTooLong
from idiolect_server.prompt import Placed, UserTokens

WORDS = ("tide", "pool", "star", "moss", "fern", "kelp", "crab", "wave", "rock", "sand", "gull", "reef", "salt")
LONGEST = 24
"""Tokens of a reply that nothing cuts."""
Answer = Callable[[str, str | None, int], dict[str, Any]]
"""Of a text, why it ended, and a number of tokens."""


class SmallEngine:
    """Words drawn by a hash of prompt, place and rows of the user tokens, adapter, and seed."""

    def __init__(
        self, tokenizer: Any, *, max_model_len: int = 2048, token_s: float = 0.0, hidden_size: int = 576
    ) -> None:
        self.tokenizer = tokenizer
        self.conversations = Conversations(tokenizer, max_model_len)
        self.max_model_len, self.vocab_size, self.hidden_size = max_model_len, len(tokenizer), hidden_size
        self.capacity = Capacity(n_replies=64, n_tokens=1 << 16)
        self.token_s = token_s
        """How long a token takes."""
        self.dead = False
        self.goes_on = asyncio.Event()
        """Cleared: it hangs, and nothing tells."""
        self.goes_on.set()
        self.adapters: set[Adapter] = set()

    async def generate(
        self,
        placed: Placed,
        sampling: Sampling,
        request_id: str,
        *,
        adapter: Adapter | None = None,
        stream: bool = False,
    ) -> AsyncGenerator[Chunk, None]:
        room = self.max_model_len - placed.n_tokens
        if room < 1:
            raise PromptTooLong(f"the prompt has {placed.n_tokens} tokens")
        state = self._state(placed, adapter) + (repr(sampling.seed).encode() if sampling.temperature else b"")
        n_tokens = min(sampling.max_tokens, room, LONGEST)
        finish_reason = "stop" if n_tokens == LONGEST else "length"
        text, ids, given = "", list[int](), 0
        for number in range(n_tokens):
            await asyncio.sleep(self.token_s)
            await self.goes_on.wait()
            if self.dead:
                raise EngineDead("the engine has stopped")
            state = hashlib.sha256(state).digest()
            ids.append(state[0] % len(WORDS))
            text += ("" if number == 0 else " ") + WORDS[ids[-1]]
            ends = [place for stop in sampling.stop if (place := text.find(stop)) >= 0]
            last = bool(ends) or number == n_tokens - 1
            if ends:
                text, finish_reason = text[: min(ends)], "stop"
            if stream or last:
                piece = text[given:]
                yield Chunk(piece, ids, finish_reason if last else None, placed.n_tokens, 0)
                given, ids = given + len(piece), []
            if last:
                return

    async def score_reply(
        self, placed: Placed, reply: str, layout: Layout, adapter: Adapter | None = None
    ) -> list[float]:
        ids = await self.conversations.scored(reply, layout)
        if placed.n_tokens + len(ids) >= self.max_model_len:
            raise PromptTooLong("prompt and reply are too long")
        state, logps = self._state(placed, adapter), []
        for token in ids:
            state = hashlib.sha256(state + str(token).encode()).digest()
            logps.append(-(state[0] + 1) / 32)
        unsound = placed.user_tokens is not None and not np.isfinite(placed.user_tokens.rows).all()
        return [math.nan] * len(ids) if unsound else logps

    async def load_adapter(self, adapter: Adapter) -> None:
        self.adapters.add(adapter)

    async def unload_adapter(self, adapter: Adapter) -> None:
        self.adapters.remove(adapter)

    def chat_api(self, layout: Layout, model_name: str, adapter: Adapter | None) -> ChatApi:
        return _Chat(self, layout, model_name, adapter)

    async def beat(self) -> None:
        await self.goes_on.wait()
        if self.dead:
            raise EngineDead("the engine has stopped")

    @property
    def alive(self) -> bool:
        return not self.dead

    def close(self) -> None:
        self.conversations.close()

    def _state(self, placed: Placed, adapter: Adapter | None) -> bytes:
        if self.dead:
            raise EngineDead("the engine has stopped")
        if adapter is not None and adapter not in self.adapters:
            raise GenerationFailed("this adapter is not loaded")
        user = b"" if placed.user_tokens is None else placed.user_tokens.digest.encode() + str(placed.offset).encode()
        seen = (repr(list(placed.token_ids)).encode(), user, b"" if adapter is None else adapter.bundle_id.encode())
        return hashlib.sha256(b"|".join(seen)).digest()


class _Chat:
    """As much of the OpenAI protocol as has to do with time. The protocol itself is vLLM's, and is tested on vLLM."""

    def __init__(self, engine: SmallEngine, layout: Layout, name: str, adapter: Adapter | None) -> None:
        self._engine, self._layout, self._name, self._adapter = engine, layout, name, adapter

    async def chat(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Any:
        asked = chat_request.read(body)
        messages = [{"role": message.role, "content": "\n".join(message.texts)} for message in asked.messages]
        placed = await self._engine.conversations.place(messages, self._layout, user_tokens)
        return await self._said(placed, body, _chat)

    async def complete(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Any:
        return await self._about(completion_request.read(body).texts, body, user_tokens, _completion)

    async def respond(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Any:
        return await self._about(response_request.read(body).texts, body, user_tokens, _response)

    async def message(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Any:
        return await self._about(message_request.read(body).texts, body, user_tokens, _message)

    async def count(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Any:
        placed = await self._placed(message_request.read_count(body).texts, user_tokens)
        return 200, {"input_tokens": placed.n_tokens}

    async def _placed(self, texts: list[str], user_tokens: UserTokens | None) -> Placed:
        said = [{"role": "user", "content": "\n".join(texts)}]
        return await self._engine.conversations.place(said, self._layout, user_tokens)

    async def _about(
        self, texts: list[str], body: dict[str, Any], user_tokens: UserTokens | None, answer: Answer
    ) -> Any:
        return await self._said(await self._placed(texts, user_tokens), body, answer)

    async def _said(self, placed: Placed, body: dict[str, Any], answer: Answer) -> Any:
        streams = bool(body.get("stream"))
        chunks = self._engine.generate(placed, Sampling(), "chat", adapter=self._adapter, stream=streams)
        if streams:
            return 200, _lines(chunks)
        (whole,) = [chunk async for chunk in chunks]
        return 200, answer(whole.text, whole.finish_reason, placed.n_tokens)

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self._name, "object": "model", "root": self._name}]}


async def _lines(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[str, None]:
    completion_id = f"chatcmpl-{uuid.uuid4().hex}"
    async with aclosing(chunks):
        async for chunk in chunks:
            said = {"id": completion_id, "choices": [{"index": 0, "delta": {"content": chunk.text}}]}
            yield f"data: {json.dumps(said)}\n\n"
    yield "data: [DONE]\n\n"


def _chat(text: str, finish_reason: str | None, n_tokens: int) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return _completed("chatcmpl", "chat.completion", choice, n_tokens)


def _completion(text: str, finish_reason: str | None, n_tokens: int) -> dict[str, Any]:
    return _completed("cmpl", "text_completion", {"index": 0, "text": text, "finish_reason": finish_reason}, n_tokens)


def _response(text: str, finish_reason: str | None, n_tokens: int) -> dict[str, Any]:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    counts = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), n_tokens)
    made = {"id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": 0, "model": "small"}
    return {**made, "status": "completed", "output": [said], "usage": counts}


def _message(text: str, finish_reason: str | None, n_tokens: int) -> dict[str, Any]:
    made = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": "small"}
    usage = {"input_tokens": n_tokens, "output_tokens": n_tokens}
    reason = "end_turn" if finish_reason == "stop" else "max_tokens"
    return {**made, "content": [{"type": "text", "text": text}], "stop_reason": reason, "usage": usage}


def _completed(prefix: str, kind: str, choice: dict[str, Any], n_tokens: int) -> dict[str, Any]:
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), n_tokens)
    made = {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": 0, "model": "small"}
    return {**made, "choices": [choice], "usage": counts}
