"""Votes as the service exports them: NDJSON, a stored vote per line (idiolect_server/routes/feedback.py)."""

import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field

from idiolect.learning import GivenVote, counting
from idiolect_training.data.lines import BadLines, read_lines
from idiolect_training.data.preferences import Preference

log = logging.getLogger(__name__)

VOTE_ID = re.compile("[0-9]{1,2}-[0-9]{1,16}-([0-9]{1,16})")
"""Shard, Unix milliseconds, number within these."""


class _Vote(Preference):
    """A stored vote. What the service keeps of it beside the comparison is known by name, and plays no part here."""

    vote_id: Any = None
    time: float | None = Field(default=None, ge=0, le=1e10, allow_inf_nan=False)
    """Unix seconds."""
    bundle: Any = None
    bundle_id: Any = None
    generation_id: Any = None
    chosen_first: Any = None

    def comparison(self) -> Preference:
        return Preference.model_validate(self.model_dump(include=set(Preference.model_fields)))


def read(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """The votes that count where users are inferred (idiolect/learning.py), and no others, in file order.

    Of a user who changed their mind about a pair the last answer counts. A vote that was exported twice is one. Votes
    without a time are as old as their place in the file says. Raises BadPreference naming file and line.
    """
    lines = read_lines(path, _Vote.model_validate_json, bad_lines)
    given: dict[str, dict[GivenVote, int]] = defaultdict(dict)
    for place, (_, vote) in enumerate(lines):
        given[vote.user_id].setdefault(_given(vote, place), place)
    kept: set[int] = set()
    for places in given.values():
        in_order = sorted(places, key=lambda vote: (vote.given_ms, _number(vote), places[vote]))
        kept |= {places[vote] for vote in counting(in_order)}
    if len(kept) < len(lines):
        n_left = len(lines) - len(kept)
        log.info("%s: %d votes do not count: answered anew, beyond a limit, or exported twice", path, n_left)
    return [vote.comparison().at(source) for place, (source, vote) in enumerate(lines) if place in kept]


def _given(vote: _Vote, place: int) -> GivenVote:
    """A vote without a name of its own has that of its place."""
    name = vote.vote_id if isinstance(vote.vote_id, str) else f"line {place}"
    return GivenVote(*vote.answer, round(1000 * (vote.time or 0.0)), name, vote.kind)


def _number(vote: GivenVote) -> int:
    """Which of the votes of its millisecond it is."""
    found = VOTE_ID.fullmatch(vote.vote_id)
    return int(found[1]) if found else 0
