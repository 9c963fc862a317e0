"""Votes that were acknowledged, which of them count by the rule in other words, and how often somebody disagreed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from idiolect.bank import pair_id
from idiolect.learning import DAY_MS, MAX_DAILY_VOTES

Answer = tuple[str, str, bool | None]
"""User, pair, and whether its first side was preferred; None of a tie."""


def in_order(answers: Iterable[Answer]) -> list[Answer]:
    """Ties have a place, too."""
    return sorted(answers, key=lambda answer: (*answer[:2], str(answer[2])))


@dataclass(frozen=True)
class Vote:
    """One that was acknowledged."""

    user_id: str
    vote_id: str
    content: dict[str, Any]
    key: str

    @property
    def pair(self) -> str:
        return pair_id(self.content["messages"], self.content["chosen"], self.content["rejected"])

    @property
    def answer(self) -> Answer:
        first = None if self.content.get("kind") == "tie" else self.content["chosen"] < self.content["rejected"]
        return self.user_id, self.pair, first

    @property
    def given_ms(self) -> int:
        return int(self.vote_id.split("-")[1])


@dataclass
class Found:
    """How often somebody counted otherwise than the rule says, and how many votes counted twice."""

    histories: int = 0
    votes: int = 0
    retrainings: int = 0
    trained: int = 0
    disagreements: Counter[str] = field(
        default_factory=lambda: Counter(export=0, reader=0, increments=0, fit=0, server=0)
    )
    counted_twice: int = 0

    def compare(self, who: str, found: Any, expected: Any) -> None:
        self.disagreements[who] += found != expected


def counting_votes(votes: list[Vote]) -> list[Vote]:
    """The rule in other words: a day's first votes, and of these the last on each pair."""
    early = [
        vote
        for place, vote in enumerate(votes)
        if sum(other.given_ms // DAY_MS == vote.given_ms // DAY_MS for other in votes[:place]) < MAX_DAILY_VOTES
    ]
    return [vote for place, vote in enumerate(early) if all(vote.pair != later.pair for later in early[place + 1 :])]
