"""How much computing time a constraint may cost while a reply is written, all steps together."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

START_S = 0.1
"""For masks that are computed the first time."""
PER_TOKEN_S = 0.001
"""Common schemas and patterns take 0.03 ms. Every other reply waits for each step."""


class Allowance:
    """Counts the calling thread's own computing time, so that a busy machine makes nothing dearer."""

    def __init__(self, start_s: float = START_S) -> None:
        self._left_s = start_s

    @property
    def is_spent(self) -> bool:
        return self._left_s < 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around what one token costs."""
        began_s = time.thread_time()
        yield
        self._left_s += PER_TOKEN_S - (time.thread_time() - began_s)
