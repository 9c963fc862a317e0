"""Preference comparisons from JSONL: who preferred which reply to which prompt.

One line: {"user_id": "ada", "prompt": "Why is the sky blue?", "chosen": "...", "rejected": "..."}
`messages` (OpenAI style) may stand in place of `prompt`; `profile` is optional text about the user.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from idiolect.profile import with_profile
from training.errors import BadPreference

Text = Annotated[str, StringConstraints(min_length=1)]


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    role: Literal["system", "user", "assistant"]
    content: str


class Preference(BaseModel):
    """One comparison by one user."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    user_id: Text
    chosen: Text
    rejected: Text
    prompt: Text | None = None
    messages: tuple[Message, ...] | None = None
    profile: str | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.chosen == self.rejected:
            raise ValueError("chosen equals rejected")
        return self

    def chat(self) -> list[dict[str, str]]:
        """The conversation that the reply answers, profile included."""
        if self.messages is not None:
            turns = [message.model_dump() for message in self.messages]
        else:
            turns = [{"role": "user", "content": self.prompt or ""}]
        return with_profile(turns, self.profile)


def read_preferences(path: Path) -> list[Preference]:
    """All comparisons of a JSONL file, in file order. Raises BadPreference naming file and line."""
    preferences = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                preferences.append(Preference.model_validate_json(line, strict=None))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "line"
                raise BadPreference(f"{path}:{number}: {where}: {first['msg']}") from error
    if not preferences:
        raise BadPreference(f"{path}: no preferences")
    return preferences


def index_users(preferences: Iterable[Preference]) -> dict[str, int]:
    """Row of each user in the trained table, sorted by id; row 0 is kept for the generic user."""
    return {user_id: row for row, user_id in enumerate(sorted({p.user_id for p in preferences}), start=1)}
