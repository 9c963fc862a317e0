"""The one way to the engine: whoever gives it a prompt enters here, so that all prompts are counted, and none waits for
ever.

The engine computes as many replies at once as it has room for, and lets the others wait, as many as there are. So who
waits is counted here, in the order of arrival: when that is more than IDIOLECT_MAX_WAITING_TOKENS, the next is refused
at once rather than late. A reply has until its deadline, wherever it is then.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from idiolect_server import metrics
from idiolect_server.errors import DeadlineExceeded, Overloaded

SHARE = 0.03
"""Of the time for scores, while replies are being written: what is slower for the scorer must not be slow for users."""
USUAL_REPLY_TOKENS = 256
"""What a reply that may be longer is counted as: nobody knows how long it will be, and most end long before."""
SPEED_S = 5.0
"""How long the engine's speed is measured."""
LONGEST_RETRY_S = 60
_REPLIES, _SCORES = metrics.REQUESTS.labels("reply"), metrics.REQUESTS.labels("score")


@dataclass(frozen=True)
class Capacity:
    """What an engine computes at once: so many replies, with so many tokens of prompts and replies together."""

    n_replies: int
    n_tokens: int


class Admission:
    """Replies come in at once, or not at all. Scores, which nobody waits for, keep to their share of the time."""

    def __init__(self, capacity: Capacity, deadline_s: float, max_waiting_tokens: int | None = None) -> None:
        self._capacity, self._deadline_s = capacity, deadline_s
        batch = min(capacity.n_replies * USUAL_REPLY_TOKENS, capacity.n_tokens)
        self._max_waiting_tokens = batch if max_waiting_tokens is None else max_waiting_tokens
        self._computed: dict[object, int] = {}
        self._waiting: dict[object, int] = {}
        self._computed_tokens = self._waiting_tokens = 0
        self._since_s, self._left_tokens, self._tokens_per_s = time.monotonic(), 0, 0.0

    @property
    def n_replies(self) -> int:
        """Prompts to which replies are being written now, or wait to be, through whichever API."""
        return len(self._computed) + len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """Of prompts and expected replies that wait for others to end."""
        return self._waiting_tokens

    def deadline(self) -> float:
        """When a request that has come now must be over, on the event loop's clock."""
        return asyncio.get_running_loop().time() + self._deadline_s

    def check(self, n_tokens: int = 0) -> None:
        """Whether so many tokens more may come in. Raises Overloaded. A prompt that nobody waits for always may."""
        if self._waiting and self._waiting_tokens + n_tokens > self._max_waiting_tokens:
            wait_s = self._waiting_tokens / self._tokens_per_s if self._tokens_per_s else 1.0
            raise Overloaded(
                "too much work is waiting for the engine",
                hint="try again after the seconds of Retry-After",
                retry_after_s=min(LONGEST_RETRY_S, max(1, math.ceil(wait_s))),
            )

    @contextmanager
    def reply(self, n_prompt_tokens: int, max_tokens: int, n_choices: int = 1) -> Generator[None, None, None]:
        """For as long as the engine writes the reply, or the choices, to one prompt. Raises Overloaded."""
        n_tokens, key = n_prompt_tokens + n_choices * min(max_tokens, USUAL_REPLY_TOKENS), object()
        self.check(n_tokens)
        _REPLIES.inc()
        self._waiting[key] = n_tokens
        self._waiting_tokens += n_tokens
        self._advance()
        try:
            yield
        finally:
            self._leave(key)

    def _leave(self, key: object) -> None:
        if (n_tokens := self._waiting.pop(key, None)) is not None:
            self._waiting_tokens -= n_tokens
        else:
            n_tokens = self._computed.pop(key)
            self._computed_tokens -= n_tokens
            self._left_tokens += n_tokens
        self._advance()
        if (passed_s := time.monotonic() - self._since_s) > SPEED_S:
            self._tokens_per_s = self._left_tokens / passed_s
            self._since_s, self._left_tokens = time.monotonic(), 0

    def _advance(self) -> None:
        """Those who have waited longest are computed, as many as there is room for, as the engine does it."""
        while self._waiting and len(self._computed) < self._capacity.n_replies:
            key, n_tokens = next(iter(self._waiting.items()))
            if self._computed and self._computed_tokens + n_tokens > self._capacity.n_tokens:
                break
            del self._waiting[key]
            self._computed[key] = n_tokens
            self._waiting_tokens -= n_tokens
            self._computed_tokens += n_tokens
        metrics.WAITING.set(self._waiting_tokens)

    @asynccontextmanager
    async def score(self) -> AsyncGenerator[None, None]:
        """For one score. If anybody waited for a reply meanwhile, a pause follows that keeps to SHARE."""
        _SCORES.inc()
        busy, began = self.n_replies > 0, time.monotonic()
        yield
        if busy or self.n_replies > 0:
            await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))


@asynccontextmanager
async def until(deadline: float) -> AsyncGenerator[None, None]:
    """What is awaited within ends at the deadline. Raises DeadlineExceeded then."""
    timeout = asyncio.timeout_at(deadline)
    try:
        async with timeout:
            yield
    except TimeoutError:
        if timeout.expired():
            raise exceeded() from None
        raise


def exceeded() -> DeadlineExceeded:
    """What a request that takes too long is told."""
    return DeadlineExceeded("the reply was not finished in time", hint="ask for fewer tokens, or try again later")
