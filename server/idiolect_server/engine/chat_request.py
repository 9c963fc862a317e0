"""Every field of vLLM's chat completions: passed within these bounds, or refused. What stands in neither is not passed.

A test compares both with vLLM's own request, so that an upgrade brings no field that nobody has looked at.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from idiolect.text import WRITTEN
from idiolect_server.errors import RequestError, first_place, first_problem
from idiolect_server.messages import MAX_MESSAGES

MAX_CHOICES = 8
MAX_ARGUMENTS_CHARS = 16_384
MAX_TEMPLATE_TEXT = 256
TEMPLATES_OWN = {
    *("messages", "conversation", "tools", "documents", "chat_template", "tokenize", "tokenizer_kwargs"),
    *("add_generation_prompt", "continue_final_message", "padding", "truncation", "max_length"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask"),
}
"""What rendering takes besides a template's own variables, which alone a caller may set."""


def _unicode(text: str) -> str:
    """JSON can write half of a surrogate pair, which no encoding takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not Unicode: half of a surrogate pair") from None
    return text


Unicode = Annotated[str, AfterValidator(_unicode), WRITTEN]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256), WRITTEN]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1024)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class TextPart(_Part):
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


class _Function(_Part):
    name: Name
    arguments: Annotated[Unicode, StringConstraints(max_length=MAX_ARGUMENTS_CHARS), AfterValidator(_json_object)]


class ToolCall(_Part):
    id: Name
    type: Literal["function"] = "function"
    function: _Function


class ChatMessage(_Part):
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


def _template_variables(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        _unicode(str(value))
        if name in TEMPLATES_OWN:
            raise ValueError(f"{name} is not a variable of the template")
        if not isinstance(value, bool | int | float | str | None) or len(str(value)) > MAX_TEMPLATE_TEXT:
            raise ValueError(f"{name[:64]}: expected a number, true, false, or at most {MAX_TEMPLATE_TEXT} characters")
    return given


class _StreamOptions(_Part):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class ChatRequest(BaseModel):
    """POST /v1/chat/completions, as far as it is passed on."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: Name | None = None
    user: str | None = None
    """The route makes of it whose tokens are put in."""
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    min_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, StringConstraints(pattern=r"^\d{1,9}$")],
                Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)],
            ],
            Field(max_length=1024),
        ]
        | None
    ) = None
    allowed_token_ids: Annotated[TokenIds, Field(min_length=1)] | None = None
    bad_words: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=64)]], Field(max_length=16)] | (
        None
    ) = None
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    stop_token_ids: Annotated[TokenIds, Field(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    logprob_token_ids: Annotated[TokenIds, Field(max_length=20)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    stream_interval: Annotated[int, Field(ge=1, le=1024)] | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    """Both bounded in `structured/constraint.py`."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    include_reasoning: bool | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: (
        Annotated[dict[Name, Any], Field(max_length=16), AfterValidator(_template_variables)] | None
    ) = None
    request_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    return_prompt_text: bool | None = None
    cache_salt: Annotated[str, StringConstraints(pattern=r"^[^@/\\\x00]{1,128}$")] | None = None

    @property
    def texts(self) -> list[str]:
        """All that a template may write into the prompt."""
        return [text for message in self.messages for text in message.texts]

    def passed(self, **changes: Any) -> dict[str, Any]:
        """The body for vLLM, without what is ours to settle."""
        ours = {"messages", "user", "response_format", "structured_outputs"}
        body = self.model_dump(exclude_none=True, exclude_unset=True, exclude=ours)
        return {**body, "messages": [message.passed() for message in self.messages], **changes}


REFUSED: dict[str, tuple[Any, ...]] = {
    # Tools: no parser of their calls is set up.
    "tools": (),
    "tool_choice": ("none",),
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
    for name, nothing in REFUSED.items():
        value = body.get(name)
        if value is not None and not any(type(value) is type(each) and value == each for each in nothing):
            raise RequestError(f"{name} is not supported", param=name)
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        raise RequestError(first_problem(problems), param=first_place(problems) or None) from None
