"""Requests and responses of the native API. Strict: wrong types and unknown fields are refused, never guessed."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from idiolect.learning import NoQuestion, VoteKind
from idiolect.text import Printable, Text, UserId
from idiolect.user_model import Kind
from idiolect_server.users.knowledge import Effect, State

MAX_MESSAGES = 256
MAX_TOKENS = 8192

Profile = Annotated[Text, StringConstraints(max_length=4096)]
GenerationId = Annotated[str, StringConstraints(pattern=r"^gen-[0-9a-f]{32}$")]
QuestionId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Request):
    role: Literal["system", "user", "assistant"]
    content: Printable


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]


class GenerateRequest(_Request):
    """POST /generate. Either `prompt` (one user message) or `messages`."""

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


class FeedbackRequest(_Request):
    """POST /feedback: `user_id` preferred `chosen` to `rejected` as the reply to the prompt, or judged or edited it."""

    user_id: UserId
    chosen: Text | None = None
    rejected: Text | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    generation_id: GenerationId | None = None
    """Take the prompt of this generation."""
    question_id: QuestionId | None = None
    """Take the prompt of this question of the bundle's bank; `chosen` and `rejected` are its two replies."""
    chosen_generation_id: GenerationId | None = None
    rejected_generation_id: GenerationId | None = None
    """Take everything from these two generations, the `candidates` of one request."""
    reply: Text | None = None
    """What was judged or changed; that of `generation_id` if absent."""
    thumb: Literal["up", "down"] | None = None
    edit: Text | None = None
    """What the user made of the reply."""
    consent: bool = False
    """The user agrees that the vote may be exported and train a later bundle."""

    @property
    def kind(self) -> VoteKind:
        return "thumb" if self.thumb is not None else "comparison" if self.edit is None else "edit"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        of_two = (self.chosen, self.rejected, self.question_id, self.chosen_generation_id, self.rejected_generation_id)
        if any(field is not None for field in of_two) + (self.thumb is not None) + (self.edit is not None) > 1:
            raise ValueError("give one of chosen with rejected, thumb, and edit")
        if (self.reply is None) != (self.kind == "comparison" or self.generation_id is not None):
            raise ValueError("give reply with thumb or edit, unless generation_id says what it is")
        if self.reply is not None and self.reply == self.edit:
            raise ValueError("edit equals reply")
        return self

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        given = (self.prompt, self.messages, self.generation_id, self.question_id, self.chosen_generation_id)
        if sum(field is not None for field in given) != 1:
            raise ValueError("give one of prompt, messages, generation_id, question_id and chosen_generation_id")
        if self.messages is not None and all(message.role != "user" for message in self.messages):
            raise ValueError("messages hold no user turn")
        by_id = self.chosen_generation_id is not None
        if (self.rejected_generation_id is not None) != by_id:
            raise ValueError("chosen_generation_id and rejected_generation_id come together")
        if self.kind != "comparison":
            return self
        if any((side is None) != by_id for side in (self.chosen, self.rejected)):
            raise ValueError("give chosen and rejected, unless chosen_generation_id says what they are")
        if not by_id and self.chosen == self.rejected:
            raise ValueError("chosen equals rejected")
        return self


class ProfileRequest(_Request):
    """PUT /users/{user_id}/profile. Null forgets it."""

    profile: Profile | None


def as_chat(prompt: str | None, messages: list[Message] | None) -> list[dict[str, str]]:
    """The conversation of a request that has either."""
    if messages is not None:
        return [message.model_dump() for message in messages]
    return [{"role": "user", "content": prompt or ""}]


class PersonalizationInfo(_Response):
    state: State
    bundle: str
    votes: int | None


class Usage(_Response):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class GenerateResponse(_Response):
    generation_id: str
    text: str
    finish_reason: str
    usage: Usage
    personalization: PersonalizationInfo


class CandidatesResponse(_Response):
    """Two replies to one prompt, for `chosen_generation_id` and `rejected_generation_id` of /feedback."""

    candidates: list[GenerateResponse]


class FeedbackResponse(_Response):
    """The vote is stored. What follows says what it did; all null when the store could not be asked for that."""

    vote_id: str
    votes: int
    duplicate: bool
    state: State | None = None
    """How the user is served from now on."""
    effective_votes: int | None = None
    """As in GET /users/{user_id}."""
    effect: Effect | None = None
    """What the vote does to the user's code."""


class UserResponse(_Response):
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
    belief: dict[str, float] | None
    """What the user is taken for, in words and weights, where the bundle names its clusters."""
    code: list[float] | None
    """The inferred code when it is short enough to be read."""


class Question(_Response):
    question_id: str
    messages: list[Message]
    first: str
    second: str
    expected_gain: float
    """Nats that the answer is expected to tell."""


class QuestionResponse(_Response):
    """GET /users/{user_id}/question. `reason` says why `question` is null."""

    user_id: str
    question: Question | None
    answered: int
    reason: NoQuestion | None


class StatusResponse(_Response):
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


class DeletedVote(_Response):
    vote_id: str
    votes: int


class ErasureReceipt(_Response):
    """DELETE /users/{user_id}: how much was deleted."""

    user_id: str
    erased_at: str
    votes: int
    generations: int
    codes: int
    profiles: int
