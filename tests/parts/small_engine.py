"""A deterministic engine without a model, for fast tests only: each token depends on all that a model's would."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from typing import Any

from idiolect.prompt.chat import scored_ids
from idiolect.prompt.layout import Layout
from idiolect_server.admission import Capacity
from idiolect_server.engine.base import Adapter, ChatApi, Chunk, Sampling
from idiolect_server.engine.conversation import Conversations
from idiolect_server.errors import EngineDead, GenerationFailed, PromptTooLong, RequestError
from idiolect_server.prompt import Placed, UserTokens

WORDS = ("tide", "pool", "star", "moss", "fern", "kelp", "crab", "wave", "rock", "sand", "gull", "reef", "salt")
LONGEST = 24
"""Tokens of a reply that nothing cuts."""


class SmallEngine:
    """Words drawn by a hash of prompt, place and rows of the user tokens, adapter, and seed."""

    def __init__(self, tokenizer: Any, *, max_model_len: int = 2048, token_s: float = 0.0) -> None:
        self.tokenizer = tokenizer
        self.conversations = Conversations(tokenizer)
        self.max_model_len, self.vocab_size = max_model_len, len(tokenizer)
        self.capacity = Capacity(n_replies=64, n_tokens=1 << 16)
        self.token_s = token_s
        """How long a token takes."""
        self.dead = False
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
        ids = scored_ids(reply, layout, self.tokenizer)
        if placed.n_tokens + len(ids) >= self.max_model_len:
            raise PromptTooLong("prompt and reply are too long")
        state, logps = self._state(placed, adapter), []
        for token in ids:
            state = hashlib.sha256(state + str(token).encode()).digest()
            logps.append(-(state[0] + 1) / 32)
        return logps

    async def load_adapter(self, adapter: Adapter) -> None:
        self.adapters.add(adapter)

    async def unload_adapter(self, adapter: Adapter) -> None:
        self.adapters.remove(adapter)

    def chat_api(self, layout: Layout, model_name: str, adapter: Adapter | None) -> ChatApi:
        return _NoChat()

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


class _NoChat:
    """The OpenAI protocol is vLLM's own layer, and is tested on vLLM."""

    async def chat(self, body: dict[str, Any], user_tokens: UserTokens, profile: str | None = None) -> Any:
        raise RequestError("this engine has no OpenAI layer")

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": []}
