"""Conversations as token ids, by the base model's own chat template."""

import asyncio
import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jinja2 import TemplateError

from idiolect.prompt.chat import place_text, render
from idiolect.prompt.layout import Layout
from idiolect.prompt.template import prove
from idiolect_server.errors import RequestError
from idiolect_server.prompt import Placed, UserTokens

MAX_INLINE_CHARACTERS = 2000
"""Which take about 0.7 ms. Longer texts (14 ms for 7,000 tokens) would hold up everybody else's event loop."""


class Conversations:
    """Renders and encodes. Long texts go to one other thread, with a tokenizer of its own: none serves two at once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._threads_own = copy.deepcopy(tokenizer)
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
        if len(text) <= MAX_INLINE_CHARACTERS:
            return Placed(*place_text(text, messages, layout, self._tokenizer), user_tokens)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, place_text, text, messages, layout, self._threads_own)
        return Placed(*found, user_tokens)

    async def prove(self, layout: Layout) -> None:
        """Raises ChatTemplateUnsupported when the layout's place is not safe in this chat template."""
        await asyncio.get_running_loop().run_in_executor(self._thread, prove, layout, self._threads_own)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
