"""Preference comparisons from JSONL: who preferred which reply to which prompt.

One line: {"user_id": "ada", "prompt": "Why is the sky blue?", "chosen": "...", "rejected": "..."}
`messages` (OpenAI style) may stand in place of `prompt`; `profile` is optional text about the user. A thumb has an
empty text for the reply that it lacks, and "kind": "thumb". Of a tie, "kind": "tie", which reply stands where says
nothing.
Other published forms are read in `idiolect_training.data.formats`, on top of the same lines.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from idiolect.bank import NO_REPLY, pair_id
from idiolect.learning import VoteKind
from idiolect.prompt.profile import with_profile
from idiolect.text import Printable, Text, UserId
from idiolect_training.data.lines import BadLines, read_lines


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    role: Literal["system", "user", "assistant"]
    content: Printable


class Preference(BaseModel):
    """One comparison by one user, or a vote of another kind: an edit, a tie, or a thumb, which is over NO_REPLY."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    user_id: UserId
    kind: VoteKind = Field(default="comparison", exclude_if=lambda kind: kind == "comparison")
    """Left out where it says nothing, as it was before there were others: a run knows its data by what they say."""
    chosen: Printable
    rejected: Printable
    prompt: Text | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1)] | None = None
    profile: Printable | None = None
    _source: str = PrivateAttr("")
    _answer: tuple[str, bool | None] | None = PrivateAttr(None)

    @field_validator("chosen", "rejected")
    @classmethod
    def _is_said(cls, side: str, info: ValidationInfo) -> str:
        if side == NO_REPLY and info.data.get("kind") != "thumb":
            raise PydanticKnownError("string_too_short", {"min_length": 1})
        return side

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.messages is not None and all(message.role != "user" for message in self.messages):
            raise ValueError("messages hold no user turn")
        if self.chosen == self.rejected:
            raise ValueError("chosen equals rejected")
        if self.kind == "thumb" and NO_REPLY not in (self.chosen, self.rejected):
            raise ValueError("a thumb has one reply: the other is an empty text")
        return self

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__  # wherever they were read

    @property
    def source(self) -> str:
        """Where it was read, "file:line"; empty when it was made in memory. No part of what it says."""
        return self._source

    def at(self, source: str) -> Self:
        """The same comparison, read at `source`."""
        copy = self.model_copy()
        copy._source = source
        return copy

    @property
    def answer(self) -> tuple[str, bool | None]:
        """The pair (idiolect.bank.pair_id), and whether its first side was preferred, as they were read.

        None of a tie. The server knows a vote by it, whatever training takes off the replies.
        """
        first = None if self.kind == "tie" else self.chosen < self.rejected
        return self._answer or (pair_id(self.turns(), self.chosen, self.rejected), first)

    def trimmed(self, chosen: str, rejected: str) -> Self:
        """The same answer with what is left of its replies."""
        if (chosen, rejected) == (self.chosen, self.rejected):
            return self
        copy = self.model_copy(update={"chosen": chosen, "rejected": rejected})
        copy._answer = self.answer
        return copy

    def chat(self) -> list[dict[str, str]]:
        """The conversation that the reply answers, profile included."""
        return self.ask(self.turns())

    def ask(self, turns: list[dict[str, str]]) -> list[dict[str, str]]:
        """Another conversation as this user would hold it: with the profile."""
        return with_profile(turns, self.profile)

    def turns(self) -> list[dict[str, str]]:
        """The conversation that the reply answers, without the profile."""
        if self.messages is not None:
            return [message.model_dump() for message in self.messages]
        return [{"role": "user", "content": self.prompt or ""}]


def read_preferences(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """All comparisons of a JSONL file, in file order. Raises BadPreference naming file and line.

    With `bad_lines="skip"` a line that cannot be used is named in the log instead, and their number is told.
    """
    lines = read_lines(path, Preference.model_validate_json, bad_lines)
    return [preference.at(source) for source, preference in lines]


def index_users(preferences: Iterable[Preference]) -> dict[str, int]:
    """Row of each user in the trained table, sorted by id; row 0 is kept for the generic user."""
    return {user_id: row for row, user_id in enumerate(sorted({p.user_id for p in preferences}), start=1)}
