"""Every field of vLLM's responses, a conversation in other words. Bounded as chat completions; nothing is stored."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from idiolect_server.engine.chat_request import Arguments
from idiolect_server.engine.protocol.fields import (
    TEXT_OR_LIST,
    Drawn,
    Effort,
    MaxTokens,
    Name,
    Part,
    TemplateVariables,
    Unicode,
    read_as,
)
from idiolect_server.engine.protocol.tools import MAX_TOOLS, Function, ToolName, strict, texts_in
from idiolect_server.wire.messages import MAX_MESSAGES


def _joined(content: object) -> object:
    """A text, of text parts."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content[: MAX_MESSAGES + 1]:
        if not isinstance(part, dict) or part.get("type") not in (
            "input_text",
            "output_text",
            "reasoning_text",
            "text",
        ):
            raise ValueError("only text content is accepted")
        if not isinstance(part.get("text"), str):
            raise ValueError("a part has no text")
        texts.append(part["text"])
    if len(texts) > MAX_MESSAGES:
        raise ValueError(f"at most {MAX_MESSAGES} parts")
    return "\n".join(texts)


Content = Annotated[Unicode, BeforeValidator(_joined)]


class Said(Part):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content

    @property
    def texts(self) -> list[str]:
        return [self.content]


class Call(Part):
    type: Literal["function_call"]
    call_id: Name
    name: ToolName
    arguments: Arguments

    @property
    def texts(self) -> list[str]:
        return [self.name, self.arguments]


class Result(Part):
    type: Literal["function_call_output"]
    call_id: Name
    output: Content

    @property
    def texts(self) -> list[str]:
        return [self.output]


class Thought(Part):
    type: Literal["reasoning"]
    content: Content | None = None

    @property
    def texts(self) -> list[str]:
        return [self.content or ""]

    def passed(self) -> dict[str, Any]:
        return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": self.content or ""}]}


def _kind(item: object) -> str | None:
    kind = (item.get("type") or "message") if isinstance(item, dict) else getattr(item, "type", None)
    return kind if isinstance(kind, str) else None


Item = Annotated[
    Annotated[Said, Tag("message")]
    | Annotated[Call, Tag("function_call")]
    | Annotated[Result, Tag("function_call_output")]
    | Annotated[Thought, Tag("reasoning")],
    Discriminator(
        _kind,
        custom_error_type="unknown_item",
        custom_error_message="expected a message, function_call, function_call_output or reasoning",
    ),
]


class Tool(Function):
    """As responses have it: flat."""

    type: Literal["function"]


class Choice(Part):
    type: Literal["function"]
    name: ToolName


class Reasoning(Part):
    effort: Effort | None = None


class TextFormat(Part):
    format: dict[str, Any] | None = None


class ResponseRequest(Drawn):
    """POST /v1/responses, as far as it is passed on."""

    input: Annotated[
        Annotated[Unicode, Tag("text")]
        | Annotated[list[Item], Field(min_length=1, max_length=MAX_MESSAGES), Tag("list")],
        TEXT_OR_LIST,
    ]
    instructions: Unicode | None = None
    max_output_tokens: MaxTokens | None = None
    include: Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=16)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    metadata: Annotated[dict[Name, Annotated[str, StringConstraints(max_length=512)]], Field(max_length=16)] | None = (
        None
    )
    text: TextFormat | None = None
    reasoning: Reasoning | None = None
    include_reasoning: bool | None = None
    store: bool | None = None
    """Not heeded: nothing is stored."""
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: TemplateVariables | None = None

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        names = {tool.name for tool in self.tools or ()}
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice required wants tools")
        if isinstance(self.tool_choice, Choice) and self.tool_choice.name not in names:
            raise ValueError(f"tool_choice names {self.tool_choice.name!r}, which is none of tools")
        return self

    @property
    def leaves_it_to_the_model(self) -> bool:
        """Whether to call a tool."""
        return bool(self.tools) and self.tool_choice in (None, "auto")

    @property
    def response_format(self) -> dict[str, Any] | None:
        """What `text` says of the form, as chat completions say it."""
        given = None if self.text is None else self.text.format
        if given is None or given.get("type") != "json_schema":
            return given
        return {"type": "json_schema", "json_schema": {"schema": given.get("schema")}}

    @property
    def texts(self) -> list[str]:
        said = [self.input] if isinstance(self.input, str) else [text for item in self.input for text in item.texts]
        return [
            *said,
            self.instructions or "",
            *(text for tool in self.tools or () for text in texts_in(tool.model_dump(), of_schemas=2)),
        ]

    def passed(self, **changes: Any) -> dict[str, Any]:
        """The body for vLLM."""
        body = self.dumped({"input", "text", "store", "include", *("tools", "tool_choice", "parallel_tool_calls")})
        said: Any = self.input
        if not isinstance(self.input, str):
            said = [item.passed() if isinstance(item, Thought) else item.model_dump() for item in self.input]
        if self.tools:
            must = self.tool_choice not in (None, "auto", "none")
            dumped = ({"parameters": None, "strict": None, **tool.model_dump()} for tool in self.tools)
            body["tools"] = [strict(tool, must) for tool in dumped]
            if self.tool_choice is not None:
                body["tool_choice"] = self.model_dump(include={"tool_choice"})["tool_choice"]
            if self.parallel_tool_calls is not None:
                body["parallel_tool_calls"] = self.parallel_tool_calls
        if "message.output_text.logprobs" in (self.include or ()):
            body["include"] = ["message.output_text.logprobs"]
        return {**body, "input": said, "store": False, **changes}


REFUSED: dict[str, tuple[Any, ...]] = {
    # Nothing is stored, and nothing runs without a caller.
    "background": (False,),
    "previous_response_id": (),
    "previous_input_messages": (),
    "prompt": (),
    # Whose cost others would bear.
    "priority": (0,),
    # These change what stands before the user tokens, or cut it off.
    "truncation": ("disabled",),
    # Parts of vLLM that are not set up, or are the operator's.
    "enable_response_messages": (False,),
    "watermarking": (False,),
    "session_id": (),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "mm_payload": ("tensors",),
    "return_mm_kwargs": (True,),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
    "vllm_xargs": ({},),
}
"""Fields that are refused unless they ask for nothing."""
IGNORED = {"max_tool_calls", "service_tier", "prompt_cache_key"}
"""Fields without an effect, in vLLM too."""


def read(body: Mapping[str, Any]) -> ResponseRequest:
    """A request within its bounds. Raises RequestError."""
    return read_as(ResponseRequest, body, REFUSED)
