"""What a client's script has seen, before and after its user's votes, as ticks: true, false, or null with a reason."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from idiolect_client import Generation, GivenVote

CITIES = ("Paris", "Oslo")
"""That a call of the scripts' tool may name."""


@dataclass(frozen=True)
class Visit:
    """One run of a script: what it printed, and what the native API says of its user: a reply before, votes after."""

    seen: Mapping[str, Any]
    native: Generation
    votes: tuple[GivenVote, ...]
    error: str = ""
    """What it wrote when it failed, in a line."""


Visits = tuple[Visit, Visit]
"""As a stranger, and as somebody who has answered questions."""


def seen_in(printed: str) -> dict[str, Any]:
    """The lines of JSON objects that a script printed, as one."""
    seen: dict[str, Any] = {}
    for line in printed.splitlines():
        if line.startswith("{"):
            seen |= json.loads(line)
    return seen


def error_in(written: str) -> str:
    """The line of a failed script's errors that says most: the last that names one, else the last."""
    lines = [line.strip() for line in written.splitlines() if line.strip()] or ["it failed without a word"]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:300]


def _whole(visits: Visits) -> bool:
    """Both replies are the user's own. A client that can see the state saw the right one."""
    return all(
        _text(visit.seen["whole"]) == _text(visit.native.text)
        and visit.seen.get("state") in (None, visit.native.personalization.state)
        for visit in visits
    )


def _streamed(visits: Visits) -> bool:
    return all(_text(visit.seen["streamed"]) == _text(visit.seen["whole"]) for visit in visits)


def _tools(visits: Visits) -> bool:
    return all(visit.seen["arguments"]["city"] in CITIES for visit in visits)


def _choices(visits: Visits) -> bool:
    return all(len({_text(text) for text in visit.seen["choices"]} - {""}) == 2 for visit in visits)


def _vote(visits: Visits) -> bool:
    """The vote counts, or will, and the texts that are kept are those that the client had."""
    return all(
        visit.seen["vote"]["effect"] in ("counted", "to_be_scored")
        and [_text(text) for text in reversed(visit.seen["choices"])]
        in [[_text(vote.chosen), _text(vote.rejected)] for vote in visit.votes]
        for visit in visits
    )


def _changed(visits: Visits) -> bool:
    before, after = visits
    states = [visit.native.personalization.state for visit in visits]
    return states == ["generic", "inferred"] and _text(before.seen["whole"]) != _text(after.seen["whole"])


CELLS: dict[str, Callable[[Visits], bool]] = {
    "whole": _whole,
    "streamed": _streamed,
    "tools": _tools,
    "choices": _choices,
    "vote": _vote,
    "changed": _changed,
}


def ticks(visits: Visits, cannot: Mapping[str, str]) -> dict[str, bool | None]:
    """A cell is null if the client `cannot`, and false if what it needs was never seen."""
    return {cell: None if cell in cannot else _holds(rule, visits) for cell, rule in CELLS.items()}


def _holds(rule: Callable[[Visits], bool], visits: Visits) -> bool:
    try:
        return rule(visits)
    except (KeyError, TypeError):
        return False


def _text(text: str) -> str:
    """Command lines and shells add and take line breaks at the end."""
    return text.strip()
