"""How far long work is: a bar on a terminal; elsewhere a line in the log now and then, to be read later."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Self, TypeVar

from accelerate import PartialState
from tqdm import tqdm

log = logging.getLogger(__name__)

EVERY_S = 30.0
"""Between two lines of the log."""
Item = TypeVar("Item")


class Progress:
    """Steps of `what`, `done` of `total` before it begins; only the main process says anything."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done, self._first = what, total, done, done
        chief, terminal = PartialState().is_main_process, sys.stderr.isatty()
        self._logs = chief and not terminal
        self._bar = tqdm(total=total, initial=done, desc=what, unit="step", disable=not (chief and terminal))
        self._began = self._said = time.monotonic()
        self._n_tokens = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, n_tokens: int = 0, **values: float) -> None:
        """One step of `n_tokens` tokens, and what to show of it."""
        self._done += 1
        self._n_tokens += n_tokens
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        self._bar.update()
        now = time.monotonic()
        if self._logs and now - self._said >= EVERY_S:
            log.info(self._line(now, values))
            self._said, self._n_tokens = now, 0

    def _line(self, now: float, values: dict[str, float]) -> str:
        """Tokens a second are those since the last line; the time left is by the mean of all steps."""
        left = (self._total - self._done) * (now - self._began) / (self._done - self._first)
        parts = [f"step {self._done} of {self._total}", *(f"{name} {value:.3f}" for name, value in values.items())]
        if self._n_tokens:
            parts.append(f"{self._n_tokens / (now - self._said):.0f} tokens/s")
        return f"{self._what}: {', '.join(parts)}, {timedelta(seconds=round(left))} left"


def progress(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items, one step each."""
    with Progress(what, len(items)) as steps:
        for item in items:
            yield item
            steps.advance()
