"""POST /feedback: one vote, in each of its forms."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from idiolect.learning import VoteKind
from idiolect.text import Text, UserId
from idiolect_server.engine.protocol.fields import MAX_CHOICES
from idiolect_server.users.knowledge import Effect, State
from idiolect_server.wire.messages import Messages
from idiolect_server.wire.native import GenerationId, QuestionId, StrictRequest, StrictResponse

Index = Annotated[int, Field(ge=0, lt=MAX_CHOICES)]


class FeedbackRequest(StrictRequest):
    """POST /feedback: `user_id` preferred `chosen` to `rejected` as the reply to the prompt, or judged or edited it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "ada", "prompt": "Why is the sky blue?", "chosen": "Air.", "rejected": "It is."}]
        }
    )

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
    chosen_index: Index | None = None
    rejected_index: Index | None = None
    """Take the two replies from these choices of the chat completion that `generation_id` names."""
    reply: Text | None = None
    """What was judged or changed; that of `generation_id` if absent."""
    reply_index: Index | None = None
    """Which choice of a chat completion that is; the first if absent."""
    thumb: Literal["up", "down"] | None = None
    edit: Text | None = None
    """What the user made of the reply."""
    shown_first: Literal["chosen", "rejected"] | None = None
    """Which of the two the user saw first, where ids and indices do not say it, or the order was another."""
    consent: bool = False
    """The user agrees that the vote may be exported and train a later bundle."""

    @property
    def kind(self) -> VoteKind:
        return "thumb" if self.thumb is not None else "comparison" if self.edit is None else "edit"

    @property
    def names_replies(self) -> bool:
        """Whether ids or indices say what `chosen` and `rejected` are."""
        return self.chosen_generation_id is not None or self.chosen_index is not None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        of_two = [self.chosen, self.rejected, self.question_id, self.chosen_generation_id, self.rejected_generation_id]
        is_of_two = any(field is not None for field in (*of_two, self.chosen_index, self.rejected_index))
        if is_of_two + (self.thumb is not None) + (self.edit is not None) > 1:
            raise ValueError("give one of chosen with rejected, thumb, and edit")
        if (self.reply is None) != (self.kind == "comparison" or self.generation_id is not None):
            raise ValueError("give reply with thumb or edit, unless generation_id says what it is")
        if self.shown_first is not None and self.kind != "comparison":
            raise ValueError("shown_first is of two replies that were compared")
        if self.reply is not None and self.reply == self.edit:
            raise ValueError("edit equals reply")
        if self.reply_index is not None and (self.kind == "comparison" or self.generation_id is None):
            raise ValueError("reply_index is of thumb and edit, with generation_id")
        return self

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        given = (self.prompt, self.messages, self.generation_id, self.question_id, self.chosen_generation_id)
        if sum(field is not None for field in given) != 1:
            raise ValueError("give one of prompt, messages, generation_id, question_id and chosen_generation_id")
        if self.messages is not None and all(message.role != "user" for message in self.messages):
            raise ValueError("messages hold no user turn")
        return self

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        if (self.chosen_generation_id is None) != (self.rejected_generation_id is None):
            raise ValueError("chosen_generation_id and rejected_generation_id come together")
        if (self.chosen_index is None) != (self.rejected_index is None):
            raise ValueError("chosen_index and rejected_index come together")
        if self.chosen_index is not None and (self.generation_id is None or self.chosen_index == self.rejected_index):
            raise ValueError("chosen_index and rejected_index are two choices of generation_id")
        if self.kind != "comparison":
            return self
        if any((side is None) != self.names_replies for side in (self.chosen, self.rejected)):
            raise ValueError("give chosen and rejected, unless ids or indices say what they are")
        if not self.names_replies and self.chosen == self.rejected:
            raise ValueError("chosen equals rejected")
        return self


class FeedbackResponse(StrictResponse):
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
