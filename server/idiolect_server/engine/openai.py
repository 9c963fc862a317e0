"""The OpenAI protocol: vLLM's own serving layer, with user tokens put into each rendered prompt.

What vLLM does for /v1/chat/completions stays vLLM's (structured output, logprobs, streaming). Two steps are ours: a
request is read, bounded and measured before vLLM sees any of it (`chat_request.py`, `structured/`), and between
rendering and generating, the prompt gets the tokens of `user`.
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
from idiolect.prompt.marks import said
from idiolect.prompt.profile import with_profile
from idiolect.text import printable
from idiolect_server.engine import chat_request
from idiolect_server.engine.conversation import Conversations
from idiolect_server.engine.structured.constraint import Constraint, constraint
from idiolect_server.engine.structured.nursery import Nursery
from idiolect_server.errors import (
    ConstraintRefused,
    EngineDead,
    GenerationFailed,
    PromptTooLong,
    RequestError,
    UnknownModel,
    first_place,
    first_problem,
)
from idiolect_server.prompt import Placed, UserTokens

TOO_LONG = {"input_text", "input_tokens"}
"""What vLLM says is wrong with prompts that are longer than the model takes."""

FAILED = 'data: {"error"'

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
        nursery: Nursery | None,
    ) -> None:
        """Without a nursery, structured outputs are refused."""
        models = OpenAIServingModels(llm, [BaseModelPath(name=name, model_path=name)])
        renderer = OnlineRenderer(
            model_config=llm.model_config,
            renderer=llm.renderer,
            request_logger=None,
            chat_template=None,
            chat_template_content_format="string",
        )
        self._llm, self._models, self._conversations, self._nursery = llm, models, conversations, nursery
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
        """Raises RequestError, also for a body that is none of the protocol, EngineDead, GenerationFailed."""
        asked = chat_request.read(body)
        await self._conversations.measure(asked.texts)
        bound = await self._constraint(asked)
        token = _user_tokens.set(user_tokens)
        try:
            answer = await self._chat.create_chat_completion(self._request(asked, bound, profile))
        except IdiolectError:
            raise
        except EngineDeadError as error:
            raise EngineDead("the engine has stopped") from error
        except ValidationError as error:
            raise _invalid(error) from None
        except Exception as error:  # vLLM maps its own errors, and a bad request may raise any of many
            answer = create_error_response(error)
        finally:
            _user_tokens.reset(token)
        if isinstance(answer, ErrorResponse):
            raise self._error(answer, bound)
        if isinstance(answer, ChatCompletionResponse):
            return 200, answer.model_dump()
        return 200, self._events(answer, bound)

    async def _constraint(self, asked: chat_request.ChatRequest) -> Constraint | None:
        """What the reply must look like, tried. Raises ConstraintRefused."""
        bound = constraint(asked.response_format, asked.structured_outputs)
        if bound is not None:
            if self._nursery is None:
                raise ConstraintRefused("structured outputs are off", hint="IDIOLECT_STRUCTURED_OUTPUTS turns them on")
            await self._nursery.check(bound)
        return bound

    def _request(
        self, asked: chat_request.ChatRequest, bound: Constraint | None, profile: str | None
    ) -> ChatCompletionRequest:
        """vLLM's. Raises what vLLM's validators raise."""
        changes: dict[str, Any] = {"stop_token_ids": [*(asked.stop_token_ids or ()), *self._ends]}
        if bound is not None:
            changes["structured_outputs"] = {bound.kind: bound.text}
        passed = asked.passed(**changes)
        if profile is not None:
            passed["messages"] = with_profile([_flat(message) for message in passed["messages"]], profile)
        if not self._chat.layout.special_texts:
            passed["messages"] = said(passed["messages"], self._chat.renderer.tokenizer)
        return ChatCompletionRequest.model_validate(passed)

    def _error(self, answer: ErrorResponse, bound: Constraint | None) -> IdiolectError:
        """vLLM's error as ours, so that both APIs answer alike."""
        status, message = int(answer.error.code), answer.error.message
        if status >= 500 and bound is not None and self._nursery is not None:
            self._nursery.condemn(bound)
            return ConstraintRefused("the structured output is refused: it takes too long per token")
        if status >= 500:
            return GenerationFailed(f"the engine failed this request: {message}")
        if status == 404:
            return UnknownModel(message, param="model")
        param = answer.error.param
        return PromptTooLong(message[:500]) if param in TOO_LONG else RequestError(message[:500], param=param)

    async def _events(self, lines: AsyncGenerator[str, None], bound: Constraint | None) -> AsyncGenerator[str, None]:
        """vLLM's stream. Raises in our words what vLLM tells in the middle of it in words of its own."""
        async with aclosing(lines):
            async for line in lines:
                if line.startswith(FAILED):
                    if self._llm.errored:
                        raise EngineDead("the engine has stopped")
                    raise self._error(ErrorResponse.model_validate_json(line.removeprefix("data: ")), bound)
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
        ids, text = rendered["prompt_token_ids"], rendered.get("prompt") or None
        placed = Placed(*await self.conversations.whole(ids, text, conversation, self.layout), _user_tokens.get())
        if placed.n_tokens >= self.model_config.max_model_len:
            raise PromptTooLong(f"the prompt has {placed.n_tokens} tokens, more than the model takes with the reply")
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


def _invalid(error: ValidationError) -> RequestError:
    """What vLLM's own types say is wrong, without the names of these types."""
    problems = error.errors(include_input=False, include_url=False)
    return RequestError(first_problem(problems), param=first_place(problems) or None)


def _flat(message: Any) -> Any:
    """The message with text parts joined, as vLLM would join them."""
    parts = message["content"] if isinstance(message.get("content"), list) else None
    return message if parts is None else {**message, "content": "\n".join(part["text"] for part in parts)}
