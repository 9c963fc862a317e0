"""vLLM's serving classes over one engine, one for each protocol, set up as `vllm serve` sets them up."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

from idiolect_server.engine.base import EngineConfig
from idiolect_server.engine.protocol.json_calls import NO_PARSER
from idiolect_server.engine.protocol.rendering import PersonalRenderer
from idiolect_server.engine.protocol.replying import ReplyingEngine
from idiolect_server.errors import SettingsError


class Layer:
    """Each method takes the body of a request as vLLM takes it. An answer is vLLM's object, or the lines of a stream.

    They raise what vLLM raises.
    """

    def __init__(self, engine: ReplyingEngine, renderer: PersonalRenderer, name: str, config: EngineConfig) -> None:
        """Raises SettingsError when a parser does not fit the model."""
        self.name = name
        self.served = OpenAIServingModels(engine, [BaseModelPath(name=name, model_path=name)])
        counted = {"request_logger": None, "enable_prompt_tokens_details": True}
        chat = {"online_renderer": renderer, **counted, **parsers(config), **template(config)}
        with_role = (engine, self.served, "assistant")
        try:
            self._chat = OpenAIServingChat(*with_role, **chat)
            self._messages = AnthropicServingMessages(*with_role, **chat, disabled_thinking_effort="none")
            self._responses = OpenAIServingResponses(engine, self.served, **chat)
            self._completions = OpenAIServingCompletion(engine, self.served, online_renderer=renderer, **counted)
        except TypeError as error:  # for a parser that wants other tokens than there are
            raise SettingsError(f"IDIOLECT_TOOL_CALL_PARSER or IDIOLECT_REASONING_PARSER: {error}") from error

    async def chat(self, body: dict[str, Any]) -> Any:
        return await self._chat.create_chat_completion(ChatCompletionRequest.model_validate(body))

    async def complete(self, body: dict[str, Any]) -> Any:
        return await self._completions.create_completion(CompletionRequest.model_validate(body))

    async def respond(self, body: dict[str, Any]) -> Any:
        answer = await self._responses.create_responses(ResponsesRequest.model_validate(body))
        return _named(answer) if isinstance(answer, AsyncGenerator) else answer

    async def message(self, body: dict[str, Any]) -> Any:
        return await self._messages.create_messages(AnthropicMessagesRequest.model_validate(body))

    async def count(self, body: dict[str, Any]) -> Any:
        return await self._messages.count_tokens(AnthropicCountTokensRequest.model_validate(body))


def parsers(config: EngineConfig) -> dict[str, Any]:
    """How vLLM reads calls and reasoning out of what the model writes."""
    return {
        "enable_auto_tools": True,
        "tool_parser": config.tool_call_parser or NO_PARSER,
        "reasoning_parser": config.reasoning_parser or "",
    }


def template(config: EngineConfig) -> dict[str, Any]:
    """How vLLM renders conversations."""
    return {"chat_template": config.chat_template, "chat_template_content_format": "string"}


async def _named(events: AsyncGenerator[Any, None]) -> AsyncGenerator[str, None]:
    """The events of a response, which vLLM streams as objects."""
    async with aclosing(events):
        async for event in events:
            yield f"event: {event.type}\ndata: {event.model_dump_json(by_alias=True)}\n\n"
