"""What the protocols' requests are made of: each field within its bounds, and nothing passed that is not listed."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from idiolect.text import WRITTEN
from idiolect_server.errors import RequestError, first_place, first_problem

MAX_CHOICES = 8
TOKEN_ID = r"^\d{1,9}$"
"""As the name of a field of JSON."""
MAX_TEMPLATE_TEXT = 256
TEMPLATES_OWN = {
    *("messages", "conversation", "tools", "documents", "chat_template", "tokenize", "tokenizer_kwargs"),
    *("add_generation_prompt", "continue_final_message", "padding", "truncation", "max_length"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask"),
}
"""What rendering takes besides a template's own variables, which alone a caller may set."""


def unicode_text(text: str) -> str:
    """JSON can write half of a surrogate pair, which no encoding takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not Unicode: half of a surrogate pair") from None
    return text


def _template_variables(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        unicode_text(str(value))
        if name in TEMPLATES_OWN:
            raise ValueError(f"{name} is not a variable of the template")
        if not isinstance(value, bool | int | float | str | None) or len(str(value)) > MAX_TEMPLATE_TEXT:
            raise ValueError(f"{name[:64]}: expected a number, true, false, or at most {MAX_TEMPLATE_TEXT} characters")
    return given


def _by_token_id(given: object) -> object:
    """All keys that are none are told at once, as vLLM tells them: whoever sends one sends several."""
    wrong = [key for key in given if not re.fullmatch(TOKEN_ID, key)] if isinstance(given, dict) else []
    if wrong:
        told = ", ".join(key[:64] for key in wrong[:8])
        # What is no Unicode cannot be told as it is: half of a surrogate pair.
        raise ValueError(f"not token ids: {told.encode('utf-8', 'replace').decode()}")
    return given


Unicode = Annotated[str, AfterValidator(unicode_text), WRITTEN]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256), WRITTEN]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1024)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
MaxTokens = Annotated[int, Field(ge=1, lt=1 << 31)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
TopK = Annotated[int, Field(ge=-1, lt=1 << 31)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
CacheSalt = Annotated[str, StringConstraints(pattern=r"^[^@/\\\x00]{1,128}$")]
LogitBias = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=TOKEN_ID)],
        Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)],
    ],
    Field(max_length=1024),
    BeforeValidator(_by_token_id),
]
TemplateVariables = Annotated[dict[Name, Any], Field(max_length=16), AfterValidator(_template_variables)]
Form = TypeVar("Form", bound=BaseModel)


def text_or_list(value: object) -> str | None:
    """The tag of a field that is either, for one clear problem instead of one for each."""
    return "text" if isinstance(value, str) else "list" if isinstance(value, list) else None


TEXT_OR_LIST = Discriminator(text_or_list, custom_error_type="form", custom_error_message="expected a text, or a list")


class Part(BaseModel):
    """Strict, and without what is not listed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class StreamOptions(Part):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Drawn(Part):
    """What every protocol of OpenAI's says about how a reply is drawn."""

    model: Name | None = None
    user: str | None = None
    """The route makes of it whose tokens are put in."""
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    logit_bias: LogitBias | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    stop_token_ids: Annotated[TokenIds, Field(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    stream: bool | None = None
    structured_outputs: dict[str, Any] | None = None
    """Bounded in `structured/constraint.py`, as what other fields say of the reply's form."""
    request_id: RequestId | None = None
    cache_salt: CacheSalt | None = None

    def dumped(self, without: set[str]) -> dict[str, Any]:
        """What was given, but for what is ours to settle, and `without`."""
        ours = {"user", "response_format", "structured_outputs"}
        return self.model_dump(exclude_none=True, exclude_unset=True, exclude=ours | without)


class Sampled(Drawn):
    """What chat completions and completions share."""

    max_tokens: MaxTokens | None = None
    min_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    allowed_token_ids: Annotated[TokenIds, Field(min_length=1)] | None = None
    bad_words: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=64)]], Field(max_length=16)] | (
        None
    ) = None
    spaces_between_special_tokens: bool | None = None
    logprob_token_ids: Annotated[TokenIds, Field(max_length=20)] | None = None
    stream_options: StreamOptions | None = None
    stream_interval: Annotated[int, Field(ge=1, le=1024)] | None = None
    response_format: dict[str, Any] | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None

    @model_validator(mode="after")
    def _of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options wants stream")
        return self


def read_as(form: type[Form], body: Mapping[str, Any], refused: Mapping[str, tuple[Any, ...]]) -> Form:
    """A request within its bounds. `refused` are fields with what they may say for nothing. Raises RequestError."""
    for name, nothing in refused.items():
        value = body.get(name)
        if value is not None and not any(type(value) is type(each) and value == each for each in nothing):
            raise RequestError(f"{name} is not supported", param=name)
    try:
        return form.model_validate(body)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        raise RequestError(first_problem(problems), param=first_place(problems) or None) from None
