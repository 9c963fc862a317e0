"""The seam between service and engine: what the service asks of an engine, in plain data. Imports no engine."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from idiolect.prompt.layout import Layout
from idiolect_server.admission import Capacity
from idiolect_server.engine.conversation import Conversations
from idiolect_server.prompt import Placed, UserTokens

DType = Literal["float32", "bfloat16", "float16"]
InjectionName = Literal["passthrough", "mixed"]


@dataclass(frozen=True)
class Adapter:
    """A bundle's LoRA as a PEFT folder, served beside the base model's weights."""

    bundle_id: str
    path: Path


@dataclass(frozen=True)
class EngineConfig:
    """What one engine serves.

    `adapter` is the first of at most `max_adapters` of one rank and the same modules; None when the model carries its
    adapter merged. `dtype` None is float32 on a CPU, and the model's own on a GPU.
    """

    model: str
    adapter: Adapter | None = None
    max_adapters: int = 1
    injection: InjectionName = "passthrough"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    dtype: DType | None = None
    tensor_parallel_size: int = 1
    """How many GPUs compute the model together."""
    gpu_memory: float | None = None
    """Share of each GPU's memory that vLLM takes; its own default if None."""
    kv_cache_dtype: str | None = None
    """vLLM's name of the type that keys and values are kept in; the model's own if None."""
    quantization: str | None = None
    """vLLM's name of a method, for weights that are quantized when they are loaded."""
    structured_outputs: bool = True
    """Whether callers may say what form a reply must have."""
    tool_call_parser: str | None = None
    """vLLM's name of how the model writes calls of tools; not read if None."""
    reasoning_parser: str | None = None
    """vLLM's name of how the model writes what it thinks; not told from the reply if None."""
    chat_template: str | None = None
    """In place of the tokenizer's own."""
    vllm_args: str = ""
    """Any other engine arguments of vLLM, as for `vllm serve`."""


@dataclass(frozen=True)
class Sampling:
    """How one reply is drawn. `temperature` 0 is greedy."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = field(default=())
    end_id: int | None = None
    """The token at which the reply ends, besides the tokenizer's eos."""
    frequency_penalty: float = 0.0


@dataclass(frozen=True)
class Chunk:
    """New text of a reply, and the counts so far. `finish_reason` is set on the last chunk."""

    text: str
    token_ids: Sequence[int]
    finish_reason: str | None
    n_prompt_tokens: int
    n_cached_tokens: int


Answer = tuple[int, dict[str, Any] | AsyncGenerator[str, None]]
"""Status, and a JSON object or the lines of an event stream."""


class ChatApi(Protocol):
    """The protocols of OpenAI and Anthropic over one engine, for one name of a model.

    `user_tokens` None is the model without them. Bodies are as callers sent them. All raise RequestError.
    """

    async def chat(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Answer:
        """The answer of /v1/chat/completions."""

    async def complete(
        self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None
    ) -> Answer:
        """That of /v1/completions."""

    async def respond(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Answer:
        """That of /v1/responses."""

    async def message(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Answer:
        """That of /v1/messages."""

    async def count(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Answer:
        """That of /v1/messages/count_tokens."""

    async def models(self) -> dict[str, Any]:
        """The answer of /v1/models."""


class Engine(Protocol):
    """A language model that batches all requests. Every method may be called from the event loop.

    `adapter` names the weights of one request; None is the model as it is.
    """

    conversations: Conversations
    max_model_len: int
    """Of prompt and reply together, in tokens."""
    vocab_size: int
    hidden_size: int
    """Of a token's embedding, and of a user token."""
    capacity: Capacity
    """What is computed at once; more waits."""

    def generate(
        self,
        placed: Placed,
        sampling: Sampling,
        request_id: str,
        *,
        adapter: Adapter | None = None,
        stream: bool = False,
    ) -> AsyncGenerator[Chunk, None]:
        """The reply as one chunk, or chunk by chunk as it is made; leaving the generator aborts it.

        Raises PromptTooLong before the first chunk, EngineDead when the engine is gone.
        """

    async def score_reply(
        self, placed: Placed, reply: str, layout: Layout, adapter: Adapter | None = None
    ) -> list[float]:
        """Log-probability of each token of `reply` and of the end of the turn after it, as the trainer takes them.

        At low priority. Raises RequestError when the reply is only the mark of an end, PromptTooLong, EngineDead,
        GenerationFailed.
        """

    async def load_adapter(self, adapter: Adapter) -> None:
        """Have an adapter's weights ready before the first request that names it."""

    async def unload_adapter(self, adapter: Adapter) -> None:
        """Give up its weights. No request may name it any more."""

    def chat_api(self, layout: Layout, model_name: str, adapter: Adapter | None) -> ChatApi:
        """The OpenAI protocol with user tokens in the layout's place."""

    async def beat(self) -> None:
        """Return when the engine has ended the step that it is in, or at once when it has nothing to do.

        However long a prompt is, its steps are short: what does not return hangs. Raises EngineDead.
        """

    @property
    def alive(self) -> bool:
        """False for good once the engine has died."""

    def close(self) -> None:
        """Stop it and free its memory."""
