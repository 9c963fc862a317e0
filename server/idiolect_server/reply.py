"""One reply being made, for whichever route asked: whole, or piece by piece, and kept for feedback in the end."""

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from idiolect.text import printable
from idiolect_server.engine.base import Chunk, Sampling
from idiolect_server.errors import StoreError
from idiolect_server.prompt import Placed
from idiolect_server.releases.release import Release
from idiolect_server.serving import Serving
from idiolect_server.users.personalizer import Personalization

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Who asked what. `chat` and `profile` are kept with the reply, for a user who may vote on it."""

    user_id: str | None
    chat: Sequence[dict[str, str]]
    profile: str | None


@dataclass
class Reply:
    """A reply of one release for one user; `text` grows while `pieces` is read."""

    live: Serving
    release: Release
    asked: Asked
    who: Personalization
    placed: Placed
    sampling: Sampling
    deadline: float
    """On the event loop's clock."""
    place: int | None = None
    """Of one of two candidates: 0 for the one that is shown first."""
    id: str = field(default_factory=lambda: f"gen-{uuid.uuid4().hex}")
    text: str = ""
    n_tokens: int = 0
    last: Chunk | None = None
    _began_s: float = field(default_factory=time.time)

    @property
    def finished(self) -> bool:
        return self.last is not None and self.last.finish_reason is not None

    async def pieces(self, stream: bool) -> AsyncGenerator[str, None]:
        """New text as it comes, or all at once. Whoever leaves early aborts the generation. A whole reply is kept.

        Raises as Engine.generate does, and DeadlineExceeded.
        """
        chunks = self.live.engine.generate(
            self.placed, self.sampling, self.id, adapter=self.release.adapter, stream=stream
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                text = printable(chunk.text)  # it may come back, in a vote or in a history
                self.text += text
                self.n_tokens += len(chunk.token_ids)
                self.last = chunk
                if text:
                    yield text
        if self.finished:
            await self._remember()

    async def whole(self) -> None:
        """Make all of it."""
        async for _ in self.pieces(stream=False):
            pass

    async def _remember(self) -> None:
        """Keep prompt and reply for feedback by its id. A reply is worth more than this, so it may fail."""
        if self.asked.user_id is None:
            return  # feedback is somebody's
        generation = {
            "user_id": self.asked.user_id,
            "messages": self.asked.chat,
            "profile": self.asked.profile,
            "text": self.text,
            "bundle": self.who.bundle_id,
            **({} if self.place is None else {"place": self.place}),
        }
        try:
            self.live.store.check_room()
            await self.live.store.generations.remember(self.asked.user_id, self.id, generation, self._began_s)
        except StoreError as error:
            log.warning("generation %s cannot be kept for feedback: %s", self.id, error.message)
