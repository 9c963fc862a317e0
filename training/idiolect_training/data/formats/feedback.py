"""Votes as the service exports them: NDJSON, a stored vote per line (idiolect_server/routes/feedback.py)."""

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field

from idiolect.bank import pair_id
from idiolect.learning import GivenVote, counting
from idiolect_training.data.lines import BadLines, read_lines
from idiolect_training.data.preferences import Preference

log = logging.getLogger(__name__)


class _Vote(Preference):
    """A stored vote. What the service keeps of it beside the comparison is known by name, and plays no part here."""

    vote_id: Any = None
    time: float | None = Field(default=None, ge=0, le=1e10, allow_inf_nan=False)
    """Unix seconds."""
    bundle: Any = None
    bundle_id: Any = None
    generation_id: Any = None

    def comparison(self) -> Preference:
        return Preference.model_validate(self.model_dump(include=set(Preference.model_fields)))


def read(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """The votes that count where users are inferred (idiolect/learning.py), and no others, in file order.

    Of a user who changed their mind about a pair the last answer counts. Votes without a time are as old as their
    place in the file says. Raises BadPreference naming file and line.
    """
    lines = read_lines(path, _Vote.model_validate_json, bad_lines)
    given: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for place, (_, vote) in enumerate(lines):
        given[vote.user_id].append((vote.time or 0.0, place))
    kept: set[int] = set()
    for votes in given.values():
        places = [place for _, place in sorted(votes)]
        said = [_given(lines[place][1]) for place in places]
        counted = {id(vote) for vote in counting(said)}
        kept |= {place for place, vote in zip(places, said, strict=True) if id(vote) in counted}
    if len(kept) < len(lines):
        log.info("%s: %d votes do not count: answered anew, or beyond a limit", path, len(lines) - len(kept))
    return [vote.comparison().at(source) for place, (source, vote) in enumerate(lines) if place in kept]


def _given(vote: _Vote) -> GivenVote:
    pair = pair_id(vote.turns(), vote.chosen, vote.rejected)
    return GivenVote(pair, vote.chosen < vote.rejected, int(1000 * (vote.time or 0.0)))
