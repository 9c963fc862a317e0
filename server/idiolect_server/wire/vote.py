"""POST /feedback: one vote, in each of its forms."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, model_validator

from idiolect.learning import VoteKind
from idiolect.text import Text, UserId
from idiolect_server.engine.protocol.fields import MAX_CHOICES
from idiolect_server.users.knowledge import Effect, State
from idiolect_server.wire.messages import Messages
from idiolect_server.wire.native import GenerationId, QuestionId, StrictRequest, StrictResponse

Index = Annotated[int, Field(ge=0, lt=MAX_CHOICES)]
One = TypeVar("One")
Two = Annotated[list[One], Field(min_length=2, max_length=2)]


class FeedbackRequest(StrictRequest):
    """POST /feedback: `user_id` preferred `chosen` to `rejected` as the reply to the prompt, or neither of two that are
    `tied`, or judged or edited one.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "ada", "prompt": "Why is the sky blue?", "chosen": "Air.", "rejected": "It is."}]
        }
    )

    user_id: UserId
    chosen: Text | None = None
    rejected: Text | None = None
    tied: Two[Text] | None = None
    """Two replies, in either order, of which the user preferred neither: both are fine, or none is."""
    prompt: Text | None = None
    messages: Messages | None = None
    generation_id: GenerationId | None = None
    """Take the prompt of this generation."""
    question_id: QuestionId | None = None
    """Take the prompt of this question of the bundle's bank; the two replies are its own."""
    chosen_generation_id: GenerationId | None = None
    rejected_generation_id: GenerationId | None = None
    tied_generation_ids: Two[GenerationId] | None = None
    """Take everything from two generations, the `candidates` of one request."""
    chosen_index: Index | None = None
    rejected_index: Index | None = None
    tied_indices: Two[Index] | None = None
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
        if self.thumb is not None:
            return "thumb"
        if self.edit is not None:
            return "edit"
        return "tie" if any(part is not None for part in self._tied) else "comparison"

    @property
    def compares(self) -> bool:
        """Whether it is on two replies."""
        return self.kind in ("comparison", "tie")

    @property
    def texts(self) -> tuple[str | None, str | None]:
        """The two replies, `chosen` first."""
        return (self.chosen, self.rejected) if self.tied is None else (self.tied[0], self.tied[1])

    @property
    def generation_ids(self) -> tuple[str, str] | None:
        """The two generations, the chosen one first; of a tie, the same in either order."""
        if self.tied_generation_ids is not None:
            return min(self.tied_generation_ids), max(self.tied_generation_ids)
        if self.chosen_generation_id is None or self.rejected_generation_id is None:
            return None
        return self.chosen_generation_id, self.rejected_generation_id

    @property
    def indices(self) -> tuple[int, int] | None:
        """The two choices of `generation_id`, the chosen one first."""
        if self.tied_indices is not None:
            return self.tied_indices[0], self.tied_indices[1]
        if self.chosen_index is None or self.rejected_index is None:
            return None
        return self.chosen_index, self.rejected_index

    @property
    def names_replies(self) -> bool:
        """Whether ids or indices say what the two replies are."""
        return self.generation_ids is not None or self.indices is not None

    @property
    def _tied(self) -> tuple[object, ...]:
        return self.tied, self.tied_generation_ids, self.tied_indices

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        choice = (self.chosen, self.rejected, self.chosen_generation_id, self.rejected_generation_id)
        has_choice = any(part is not None for part in (*choice, self.chosen_index, self.rejected_index))
        has_tie = any(part is not None for part in self._tied)
        is_question = self.question_id is not None and not (has_choice or has_tie)
        if has_choice + has_tie + is_question + (self.thumb is not None) + (self.edit is not None) > 1:
            raise ValueError("give one of chosen with rejected, tied, thumb, and edit")
        if (self.reply is None) != (self.compares or self.generation_id is not None):
            raise ValueError("give reply with thumb or edit, unless generation_id says what it is")
        if self.shown_first is not None and self.kind != "comparison":
            raise ValueError("shown_first is of two replies of which one was preferred")
        if self.reply is not None and self.reply == self.edit:
            raise ValueError("edit equals reply")
        if self.reply_index is not None and (self.compares or self.generation_id is None):
            raise ValueError("reply_index is of thumb and edit, with generation_id")
        return self

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        first = self.chosen_generation_id or self.tied_generation_ids
        given = (self.prompt, self.messages, self.generation_id, self.question_id, first)
        if sum(field is not None for field in given) != 1:
            raise ValueError(
                "give one of prompt, messages, generation_id, question_id, chosen_generation_id and tied_generation_ids"
            )
        if self.messages is not None and all(message.role != "user" for message in self.messages):
            raise ValueError("messages hold no user turn")
        return self

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        if (self.chosen_generation_id is None) != (self.rejected_generation_id is None):
            raise ValueError("chosen_generation_id and rejected_generation_id come together")
        if (self.chosen_index is None) != (self.rejected_index is None):
            raise ValueError("chosen_index and rejected_index come together")
        if self.indices is not None and (self.generation_id is None or self.indices[0] == self.indices[1]):
            raise ValueError("chosen_index and rejected_index, or tied_indices, are two choices of generation_id")
        if not self.compares:
            return self
        if any((side is None) != self.names_replies for side in self.texts):
            raise ValueError("give chosen and rejected, or tied, unless ids or indices say what they are")
        if not self.names_replies and self.texts[0] == self.texts[1]:
            raise ValueError("the two replies are equal" if self.kind == "tie" else "chosen equals rejected")
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
