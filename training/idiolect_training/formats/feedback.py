"""Votes as the service exports them: NDJSON, a stored vote a line (idiolect_server/routes/feedback.py)."""

from pathlib import Path
from typing import Any

from idiolect_training.preferences import BadLines, Preference, read_lines


class _Vote(Preference):
    """A stored vote. What the service keeps of it beside the comparison is known by name, and plays no part here."""

    vote_id: Any = None
    time: Any = None
    bundle: Any = None
    bundle_id: Any = None
    generation_id: Any = None

    def comparison(self) -> Preference:
        return Preference.model_validate(self.model_dump(include=set(Preference.model_fields)))


def read(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """Every vote, in file order. Raises BadPreference naming file and line."""
    votes = read_lines(path, _Vote.model_validate_json, bad_lines)
    return [vote.comparison().at(source) for source, vote in votes]
