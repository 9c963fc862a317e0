"""Requests and responses of the native API. Strict: wrong types and unknown fields are refused, never guessed."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from idiolect.learning import NoQuestion
from idiolect.text import Text, UserId
from idiolect.user_model import Kind
from idiolect_server.users.knowledge import State
from idiolect_server.wire.messages import Message, Messages, PlainMessage

MAX_TOKENS = 8192

Profile = Annotated[Text, StringConstraints(max_length=4096)]
GenerationId = Annotated[str, StringConstraints(pattern=r"^(gen-[0-9a-f]{32}|chatcmpl-[A-Za-z0-9._-]{1,64})$")]
"""Of a reply of /generate, or of a chat completion."""
QuestionId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class StrictRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StrictResponse(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerateRequest(StrictRequest):
    """POST /generate. Either `prompt` (one user message) or `messages`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "ada", "prompt": "Why is the sky blue?"}],
            # Not `oneOf`, which generators of clients take for two types, of which neither has the other fields.
            "if": {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
            "then": {"properties": {"messages": {"type": "null"}}},
            "else": {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
        }
    )

    user_id: UserId | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    profile: Profile | None = None
    """What the user says of themselves or wants, in words; the stored profile of `user_id` if absent."""
    max_tokens: int = Field(default=256, ge=1, le=MAX_TOKENS)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=0, lt=1 << 63)
    stop: list[StopText] = Field(default=[], max_length=4)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0, allow_inf_nan=False)
    """The bundle's if absent."""
    stream: bool = False
    candidates: int = Field(default=1, ge=1, le=2)
    """2: a pair of replies to compare, the second one by way of exploration."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.stream and self.candidates > 1:
            raise ValueError("candidates cannot be streamed")
        return self

    def chat(self) -> list[dict[str, str]]:
        return as_chat(self.prompt, self.messages)


class ProfileRequest(StrictRequest):
    """PUT /users/{user_id}/profile. Null forgets it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"profile": "I sail."}]})

    profile: Profile | None


def as_chat(prompt: str | None, messages: list[Message] | None) -> list[dict[str, str]]:
    """The conversation of a request that has either, in plain turns."""
    if messages is not None:
        return [message.plain().model_dump() for message in messages]
    return [{"role": "user", "content": prompt or ""}]


class PersonalizationInfo(StrictResponse):
    state: State
    bundle: str
    votes: int | None


class Usage(StrictResponse):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class GenerateResponse(StrictResponse):
    generation_id: str
    text: str
    finish_reason: str
    usage: Usage
    personalization: PersonalizationInfo


class CandidatesResponse(StrictResponse):
    """Two replies to one prompt, for `chosen_generation_id` and `rejected_generation_id` of /feedback.

    They are to be shown in this order, which was drawn for this user and prompt.
    """

    candidates: list[GenerateResponse]


class UserResponse(StrictResponse):
    """GET /users/{user_id}. An unknown user is no error: `known` is false and replies are generic."""

    user_id: str
    known: bool
    state: State
    votes: int | None
    bundle: str
    profile: str | None
    trained_votes: int
    """Votes that the user's code was trained on: they are in it, and are not counted on top."""
    effective_votes: int
    """Votes that say something more about the user's code: distinct pairs whose margins are known."""
    outdated_votes: int
    """Older votes that recent ones contradict: kept, but put aside."""
    uncertainty: float | None
    """1 when nothing is known beyond the population, falling towards 0; null without effective votes."""
    familiar: float | None
    """The probability that somebody whom the bundle knows would vote so; null without effective votes."""
    belief: dict[str, float] | None
    """What the user is taken for, in words and weights, where the bundle names its clusters."""
    belief_in_words: str
    """The same as a sentence; it says so when nothing is believed, or nothing has a name."""
    code: list[float] | None
    """The inferred code when it is short enough to be read."""


class Question(StrictResponse):
    """`first` is to be shown before `second`: which of the replies it is was drawn for this user."""

    question_id: str
    messages: list[PlainMessage]
    first: str
    second: str
    expected_gain: float
    """Nats that the answer is expected to tell."""


class QuestionResponse(StrictResponse):
    """GET /users/{user_id}/question. `reason` says why `question` is null."""

    user_id: str
    question: Question | None
    answered: int
    reason: NoQuestion | None


class StatusResponse(StrictResponse):
    """GET /status: what is served, and whether it learns from votes."""

    bundle: str
    base_model: str
    user_model: Kind
    trained_users: int
    cluster_names: list[str] | None
    questions: int
    """In the bundle's bank."""
    votes_count: bool
    """Whether votes change how their user is served."""
    why_not: str | None
    store: Literal["ok", "down"]


class DeletedVote(StrictResponse):
    vote_id: str
    votes: int


class ErasureReceipt(StrictResponse):
    """DELETE /users/{user_id}: how much was deleted."""

    user_id: str
    erased_at: str
    votes: int
    generations: int
    codes: int
    profiles: int
