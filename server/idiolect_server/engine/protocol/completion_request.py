"""Every field of vLLM's completions: raw prompts, which no chat template sees. Bounded as chat completions are."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from idiolect_server.engine.protocol.fields import MAX_CHOICES, Sampled, Unicode, read_as

MAX_LOGPROBS = 20
Ids = list[Annotated[int, Field(ge=0)]]


def _kind(prompt: object) -> str | None:
    if isinstance(prompt, str):
        return "text"
    first = prompt[0] if isinstance(prompt, list) and prompt else None
    return {str: "texts", int: "ids", list: "lists of ids"}.get(type(first))


class CompletionRequest(Sampled):
    """POST /v1/completions, as far as it is passed on."""

    prompt: Annotated[
        Annotated[Unicode, Tag("text")]
        | Annotated[list[Unicode], Field(max_length=MAX_CHOICES), Tag("texts")]
        | Annotated[Ids, Tag("ids")]
        | Annotated[list[Annotated[Ids, Field(min_length=1)]], Field(max_length=MAX_CHOICES), Tag("lists of ids")],
        Discriminator(_kind, custom_error_type="form", custom_error_message="expected texts, or token ids"),
    ]
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    add_special_tokens: bool | None = None

    @model_validator(mode="after")
    def _few(self) -> Self:
        if self.n_prompts * (self.n or 1) > MAX_CHOICES:
            raise ValueError(f"prompts times n may be at most {MAX_CHOICES}")
        return self

    @property
    def n_prompts(self) -> int:
        """How many prompts it has."""
        prompt = self.prompt
        return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1

    @property
    def texts(self) -> list[str]:
        return [
            each for each in ([self.prompt] if isinstance(self.prompt, str) else self.prompt) if isinstance(each, str)
        ]

    @property
    def n_ids(self) -> int:
        """Token ids of the longest prompt that is given so."""
        if isinstance(self.prompt, str):
            return 0
        if isinstance(self.prompt[0], int):
            return len(self.prompt)
        return max((len(each) for each in self.prompt if isinstance(each, list)), default=0)

    def passed(self, **changes: Any) -> dict[str, Any]:
        """The body for vLLM."""
        return {**self.dumped(set()), **changes}


REFUSED: dict[str, tuple[Any, ...]] = {
    # Whose cost others would bear.
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "prompt_logprobs": (),
    "priority": (0,),
    "repetition_detection": (),
    # These show the place of the user tokens, or change what stands before it.
    "echo": (False,),
    "suffix": ("",),
    "prompt_embeds": (),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    # Parts of vLLM that are not set up, or are the operator's.
    "thinking_token_budget": (),
    "watermarking": (False,),
    "session_id": (),
    "routed_experts_prompt_start": (0,),
    "return_token_offsets": (False,),
    "mm_payload": ("tensors",),
    "return_mm_kwargs": (True,),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
    "vllm_xargs": ({},),
}
"""Fields that are refused unless they ask for nothing."""


def read(body: Mapping[str, Any]) -> CompletionRequest:
    """A request within its bounds. Raises RequestError."""
    return read_as(CompletionRequest, body, REFUSED)
