"""A chat completion on its way to its caller: what each choice says is kept, so that its user may vote on it."""

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from idiolect_server.errors import StoreError
from idiolect_server.serving import Serving
from idiolect_server.store.generations import MAX_GENERATION_BYTES
from idiolect_server.users.personalizer import Personalization
from idiolect_server.wire.messages import plain

log = logging.getLogger(__name__)


@dataclass
class Completion:
    """Of one user. What is said is the content of the message: calls of tools and thoughts are no reply to vote on."""

    live: Serving
    who: Personalization
    user_id: str
    body: Mapping[str, Any]
    began_s: float
    """When it was asked for, in Unix seconds: one that was under way while its user was erased is not kept."""
    profile: str | None = None
    """That the prompt had."""
    id: str = ""
    choices: dict[int, str] = field(default_factory=dict)
    _n_chars: int = 0

    async def whole(self, answer: Mapping[str, Any]) -> None:
        """Keep an answer that is complete."""
        self.id = str(answer.get("id"))
        for choice in answer.get("choices", ()):
            self._said(choice["index"], choice["message"].get("content"))
        await self._remember()

    async def streamed(self, lines: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """The lines of a stream as they are. What they said is kept before the last one, so that a vote finds it."""
        async with aclosing(lines):
            async for line in lines:
                data = line.removeprefix("data: ").strip()
                if data == "[DONE]":
                    await self._remember()
                else:
                    chunk = json.loads(data)
                    self.id = chunk.get("id") or self.id
                    for choice in chunk.get("choices", ()):
                        self._said(choice.get("index", 0), choice["delta"].get("content"))
                yield line

    def _said(self, index: int, text: str | None) -> None:
        """Not more than could be kept."""
        self._n_chars += len(text or "")
        if text and self._n_chars <= MAX_GENERATION_BYTES:
            self.choices[index] = self.choices.get(index, "") + text

    async def _remember(self) -> None:
        """A reply is worth more than this, so it may fail. A conversation with parts that a vote cannot keep is not."""
        messages = plain(self.body["messages"])
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
