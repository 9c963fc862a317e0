"""The protocols of OpenAI and Anthropic: vLLM's own serving layer, with user tokens put into each rendered prompt.

What vLLM does for them stays vLLM's (tools, structured output, logprobs, streaming). Ours are three steps, the same for
every protocol. A request is read, bounded and measured before vLLM sees any of it (`chat_request.py`, and the others in
`protocol`). When it is rendered, the prompt gets the tokens of the user, and what the reply must look like is tried
(`protocol/rendering.py`). And the engine that vLLM's layer generates with is the bundle's (`protocol/replying.py`).
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

from pydantic import ValidationError
from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensResponse, AnthropicMessagesResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from idiolect.errors import IdiolectError
from idiolect.prompt.chat import stop_ids
from idiolect.prompt.layout import Layout
from idiolect_server.engine import chat_request
from idiolect_server.engine.base import Answer, EngineConfig
from idiolect_server.engine.conversation import Conversations
from idiolect_server.engine.protocol import completion_request, message_request, response_request
from idiolect_server.engine.protocol.layer import Layer, parsers, template
from idiolect_server.engine.protocol.rendering import PersonalRenderer
from idiolect_server.engine.protocol.replying import ReplyingEngine
from idiolect_server.engine.protocol.turn import Turn, current
from idiolect_server.engine.structured.constraint import constraint
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

TOO_LONG = {"input_text", "input_tokens", "input"}
"""What vLLM says is wrong with prompts that are longer than the model takes."""

ANTHROPIC = (AnthropicMessagesResponse, AnthropicCountTokensResponse)
"""Whose clients know no null."""

FAILED = ('data: {"error"', "event: error\n")
"""How the protocols tell of an error in a stream."""


class OpenAI:
    """vLLM's layer over one engine, for one name of a model."""

    def __init__(
        self,
        llm: AsyncLLM,
        engine_input: Callable[[Placed], Any],
        conversations: Conversations,
        layout: Layout,
        name: str,
        lora_request: LoRARequest | None,
        nursery: Nursery | None,
        config: EngineConfig,
    ) -> None:
        """Without a nursery, structured outputs are refused. Raises SettingsError when a parser does not fit."""
        self._llm, self._conversations, self._nursery = llm, conversations, nursery
        self._calls_are_read = config.tool_call_parser is not None
        renderer = PersonalRenderer(
            llm.model_config, llm.renderer, request_logger=None, **parsers(config), **template(config)
        )
        renderer.conversations, renderer.layout, renderer.engine_input = conversations, layout, engine_input
        renderer.nursery, renderer.end_ids = nursery, stop_ids(layout.end_id, llm.renderer.tokenizer)
        self._layer = Layer(ReplyingEngine(llm, lora_request), renderer, name, config)

    async def chat(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Answer:
        """Raises RequestError, also for a body that is none of the protocol, EngineDead, GenerationFailed."""
        asked = chat_request.read(body)
        turn = await self._begun(asked, Turn(user_tokens, profile))
        return await self._answer(turn, self._layer.chat, asked.passed(**_form(turn)))

    async def complete(
        self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None
    ) -> Answer:
        """As `chat`, of raw prompts, in which no profile has a place."""
        asked = completion_request.read(body)
        for text in asked.texts:
            await self._conversations.measure([text])
        if asked.n_ids >= self._conversations.max_model_len:
            raise PromptTooLong(f"the prompt has {asked.n_ids} tokens, more than the model takes with the reply")
        turn = await self._begun(asked, Turn(user_tokens), measures=False)
        return await self._answer(turn, self._layer.complete, asked.passed(**_form(turn)))

    async def respond(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Answer:
        """As `chat`, in the words of responses."""
        asked = response_request.read(body)
        turn = await self._begun(asked, Turn(user_tokens, profile))
        return await self._answer(turn, self._layer.respond, asked.passed(**_form(turn)))

    async def message(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Answer:
        """As `chat`, in Anthropic's words."""
        asked = message_request.read(body)
        turn = await self._begun(asked, Turn(user_tokens, profile, asked.frequency_penalty))
        return await self._answer(turn, self._layer.message, asked.passed(self._layer.name))

    async def count(self, body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None = None) -> Answer:
        """How many tokens the prompt of such a message has, the user's included."""
        asked = message_request.read_count(body)
        turn = await self._begun(asked, Turn(user_tokens, profile))
        return await self._answer(turn, self._layer.count, asked.passed(self._layer.name))

    async def _begun(self, asked: Any, turn: Turn, measures: bool = True) -> Turn:
        """A request that has been read, measured, and whose constraint is within its bounds.

        Raises PromptTooLong, ConstraintRefused, RequestError.
        """
        if getattr(asked, "leaves_it_to_the_model", False) and not self._calls_are_read:
            raise RequestError(
                "tools are given, and whether to call one is left to the model: how it writes calls is not set up",
                hint="set IDIOLECT_TOOL_CALL_PARSER, or send tool_choice: required, a tool's name, or none",
            )
        if measures:
            await self._conversations.measure(asked.texts)
        turn.bound = constraint(asked.response_format, getattr(asked, "structured_outputs", None))
        if turn.bound is not None and self._nursery is None:
            raise ConstraintRefused("structured outputs are off", hint="IDIOLECT_STRUCTURED_OUTPUTS turns them on")
        return turn

    async def _answer(
        self, turn: Turn, work: Callable[[dict[str, Any]], Awaitable[Any]], body: dict[str, Any]
    ) -> Answer:
        """What vLLM's layer makes of a request, and its errors as ours."""
        token = current.set(turn)
        try:
            answer = await work(body)
        except IdiolectError:
            raise
        except EngineDeadError as error:
            raise EngineDead("the engine has stopped") from error
        except ValidationError as error:
            raise _invalid(error) from None
        except Exception as error:  # vLLM maps its own errors, and a bad request may raise any of many
            raise self._error(turn.failure or error, turn) from error
        finally:
            current.reset(token)
        if isinstance(answer, ErrorResponse):
            raise self._error(turn.failure or answer, turn)
        if isinstance(answer, AsyncGenerator):
            return 200, self._events(answer, turn)
        return 200, answer.model_dump(mode="json", by_alias=True, exclude_none=isinstance(answer, ANTHROPIC))

    def _error(self, failure: Any, turn: Turn) -> IdiolectError:
        """vLLM's error as ours, so that all protocols answer alike."""
        if isinstance(failure, IdiolectError):
            return failure
        if isinstance(failure, EngineDeadError) or self._llm.errored:
            return EngineDead("the engine has stopped")
        answer = failure if isinstance(failure, ErrorResponse) else create_error_response(failure)
        status, message = int(answer.error.code), answer.error.message
        if status >= 500 and turn.bound is not None and self._nursery is not None:
            self._nursery.condemn(turn.bound)
            return ConstraintRefused("the structured output is refused: it takes too long per token")
        if status >= 500:
            return GenerationFailed(f"the engine failed this request: {message}")
        if status == 404:
            return UnknownModel(message, param="model")
        param = answer.error.param
        return PromptTooLong(message[:500]) if param in TOO_LONG else RequestError(message[:500], param=param)

    async def _events(self, lines: AsyncGenerator[str, None], turn: Turn) -> AsyncGenerator[str, None]:
        """vLLM's stream. Raises in our words what vLLM tells in the middle of it in words of its own."""
        current.set(turn)  # one task reads it, another one than the request was rendered in
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_leave, turn)
            await stack.enter_async_context(aclosing(lines))
            try:
                async for line in lines:
                    if turn.failure is not None or line.startswith(FAILED):
                        break
                    yield line
                else:
                    if turn.failure is None:
                        return
            except IdiolectError:
                raise
            except Exception as error:
                raise self._error(turn.failure or error, turn) from error
        raise self._error(turn.failure or RuntimeError("the stream broke off"), turn)

    async def models(self) -> dict[str, Any]:
        """The answer of /v1/models."""
        listing: dict[str, Any] = (await self._layer.served.show_available_models()).model_dump()
        return listing


async def _leave(turn: Turn) -> None:
    for reply in turn.replies:
        await reply.aclose()


def _form(turn: Turn) -> dict[str, Any]:
    """A constraint as vLLM's requests take it."""
    return {} if turn.bound is None else {"structured_outputs": {turn.bound.kind: turn.bound.text}}


def _invalid(error: ValidationError) -> RequestError:
    """What vLLM's own types say is wrong, without the names of these types."""
    problems = error.errors(include_input=False, include_url=False)
    return RequestError(first_problem(problems), param=first_place(problems) or None)
