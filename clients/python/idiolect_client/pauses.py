"""The pauses between the attempts of one request: the request fails for good when they run out."""

import random
import time
from collections.abc import Iterator

FIRST_S = 0.2
LONGEST_S = 5.0
POLL_S = 0.25


def backoff(max_retries: int) -> Iterator[float]:
    """Pauses that double. The jitter keeps clients that failed together from coming back together."""
    for retry in range(max_retries):
        yield min(FIRST_S * 2**retry, LONGEST_S) * random.uniform(0.5, 1.0)


def until(timeout_s: float) -> Iterator[float]:
    """Equal pauses for as long as the time lasts."""
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        yield min(POLL_S, left_s)
