"""A chat completion on its way to its caller: what each choice says is kept, so that its user may vote on it.

A message of Anthropic's protocol is one of a single choice.
"""

import json
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from idiolect_server.errors import StoreError
from idiolect_server.serving import Serving
from idiolect_server.store.generations import MAX_GENERATION_BYTES
from idiolect_server.users.personalizer import Personalization
from idiolect_server.wire.messages import plain

log = logging.getLogger(__name__)

LAST = "message_stop"
"""The last event of a message; that of a chat completion is `[DONE]`."""


@dataclass
class Completion:
    """Of one user. What is said is the content of the message: calls of tools and thoughts are no reply to vote on."""

    live: Serving
    who: Personalization
    user_id: str
    messages: Sequence[Any]
    began_s: float
    """When it was asked for, in Unix seconds: one that was under way while its user was erased is not kept."""
    profile: str | None = None
    """That the prompt had."""
    id: str = ""
    choices: dict[int, str] = field(default_factory=dict)
    _n_chars: int = 0

    async def whole(self, answer: Mapping[str, Any]) -> None:
        """Keep an answer that is complete."""
        self._hear(answer)
        await self._remember()

    async def streamed(self, lines: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """The lines of a stream as they are. What they said is kept before the last one, so that a vote finds it."""
        async with aclosing(lines):
            async for line in lines:
                data = line.partition("data: ")[2].strip()
                piece = {"type": LAST} if data == "[DONE]" else json.loads(data)
                if piece.get("type") == LAST:
                    await self._remember()
                self._hear(piece)
                yield line

    def _hear(self, piece: Mapping[str, Any]) -> None:
        """Not more than could be kept."""
        self.id = piece.get("id") or piece.get("message", {}).get("id") or self.id
        for index, text in said(piece):
            self._n_chars += len(text)
            if text and self._n_chars <= MAX_GENERATION_BYTES:
                self.choices[index] = self.choices.get(index, "") + text

    async def _remember(self) -> None:
        """A reply is worth more than this, so it may fail. A conversation with parts that a vote cannot keep is not."""
        messages = plain(self.messages)
        if messages is None or not self.choices or self._n_chars > MAX_GENERATION_BYTES:
            return
        texts = [self.choices.get(index, "") for index in range(max(self.choices) + 1)]
        generation = {
            "user_id": self.user_id,
            "messages": messages,
            "profile": self.profile,
            "text": texts[0],
            "choices": texts,
            "bundle": self.who.bundle_id,
        }
        try:
            self.live.store.check_room()
            await self.live.store.generations.remember(self.user_id, self.id, generation, self.began_s)
        except StoreError as error:
            log.warning("completion %s cannot be kept for feedback: %s", self.id, error.message)


def said(piece: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Which choice says what, in an answer or an event of a stream, of either protocol.

    >>> list(said({"choices": [{"index": 1, "delta": {"content": "Hi"}}]}))
    [(1, 'Hi')]
    >>> list(said({"content": [{"type": "text", "text": "Hi"}]}))
    [(0, 'Hi')]
    """
    for choice in piece.get("choices", ()):
        yield choice.get("index", 0), (choice.get("message") or choice["delta"]).get("content") or ""
    for block in (*piece.get("content", ()), piece.get("delta", {})):
        if block.get("type") in ("text", "text_delta"):
            yield 0, block["text"]


def turns(body: Mapping[str, Any]) -> list[Any]:
    """The conversation of a request of Anthropic's protocol: its system prompt is apart, and it says what to cache."""
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return [{**turn, "content": _uncached(turn.get("content"))} for turn in (*system, *body["messages"])]


def _uncached(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in content]
