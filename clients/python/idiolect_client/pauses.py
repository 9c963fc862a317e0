"""The pauses between the attempts of one request: the request fails for good when they run out."""

import random
import time
from collections.abc import Iterator

FIRST_S = 0.2
LONGEST_S = 5.0
POLL_S = 0.25
LONGEST_ASKED_S = 60.0
"""A server that asks for a longer wait is not asked again."""


def backoff(max_retries: int) -> Iterator[float]:
    """Pauses that double. The jitter keeps clients that failed together from coming back together."""
    for retry in range(max_retries):
        yield min(FIRST_S * 2**retry, LONGEST_S) * random.uniform(0.5, 1.0)


def heeding(wait_s: float | None, asked_s: float | None) -> float | None:
    """The next pause when the server has asked to wait for `asked_s`; None: no further attempt."""
    if wait_s is None or asked_s is None:
        return wait_s
    # Later than asked, for the same reason as above.
    return None if asked_s > LONGEST_ASKED_S else max(wait_s, asked_s * random.uniform(1.0, 1.25))


def until(timeout_s: float) -> Iterator[float]:
    """Equal pauses for as long as the time lasts."""
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        yield min(POLL_S, left_s)
