"""Messages as callers of any chat API have them, and the plain turns that a prompt is made of and a vote keeps.

One rule for every route: text parts are joined by line breaks, as vLLM joins them; `developer` speaks as `system`; what
a tool answers is said to the model, as a `user` turn, since that is how most chat templates write it; a call of a tool
is JSON in the turn that makes it. Anything else is refused: a vote on half a conversation would teach the wrong thing.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from idiolect.text import Printable, Text

MAX_MESSAGES, MAX_PARTS, MAX_CALLS = 256, 256, 64

Name = Annotated[Text, StringConstraints(max_length=256)]
PLAIN: dict[str, Literal["system", "user", "assistant"]] = {"developer": "system", "tool": "user"}
"""Roles that a plain turn does not have, and whose they become."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class MessagePart(_Part):
    type: Literal["text"]
    text: Printable


class CalledFunction(_Part):
    name: Name
    arguments: Printable
    """JSON, as the model wrote it."""


class MessageCall(_Part):
    id: Name | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class PlainMessage(_Part):
    """A turn that every chat template knows."""

    role: Literal["system", "user", "assistant"]
    content: Printable


def only_text(content: object) -> object:
    """Raises ValueError, in words that a caller knows, for what is neither a text nor a list of text parts."""
    if isinstance(content, list) and any(not isinstance(part, dict) or part.get("type") != "text" for part in content):
        raise ValueError("only text content is accepted")
    if not isinstance(content, str | list | None):
        raise ValueError("expected a text, or a list of text parts")
    return content


class Message(_Part):
    """A turn in the forms of the OpenAI API. Only an assistant's may lack content, when it calls tools or refuses."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        Printable | Annotated[list[MessagePart], Field(min_length=1, max_length=MAX_PARTS)] | None,
        BeforeValidator(only_text),
    ] = None
    name: Name | None = None
    """Of a participant; templates do not write it."""
    refusal: Text | None = None
    tool_calls: Annotated[list[MessageCall], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _said(cls, given: object) -> object:
        """Without fields that are null: clients send all that they know of."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.role != "assistant" and (self.tool_calls or self.refusal):
            raise ValueError("only an assistant calls tools or refuses")
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise ValueError("content is missing")
        return self

    def plain(self) -> PlainMessage:
        """The same turn as one text."""
        parts = [part.text for part in self.content] if isinstance(self.content, list) else [self.content or ""]
        calls = [json.dumps(call.function.model_dump(), ensure_ascii=False) for call in self.tool_calls or ()]
        said = [text for text in (*parts, self.refusal or "", *calls) if text]
        role = PLAIN.get(self.role) or self.role
        return PlainMessage.model_validate({"role": role, "content": "\n".join(said)})


def plain(messages: Sequence[Any]) -> list[dict[str, str]] | None:
    """Turns that another API has taken, as a vote would keep them. None when one of them has no plain form."""
    try:
        return [Message.model_validate(message).plain().model_dump() for message in messages]
    except ValidationError:
        return None


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
