"""Every field of vLLM's messages (Anthropic's protocol), a conversation in other words. Bounded as chat completions."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from idiolect_server.engine.chat_request import MAX_ARGUMENTS_CHARS
from idiolect_server.engine.protocol.fields import (
    TEXT_OR_LIST,
    CacheSalt,
    MaxTokens,
    Name,
    Part,
    Penalty,
    StopText,
    Temperature,
    TemplateVariables,
    TopK,
    TopP,
    Unicode,
    read_as,
)
from idiolect_server.engine.protocol.tools import MAX_TOOLS, Schema, ToolName, strict, texts_in
from idiolect_server.wire.messages import MAX_MESSAGES


class Text(Part):
    type: Literal["text"]
    text: Unicode


class Thought(Part):
    type: Literal["thinking"]
    thinking: Unicode


class Hidden(Part):
    type: Literal["redacted_thinking"]


class Use(Part):
    type: Literal["tool_use"]
    id: Name
    name: ToolName
    input: Schema = Field(default={})

    @model_validator(mode="after")
    def _short(self) -> Self:
        if len(json.dumps(self.input)) > MAX_ARGUMENTS_CHARS:
            raise ValueError(f"input: at most {MAX_ARGUMENTS_CHARS} characters")
        return self


def _texts_only(content: object) -> object:
    if isinstance(content, list) and any(not isinstance(each, dict) or each.get("type") != "text" for each in content):
        raise ValueError("only text content is accepted")
    return content


Texts = Annotated[Unicode | Annotated[list[Text], Field(max_length=MAX_MESSAGES)] | None, BeforeValidator(_texts_only)]


class Result(Part):
    type: Literal["tool_result"]
    tool_use_id: Name
    content: Texts = None
    is_error: bool | None = None


def _kind(block: object) -> str | None:
    kind = block.get("type") if isinstance(block, dict) else getattr(block, "type", None)
    return kind if isinstance(kind, str) else None


Block = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Thought, Tag("thinking")]
    | Annotated[Hidden, Tag("redacted_thinking")]
    | Annotated[Use, Tag("tool_use")]
    | Annotated[Result, Tag("tool_result")],
    Discriminator(
        _kind,
        custom_error_type="unknown_block",
        custom_error_message="expected text, thinking, tool_use or tool_result",
    ),
]


class Message(Part):
    role: Literal["user", "assistant", "system"]
    content: Annotated[
        Annotated[Unicode, Tag("text")] | Annotated[list[Block], Field(max_length=MAX_MESSAGES), Tag("list")],
        TEXT_OR_LIST,
    ]


class Tool(Part):
    name: ToolName
    description: Unicode | None = None
    input_schema: Schema
    strict: bool | None = None


class Choice(Part):
    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None


class Format(Part):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Part):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: Format | None = None


class Thinking(Part):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1024, lt=1 << 31)] | None = None


class Metadata(Part):
    user_id: Annotated[str, StringConstraints(max_length=1024)] | None = None
    """The route makes of it whose tokens are put in."""


class CountRequest(Part):
    """POST /v1/messages/count_tokens, as far as it is passed on."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: Name | None = None
    system: Texts = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    output_config: OutputConfig | None = None
    thinking: Thinking | None = None
    chat_template_kwargs: TemplateVariables | None = None

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        choice, names = self.tool_choice, {tool.name for tool in self.tools or ()}
        if choice is not None and choice.type in ("any", "tool") and not names:
            raise ValueError(f"tool_choice {choice.type} wants tools")
        if choice is not None and choice.type == "tool" and choice.name not in names:
            raise ValueError("tool_choice names none of tools")
        return self

    @property
    def leaves_it_to_the_model(self) -> bool:
        """Whether to call a tool."""
        return bool(self.tools) and (self.tool_choice is None or self.tool_choice.type == "auto")

    @property
    def response_format(self) -> dict[str, Any] | None:
        """What `output_config` says of the form, as chat completions say it."""
        asked = None if self.output_config is None else self.output_config.format
        return None if asked is None else {"type": "json_schema", "json_schema": {"schema": asked.schema_}}

    @property
    def texts(self) -> list[str]:
        said = self.model_dump(include={"messages", "system", "tools"}, by_alias=True)
        return [text for part in said.values() for text in texts_in(part, of_schemas=8)]

    def passed(self, model: str) -> dict[str, Any]:
        """The body for vLLM, which wants a model's name."""
        body = self.model_dump(exclude_unset=True, by_alias=True, exclude={"frequency_penalty", "user"})
        if not self.tools:
            body.pop("tools", None)
            body.pop("tool_choice", None)
        elif self.tool_choice is not None and self.tool_choice.type in ("any", "tool"):
            body["tools"] = [strict(tool, must=True) for tool in body["tools"]]
        return {"model": model, **{name: value for name, value in body.items() if value is not None}}


class MessageRequest(CountRequest):
    """POST /v1/messages, as far as it is passed on."""

    max_tokens: MaxTokens
    metadata: Metadata | None = None
    stop_sequences: Annotated[list[StopText], Field(max_length=4)] | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    cache_salt: CacheSalt | None = None
    frequency_penalty: Penalty | None = None
    """The bundle's: Anthropic's protocol has none."""


REFUSED: dict[str, tuple[Any, ...]] = {
    # Parts of vLLM that are not set up, or are the operator's.
    "watermarking": (False,),
    "mm_payload": ("tensors",),
    "return_mm_kwargs": (True,),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
    "vllm_xargs": ({},),
}
"""Fields that are refused unless they ask for nothing."""


def read(body: Mapping[str, Any]) -> MessageRequest:
    """A request within its bounds. Raises RequestError."""
    return read_as(MessageRequest, body, REFUSED)


def read_count(body: Mapping[str, Any]) -> CountRequest:
    """A request to count, within its bounds. Raises RequestError."""
    return read_as(CountRequest, body, REFUSED)
