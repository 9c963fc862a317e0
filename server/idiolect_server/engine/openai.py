"""The OpenAI protocol: vLLM's own serving layer, with user tokens put into each rendered prompt.

Everything that vLLM does for /v1/chat/completions stays vLLM's (tools, structured output, logprobs, streaming).
Two steps are ours: between rendering and generating, the prompt gets the tokens of `user`; and what could harm the
engine or bring tensors from outside is refused first.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

from pydantic import ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from idiolect.errors import IdiolectError
from idiolect.prompt.chat import stop_ids
from idiolect.prompt.layout import Layout
from idiolect.prompt.profile import with_profile
from idiolect.text import printable
from idiolect_server.engine.conversation import Conversations
from idiolect_server.errors import EngineDead, RequestError, first_problem
from idiolect_server.prompt import Placed, UserTokens

MAX_CHOICES = 8

Outputs = AsyncGenerator[RequestOutput, None]

_user_tokens: ContextVar[UserTokens | None] = ContextVar("user_tokens", default=None)
"""The user tokens of the request being rendered: vLLM's call chain has no argument for them."""


class OpenAI:
    """vLLM's OpenAI layer over one engine."""

    def __init__(
        self,
        llm: AsyncLLM,
        engine_input: Callable[[Placed], Any],
        conversations: Conversations,
        layout: Layout,
        name: str,
        lora_request: LoRARequest | None,
    ) -> None:
        models = OpenAIServingModels(llm, [BaseModelPath(name=name, model_path=llm.model_config.model)])
        renderer = OnlineRenderer(
            model_config=llm.model_config,
            renderer=llm.renderer,
            request_logger=None,
            chat_template=None,
            chat_template_content_format="string",
        )
        self._llm = llm
        self._models = models
        self._chat = _PersonalChat(
            llm,
            models,
            "assistant",
            online_renderer=renderer,
            request_logger=None,
            chat_template=None,
            chat_template_content_format="string",
            enable_prompt_tokens_details=True,
        )
        self._chat.engine_input, self._chat.layout, self._chat.lora_request = engine_input, layout, lora_request
        self._chat.conversations = conversations
        self._ends = stop_ids(layout.end_id, llm.renderer.tokenizer)

    async def chat(
        self, body: dict[str, Any], user_tokens: UserTokens, profile: str | None = None
    ) -> tuple[int, dict[str, Any] | AsyncGenerator[str, None]]:
        """Raises RequestError, also for a body that is none of the protocol."""
        request = _parse(body)
        token = _user_tokens.set(user_tokens)
        try:
            _check(request)
            if self._ends:
                request = request.model_copy(update={"stop_token_ids": [*(request.stop_token_ids or ()), *self._ends]})
            if profile is not None:
                messages = with_profile([_flat(message) for message in request.messages], profile)
                request = request.model_copy(update={"messages": messages})
            answer = await self._chat.create_chat_completion(request)
        except IdiolectError:
            raise
        except EngineDeadError as error:
            raise EngineDead("the engine has stopped") from error
        except Exception as error:  # vLLM maps its own errors, and a bad request may raise any of many
            answer = create_error_response(error)
        finally:
            _user_tokens.reset(token)
        if isinstance(answer, ErrorResponse):
            return int(answer.error.code), answer.model_dump()
        if isinstance(answer, ChatCompletionResponse):
            return 200, answer.model_dump()
        return 200, self._lines(answer)

    async def _lines(self, answer: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """vLLM's stream. Raises EngineDead where vLLM tells in words of its own that there is no engine any more."""
        async with aclosing(answer):
            async for line in answer:
                if line.startswith('data: {"error"') and self._llm.errored:
                    raise EngineDead("the engine has stopped")
                yield line

    async def models(self) -> dict[str, Any]:
        """The answer of /v1/models."""
        listing: dict[str, Any] = (await self._models.show_available_models()).model_dump()
        return listing


class _PersonalChat(OpenAIServingChat):  # type: ignore[misc]
    engine_input: Callable[[Placed], Any]
    conversations: Conversations
    layout: Layout
    lora_request: LoRARequest | None

    async def render_chat_request(self, request: ChatCompletionRequest) -> Any:
        """vLLM's rendered prompts, each with the current user's tokens in its place."""
        rendered = await super().render_chat_request(request)
        if isinstance(rendered, ErrorResponse):
            return rendered
        conversation, inputs = rendered
        return conversation, [await self._place(one, conversation) for one in inputs]

    def chat_completion_stream_generator(
        self, request: ChatCompletionRequest, result_generator: Outputs, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[str, None]:
        """vLLM's, of texts that may come back in a history."""
        texts = _printable(result_generator)
        events: AsyncGenerator[str, None] = super().chat_completion_stream_generator(request, texts, *args, **kwargs)
        return events

    async def chat_completion_full_generator(
        self, request: ChatCompletionRequest, result_generator: Outputs, *args: Any, **kwargs: Any
    ) -> Any:
        """As the stream."""
        return await super().chat_completion_full_generator(request, _printable(result_generator), *args, **kwargs)

    async def _place(self, rendered: Any, conversation: Sequence[Mapping[str, Any]]) -> Any:
        ids = rendered["prompt_token_ids"]
        offset = await self.conversations.offset(ids, rendered.get("prompt") or None, conversation, self.layout)
        placed = Placed(ids, offset, _user_tokens.get())
        # Equal salts keep sharing; a caller's own salt still isolates what the caller wants isolated.
        salted = {"cache_salt": rendered["cache_salt"]} if rendered.get("cache_salt") else {}
        return {**self.engine_input(placed), **salted}

    def _maybe_get_adapters(self, request: Any, supports_default_mm_loras: bool = False) -> Any:
        """Every request is served with the bundle's adapter, under the base model's name."""
        return self.lora_request


async def _printable(outputs: Outputs) -> Outputs:
    """What the model writes, without control characters, before vLLM makes content, reasoning and tool calls of it."""
    async with aclosing(outputs):
        async for output in outputs:
            for completion in output.outputs:
                completion.text = printable(completion.text)
            yield output


def _flat(message: Any) -> Any:
    """The message with text parts joined, as vLLM would join them."""
    parts = message["content"] if isinstance(message.get("content"), list) else None
    return message if parts is None else {**message, "content": "\n".join(part["text"] for part in parts)}


def _parse(body: dict[str, Any]) -> ChatCompletionRequest:
    try:
        return ChatCompletionRequest.model_validate(body)
    except ValidationError as error:
        raise RequestError(first_problem(error.errors())) from None


def _check(request: ChatCompletionRequest) -> None:
    for message in request.messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and any(not isinstance(p, dict) or p.get("type") != "text" for p in content):
            raise RequestError("only text content is accepted")
    if (request.n or 1) > MAX_CHOICES:
        raise RequestError(f"n may be at most {MAX_CHOICES}")
    for name in (
        "use_beam_search",
        "priority",
        "add_special_tokens",  # before the user tokens, where training had none
        "mm_processor_kwargs",
        "kv_transfer_params",
        "ec_transfer_params",
        "vllm_xargs",
        "media_io_kwargs",
    ):
        if getattr(request, name, None):
            raise RequestError(f"{name} is not supported")
    if request.truncate_prompt_tokens is not None:  # it would cut their place off
        raise RequestError("truncate_prompt_tokens is not supported")
