"""Conversations as token ids, by the base model's own chat template."""

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from jinja2 import TemplateError

from idiolect.errors import LayoutError
from idiolect.prompt.chat import are_equal, known_offset, offset, place, place_text, scored_ids
from idiolect.prompt.end_mark import end_marks
from idiolect.prompt.layout import Layout
from idiolect.prompt.marks import CUT, has_cut
from idiolect.prompt.template import prove
from idiolect_server.engine.length import Ruler
from idiolect_server.errors import RequestError
from idiolect_server.prompt import Placed, UserTokens

Found = TypeVar("Found")

MAX_INLINE_CHARACTERS = 2000
"""Which take about 0.7 ms. Longer texts (14 ms for 7,000 tokens) would hold up everybody else's event loop."""
MAX_SHORT_CHARACTERS = 20_000
"""Which take about 8 ms. Longer ones have a thread of their own, so that these need not wait for them."""


class Conversations:
    """Renders and encodes. Texts that are not short go to two other threads: the long ones to one, the rest to one.

    Each has a tokenizer of its own: none serves two at once.
    """

    def __init__(self, tokenizer: Any, max_model_len: int) -> None:
        self._tokenizer, self.max_model_len = tokenizer, max_model_len
        self._ruler = Ruler(tokenizer, max_model_len)
        self._marks = end_marks(tokenizer)
        self._short, self._long = (_Lane(tokenizer, name) for name in ("tokenizer", "tokenizer-long"))

    async def place(
        self, messages: Sequence[Mapping[str, str]], layout: Layout, user_tokens: UserTokens | None = None
    ) -> Placed:
        """A conversation, ready for the reply, with user tokens where the layout has them.

        Raises RequestError when the template refuses the conversation, PromptTooLong, LayoutError.
        """
        contents = [message["content"] for message in messages]
        await self.measure(contents)
        n_characters = sum(map(len, contents))
        try:
            found = await self._where(n_characters, place, messages, layout)
        except TemplateError as error:
            # Templates have rules of their own, such as that user and assistant take turns.
            raise RequestError(f"the model's chat template refuses the messages: {error}") from error
        return Placed(*found, user_tokens)

    async def whole(
        self,
        ids: Sequence[int],
        text: str | None,
        messages: Sequence[Mapping[str, Any]],
        layout: Layout,
        tools: str = "",
    ) -> tuple[Sequence[int], int]:
        """Token ids of a conversation that was rendered and encoded elsewhere, and how many stand before user tokens.

        The ids are the given ones, unless marks in the messages, or in `tools`, were cut. `text` None is what the ids
        say. Raises LayoutError.
        """
        if not has_cut(messages) and CUT not in tools:
            return ids, await self.offset(ids, text, messages, layout)
        return await self._lane(len(ids) if text is None else len(text)).do(_cut, ids, text, messages, layout)

    async def offset(
        self, ids: Sequence[int], text: str | None, messages: Sequence[Mapping[str, Any]], layout: Layout
    ) -> int:
        """How many token ids of a conversation that was rendered and encoded elsewhere stand before user tokens.

        Nothing of it is encoded here, on the event loop: behind a system prompt that is known the place is, too.
        `text` None is what the ids say. Raises LayoutError.
        """
        lane = self._lane(len(ids) if text is None else len(text))
        known = None if text is None else known_offset(ids, text, messages, layout, lane.tokenizer)
        return await lane.do(_offset, ids, text, messages, layout) if known is None else known

    async def raw(self, ids: Sequence[int], text: str | None, layout: Layout) -> tuple[Sequence[int], int]:
        """As `whole`, of a prompt that no template wrote: before what opens its first user turn, else at its start."""
        lane = self._lane(len(ids) if text is None else len(text))
        return ids, await lane.do(_raw_offset, ids, text, layout)

    async def encode(self, text: str, special: bool) -> list[int]:
        """Token ids of a text; `special` adds those that the tokenizer begins and ends a text with."""
        await self.measure([text])
        return await self._where(len(text), _encode, text, special)

    async def decode(self, ids: Sequence[int]) -> str:
        """What token ids of the vocabulary say, special tokens too."""
        return await self._where(len(ids), _decode, ids)

    async def names(self, ids: Sequence[int]) -> list[str]:
        """Of token ids, as the vocabulary has them."""
        return await self._where(len(ids), _names, ids)

    async def scored(self, reply: str, layout: Layout) -> list[int]:
        """The token ids of a reply that its margins are of. Raises RequestError when it is only the mark of an end."""
        try:
            return await self._where(len(reply), scored_ids, reply, self._marks, layout)
        except ValueError as error:
            raise RequestError(str(error)) from error

    async def are_equal(self, one: str, other: str, layout: Layout) -> bool:
        """Whether training would see no difference between two replies. Raises RequestError as `scored` does."""
        return are_equal(one, other, self._marks, await self.scored(one, layout), await self.scored(other, layout))

    def check(self, *texts: str) -> None:
        """By characters alone, at no cost. Raises PromptTooLong for texts that cannot fit together."""
        self._ruler.check(texts)

    async def measure(self, texts: Sequence[str]) -> None:
        """Before anything else is done with them. Raises PromptTooLong for texts that cannot fit together."""
        self._ruler.check(texts)
        if self._ruler.needs_measuring(texts):
            await self._long.do(self._ruler.measure, texts)

    async def _where(self, n_characters: int, work: Callable[..., Found], *args: Any) -> Found:
        """`work`, whose last argument is a tokenizer: here, or where texts of that length go."""
        if n_characters <= MAX_INLINE_CHARACTERS:
            return work(*args, self._tokenizer)
        return await self._lane(n_characters).do(work, *args)

    def _lane(self, n_characters: int) -> "_Lane":
        return self._short if n_characters <= MAX_SHORT_CHARACTERS else self._long

    async def prove(self, layout: Layout) -> None:
        """Raises ChatTemplateUnsupported when the layout's place is not safe in this chat template."""
        await self._long.do(prove, layout)

    def close(self) -> None:
        for lane in (self._short, self._long):
            lane.close()


class _Lane:
    """A thread with a tokenizer, one piece of work after the other."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer = copy.deepcopy(tokenizer)
        self._thread = ThreadPoolExecutor(1, name)

    async def do(self, work: Callable[..., Found], *args: Any) -> Found:
        """`work`, with the tokenizer behind its arguments."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, self.tokenizer))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _cut(
    ids: Sequence[int], text: str | None, messages: Any, layout: Layout, tokenizer: Any
) -> tuple[Sequence[int], int]:
    """Raises LayoutError when the cuts are not in the text: what is said would be taken for the template's."""
    text = tokenizer.decode(ids) if text is None else text
    if CUT not in text and not has_cut(messages):  # a tool's, which this template does not write out
        return ids, offset(ids, text, messages, layout, tokenizer)
    if CUT not in text:
        raise LayoutError("a message holds marks of the chat template, which this tokenizer cannot tell from text")
    return place_text(text, messages, layout, tokenizer)


def _offset(ids: Sequence[int], text: str | None, messages: Any, layout: Layout, tokenizer: Any) -> int:
    return offset(ids, tokenizer.decode(ids) if text is None else text, messages, layout, tokenizer)


def _raw_offset(ids: Sequence[int], text: str | None, layout: Layout, tokenizer: Any) -> int:
    text = tokenizer.decode(ids) if text is None else text
    opens = layout.opening is not None and layout.opening in text
    return offset(ids, text, [{"role": "user"}] if opens else [], layout, tokenizer)


def _encode(text: str, special: bool, tokenizer: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def _decode(ids: Sequence[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(list(ids)))


def _names(ids: Sequence[int], tokenizer: Any) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(list(ids)))
