"""Where the user tokens sit in a prompt, and what ends a reply: the only statement of both.

Does not tokenize. `idiolect.prompt.template` derives a layout from a chat template, `idiolect.prompt.chat` finds the
place in token ids.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from idiolect.errors import LayoutError

Placement = Literal["after_system", "after_bos"]
BEFORE_2 = ("anchor",)
SINCE_2 = ("opening", "folds_system", "end_id", "max_reply_tokens")


class Layout(BaseModel):
    """The placement of user tokens, kept in the bundle so that serving repeats what training did.

    `after_system` puts them before what opens the first user turn, so that a system prompt shared by all users is one
    shared prefix of the KV cache. A template that writes the system prompt into a user turn has them before both.
    `after_bos` is the placement of arXiv 2402.05133: right after the first token if that is `bos_id`, else at the very
    start. So is every conversation in which no user speaks.

    >>> layout = Layout(placement="after_system", opening="[INST]", end_id=2)
    >>> layout.start("<sys>Quote [INST] now</sys>[INST] Hi [/INST]",
    ...              [{"role": "system", "content": "Quote [INST] now"}, {"role": "user", "content": "Hi"}])
    27
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    placement: Placement
    anchor: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=64, strict=False)
    """Of bundles of format 1: the tokens that open a user turn."""
    bos_id: int | None = Field(default=None, ge=0)
    opening: str | None = Field(default=None, min_length=1, max_length=256)
    """What the chat template writes before a user's words, without white space around it."""
    folds_system: bool | None = None
    """Whether the template writes the system prompt into a user turn, behind the opening."""
    end_id: int | None = Field(default=None, ge=0)
    """The token that ends a reply. Of bundles of format 1: the tokenizer's eos."""

    max_reply_tokens: int | None = Field(default=None, ge=1)
    """Where training cut long replies: margins are of as many tokens, in serving too. Not cut if None."""

    special_texts: bool = False
    """Whether what looks like a special token in a message is one, as other servers have it."""

    @model_validator(mode="after")
    def _of_one_format(self) -> Self:
        if (self.anchor is None) == (self.end_id is None):
            raise ValueError("want an end_id, or the anchor of format 1")
        if self.anchor is None and self.opening is None and self.placement == "after_system":
            raise ValueError("after_system wants an opening")
        return self

    @model_serializer(mode="wrap")
    def _as_in_its_format(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the fields of the other format, and without what is not asked for: bundles keep their digests."""
        absent = (*(BEFORE_2 if self.anchor is None else SINCE_2), *(() if self.special_texts else ("special_texts",)))
        return {name: value for name, value in whole(self).items() if name not in absent}

    @property
    def format_version(self) -> Literal[1, 2]:
        return 2 if self.anchor is None else 1

    def at_start(self, token_ids: Sequence[int]) -> int:
        """The place of `after_bos`."""
        return 1 if token_ids and token_ids[0] == self.bos_id else 0

    def start(self, text: str, messages: Sequence[Mapping[str, Any]]) -> int:
        """Which character of a rendered conversation opens the first user turn.

        What stands in a message is never taken for the template's. `messages` must hold one of a user. Raises
        LayoutError when the text has no such place.
        """
        assert self.opening is not None
        at = 0
        for message in messages:
            if message["role"] == "user":
                break
            content = str(message.get("content") or "").strip()
            if self.opening in content and not (self.folds_system and message["role"] == "system"):
                found = text.find(content, at)
                if found < 0:
                    raise LayoutError(
                        "a message quotes the chat template's own marks, and is not in the prompt as it is"
                    )
                at = found + len(content)
        found = text.find(self.opening, at)
        if found < 0:
            raise LayoutError(f"the prompt has no {self.opening!r}, which opens a user turn")
        return found

    def offset(self, token_ids: Sequence[int]) -> int:
        """The place by token ids alone, as in format 1. Raises LayoutError when the anchor is not there."""
        if self.placement == "after_bos":
            return self.at_start(token_ids)
        assert self.anchor is not None
        start = -1
        while True:
            try:
                start = token_ids.index(self.anchor[0], start + 1)
            except ValueError:
                break
            if tuple(token_ids[start : start + len(self.anchor)]) == self.anchor:
                return start
        raise LayoutError("the prompt does not open a user turn as the bundle's layout knows it")
