"""Every field of vLLM's chat completions: passed within these bounds, or refused. What stands in neither is not passed.

A test compares both with vLLM's own request, so that an upgrade brings no field that nobody has looked at.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from idiolect_server.engine.protocol.fields import (
    Effort,
    Name,
    Part,
    Sampled,
    TemplateVariables,
    Unicode,
    read_as,
    unicode_text,
)
from idiolect_server.engine.protocol.tools import WithTools
from idiolect_server.wire.messages import MAX_MESSAGES

MAX_ARGUMENTS_CHARS = 16_384


class TextPart(Part):
    type: Literal["text"]
    text: Unicode


def _only_text(content: object) -> object:
    if isinstance(content, list):
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in content):
            raise ValueError("only text content is accepted")
        if len(content) > MAX_MESSAGES:
            raise ValueError(f"at most {MAX_MESSAGES} parts")
        return [TextPart.model_validate(part) for part in content]
    if content is not None and not isinstance(content, str):
        raise ValueError("expected a text, or a list of text parts")
    return content


def _json_object(text: str) -> str:
    """Templates get what it says, not the text."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("expected the text of a JSON object")
    return text


Arguments = Annotated[
    str, StringConstraints(max_length=MAX_ARGUMENTS_CHARS), AfterValidator(unicode_text), AfterValidator(_json_object)
]
"""Of a call: the text of a JSON object."""


class CalledFunction(Part):
    name: Name
    arguments: Arguments


class ToolCall(Part):
    id: Name
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Part):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[Unicode | list[TextPart] | None, BeforeValidator(_only_text)] = None
    name: Name | None = None
    tool_call_id: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=64)] | None = None
    reasoning: Unicode | None = None
    reasoning_content: Unicode | None = None

    @property
    def texts(self) -> list[str]:
        parts = [part.text for part in self.content] if isinstance(self.content, list) else [self.content or ""]
        arguments = [call.function.arguments for call in self.tool_calls or ()]
        return [*parts, *arguments, self.reasoning or "", self.reasoning_content or ""]

    def passed(self) -> dict[str, Any]:
        """As vLLM takes it. Templates write out a content that is null as the word."""
        return {"content": "", **self.model_dump(exclude_none=True)}


class ChatRequest(Sampled, WithTools):
    """POST /v1/chat/completions, as far as it is passed on."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning_effort: Effort | None = None
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: TemplateVariables | None = None
    return_prompt_text: bool | None = None

    @property
    def texts(self) -> list[str]:
        """All that a template may write into the prompt."""
        tools = [text for tool in self.tools or () for text in tool.texts]
        return [*(text for message in self.messages for text in message.texts), *tools]

    def passed(self, **changes: Any) -> dict[str, Any]:
        """The body for vLLM, without what is ours to settle."""
        body = self.dumped({"messages", *WithTools.model_fields})
        said = [message.passed() for message in self.messages]
        return {**body, **self.tools_passed(), "messages": said, **changes}


REFUSED: dict[str, tuple[Any, ...]] = {
    # Whose cost others would bear.
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "prompt_logprobs": (),
    "priority": (0,),
    "repetition_detection": (),
    # These change what stands before the user tokens, or cut it off.
    "add_special_tokens": (False,),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "documents": (),
    "chat_template": (),
    "echo": (False,),
    # Parts of vLLM that are not set up, or are the operator's.
    "thinking_token_budget": (),
    "watermarking": (False,),
    "session_id": (),
    "routed_experts_prompt_start": (0,),
    "return_token_offsets": (False,),
    "mm_payload": ("tensors",),
    "return_mm_kwargs": (True,),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
    "vllm_xargs": ({},),
}
"""Fields that are refused unless they ask for nothing: null, or one of these values."""


def read(body: Mapping[str, Any]) -> ChatRequest:
    """A request within its bounds. Raises RequestError."""
    return read_as(ChatRequest, body, REFUSED)
