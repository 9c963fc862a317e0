"""The one way to the engine: whoever gives it a prompt enters here, so that all prompts are counted and can wait."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from idiolect_server import metrics

SHARE = 0.03
"""Of the time for scores, while replies are being written: what is slower for the scorer must not be slow for users."""
_REPLIES, _SCORES = metrics.REQUESTS.labels("reply"), metrics.REQUESTS.labels("score")


class Admission:
    """Replies come in at once. Scores, which nobody waits for, keep to their share of the time."""

    def __init__(self) -> None:
        self.n_replies = 0
        """Prompts to which replies are being written now, through whichever API."""

    @contextmanager
    def reply(self) -> Generator[None, None, None]:
        """For as long as the engine writes the reply, or the choices, to one prompt."""
        _REPLIES.inc()
        self.n_replies += 1
        try:
            yield
        finally:
            self.n_replies -= 1

    @asynccontextmanager
    async def score(self) -> AsyncGenerator[None, None]:
        """For one score. If anybody waited for a reply meanwhile, a pause follows that keeps to SHARE."""
        _SCORES.inc()
        busy, began = self.n_replies > 0, time.monotonic()
        yield
        if busy or self.n_replies > 0:
            await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
