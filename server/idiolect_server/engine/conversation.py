"""Conversations as token ids, by the base model's own chat template."""

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from jinja2 import TemplateError

from idiolect.prompt.chat import are_equal, known_offset, offset, place_text, render, scored_ids
from idiolect.prompt.end_mark import end_marks
from idiolect.prompt.layout import Layout
from idiolect.prompt.template import prove
from idiolect_server.errors import RequestError
from idiolect_server.prompt import Placed, UserTokens

Found = TypeVar("Found")

MAX_INLINE_CHARACTERS = 2000
"""Which take about 0.7 ms. Longer texts (14 ms for 7,000 tokens) would hold up everybody else's event loop."""


class Conversations:
    """Renders and encodes. Long texts go to one other thread, with a tokenizer of its own: none serves two at once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._threads_own = copy.deepcopy(tokenizer)
        self._marks = end_marks(tokenizer)
        self._thread = ThreadPoolExecutor(1, "tokenizer")

    async def place(
        self, messages: Sequence[Mapping[str, str]], layout: Layout, user_tokens: UserTokens | None = None
    ) -> Placed:
        """A conversation, ready for the reply, with user tokens where the layout has them.

        Raises RequestError when the template refuses the conversation, LayoutError.
        """
        try:
            text = render(messages, self._tokenizer)
        except TemplateError as error:
            # Templates have rules of their own, such as that user and assistant take turns.
            raise RequestError(f"the model's chat template refuses the messages: {error}") from error
        return Placed(*await self._encode(len(text), place_text, text, messages, layout), user_tokens)

    async def offset(
        self, ids: Sequence[int], text: str | None, messages: Sequence[Mapping[str, Any]], layout: Layout
    ) -> int:
        """How many token ids of a conversation that was rendered and encoded elsewhere stand before user tokens.

        Nothing of it is encoded here, on the event loop: behind a system prompt that is known the place is, too.
        `text` None is what the ids say. Raises LayoutError.
        """
        known = None if text is None else known_offset(ids, text, messages, layout, self._threads_own)
        if known is not None:
            return known
        return await self._in_thread(_offset, ids, text, messages, layout)

    async def scored(self, reply: str, layout: Layout) -> list[int]:
        """The token ids of a reply that its margins are of. Raises RequestError when it is only the mark of an end."""
        try:
            return await self._encode(len(reply), scored_ids, reply, self._marks, layout)
        except ValueError as error:
            raise RequestError(str(error)) from error

    async def are_equal(self, one: str, other: str, layout: Layout) -> bool:
        """Whether training would see no difference between two replies. Raises RequestError as `scored` does."""
        return are_equal(one, other, self._marks, await self.scored(one, layout), await self.scored(other, layout))

    async def prove(self, layout: Layout) -> None:
        """Raises ChatTemplateUnsupported when the layout's place is not safe in this chat template."""
        await self._in_thread(prove, layout)

    async def _encode(self, n_characters: int, work: Callable[..., Found], *args: Any) -> Found:
        """`work`, whose last argument is the tokenizer, here or in the thread."""
        if n_characters <= MAX_INLINE_CHARACTERS:
            return work(*args, self._tokenizer)
        return await self._in_thread(work, *args)

    async def _in_thread(self, work: Callable[..., Found], *args: Any) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, self._threads_own))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _offset(ids: Sequence[int], text: str | None, messages: Any, layout: Layout, tokenizer: Any) -> int:
    return offset(ids, tokenizer.decode(ids) if text is None else text, messages, layout, tokenizer)
