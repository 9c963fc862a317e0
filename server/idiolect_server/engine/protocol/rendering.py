"""Rendering, between reading a request and generating: user tokens get their place, and constraints are tried."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from vllm.renderers.online_renderer import OnlineRenderer

from idiolect.prompt.layout import Layout
from idiolect.prompt.marks import everywhere, said
from idiolect.prompt.profile import with_profile
from idiolect_server.engine.conversation import Conversations
from idiolect_server.engine.protocol.turn import current
from idiolect_server.engine.structured.constraint import KINDS, Constraint, constraint
from idiolect_server.engine.structured.nursery import Nursery
from idiolect_server.errors import ConstraintRefused, PromptTooLong, RequestError
from idiolect_server.prompt import Placed


class PersonalRenderer(OnlineRenderer):  # type: ignore[misc]
    """vLLM's renderer, whose prompts are the current turn's. All protocols come through one of its two methods."""

    conversations: Conversations
    layout: Layout
    engine_input: Callable[[Placed], Any]
    nursery: Nursery | None
    """Without one, structured outputs are refused."""
    end_ids: Sequence[int]

    async def preprocess_chat(
        self, request: Any, messages: list[Any], *args: Any, tool_dicts: list[Any] | None = None, **kwargs: Any
    ) -> Any:
        """vLLM's, of a conversation in which the user's profile is said, and marks are text. Raises RequestError."""
        turn = current.get()
        if turn.profile is not None:
            messages = with_profile([flat(message) for message in messages], turn.profile)
        if not self.layout.special_texts:
            messages = said(messages, self.renderer.tokenizer)
            tool_dicts = None if tool_dicts is None else everywhere(tool_dicts, self.renderer.tokenizer)
        tools = "" if not tool_dicts else json.dumps(tool_dicts, ensure_ascii=False)
        if self.layout.opening is not None and self.layout.opening in tools:
            raise RequestError("tools: a text holds the chat template's mark of a user turn")
        conversation, inputs = await super().preprocess_chat(request, messages, *args, tool_dicts=tool_dicts, **kwargs)
        if turn.frequency_penalty is not None and "frequency_penalty" not in request.model_fields_set:
            request.frequency_penalty = turn.frequency_penalty
        await self._settle(request)
        return conversation, [await self._place(one, conversation, tools) for one in inputs]

    async def preprocess_completion(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """vLLM's, of raw prompts: if one opens a user turn, user tokens stand there, else at the start."""
        inputs = await super().preprocess_completion(request, *args, **kwargs)
        await self._settle(request)
        return [await self._place(one, None) for one in inputs]

    async def _place(self, rendered: Any, conversation: Sequence[Mapping[str, Any]] | None, tools: str = "") -> Any:
        turn = current.get()
        ids, text = rendered["prompt_token_ids"], rendered.get("prompt") or None
        where = (
            self.conversations.raw(ids, text, self.layout)
            if conversation is None
            else self.conversations.whole(ids, text, conversation, self.layout, tools)
        )
        placed = Placed(*await where, turn.user_tokens)
        if placed.n_tokens >= self.model_config.max_model_len:
            raise PromptTooLong(f"the prompt has {placed.n_tokens} tokens, more than the model takes with the reply")
        turn.is_placed = True
        # Equal salts keep sharing; a caller's own salt still isolates what the caller wants isolated.
        salted = {"cache_salt": rendered["cache_salt"]} if rendered.get("cache_salt") else {}
        return {**self.engine_input(placed), **salted}

    async def _settle(self, request: Any) -> None:
        """Where the reply ends, and what it must look like by then: a parser may have made a constraint of tools.

        Raises ConstraintRefused, NotReady.
        """
        turn = current.get()
        request.stop_token_ids = [*(request.stop_token_ids or ()), *self.end_ids]
        turn.bound = _bound(request.extract_structured_outputs(), turn.bound)
        if turn.bound is not None:
            if self.nursery is None:
                raise ConstraintRefused("structured outputs are off", hint="IDIOLECT_STRUCTURED_OUTPUTS turns them on")
            await self.nursery.check(turn.bound)
        turn.is_tried = True


def _bound(asked: Any, known: Constraint | None) -> Constraint | None:
    """vLLM's constraint as ours; `known` if it is that one. Raises ConstraintRefused."""
    if asked is None:
        return None
    given = {one.name: getattr(asked, one.name) for one in fields(asked) if one.name in KINDS}
    given = {name: value for name, value in given.items() if value not in (None, False)}
    if known is not None and given == {known.kind: known.text}:
        return known
    return constraint(None, given) if given else None


def flat(message: Any) -> Any:
    """The message with text parts joined, as vLLM would join them."""
    parts = message["content"] if isinstance(message.get("content"), list) else None
    return message if parts is None else {**message, "content": "\n".join(part["text"] for part in parts)}
