"""Conversations and replies as token ids, by the base model's chat template: one rule for trainer, server and scorer.

A tokenizer is one of transformers', which this package does not import. Rendered and encoded in two steps, so that
every version of transformers gives a plain list, and a server can encode long texts elsewhere.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any
from unicodedata import normalize

from idiolect.prompt.end_mark import bare_reply, without_mark
from idiolect.prompt.layout import Layout
from idiolect.prompt.marks import CUT, as_text, said

Messages = Sequence[Mapping[str, Any]]
HEADS, HEAD_TOKENS = 256, 1 << 20
"""System prompts whose tokens are kept, and tokens of all of them together: 40 MB."""


def render(messages: Messages, tokenizer: Any) -> str:
    """The text of a conversation up to where the assistant's reply begins. Raises jinja2's TemplateError."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def encode(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a rendered text, which brings its special tokens itself. What was cut is encoded piece by piece."""
    pieces = text.split(CUT) if CUT in text else [text]
    return [token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"]]


def prompt_ids(messages: Messages, tokenizer: Any) -> list[int]:
    """Token ids of a conversation, ready for the reply. Marks in it are text."""
    return encode(render(said(messages, tokenizer), tokenizer), tokenizer)


def place(messages: Messages, layout: Layout, tokenizer: Any) -> tuple[list[int], int]:
    """Token ids of a conversation, ready for the reply, and how many of them stand before the user tokens.

    Raises jinja2's TemplateError, LayoutError.
    """
    if not layout.special_texts:
        messages = said(messages, tokenizer)
    return place_text(render(messages, tokenizer), messages, layout, tokenizer)


def place_text(text: str, messages: Messages, layout: Layout, tokenizer: Any) -> tuple[list[int], int]:
    """As `place`, of a conversation that is rendered already."""
    ids = encode(text, tokenizer)
    return ids, offset(ids, text, messages, layout, tokenizer)


def offset(ids: Sequence[int], text: str, messages: Messages, layout: Layout, tokenizer: Any) -> int:
    """How many of the token ids of a rendered conversation stand before the user tokens. Raises LayoutError."""
    known = known_offset(ids, text, messages, layout, tokenizer)
    if known is not None:
        return known
    start = layout.start(text, messages)
    head = tuple(encode(text[:start], tokenizer))
    _heads.keep((text[:start], tokenizer), head)
    if tuple(ids[: len(head)]) == head:
        return len(head)
    # A token spans the place, or the tokenizer writes the same text otherwise in context: before that token.
    piece = text[text.rfind(CUT, 0, start) + 1 :].split(CUT)[0]
    before = encode(text[: start - (at := start - text.rfind(CUT, 0, start) - 1)], tokenizer)
    found = tokenizer(piece, add_special_tokens=False).char_to_token(at)
    return len(head) if found is None else len(before) + int(found)


def known_offset(ids: Sequence[int], text: str, messages: Messages, layout: Layout, tokenizer: Any) -> int | None:
    """As `offset` where nothing has to be encoded for it: by tokens alone, or behind a head that came before.

    None where something has to.
    """
    if layout.placement == "after_bos" or not any(message["role"] == "user" for message in messages):
        return layout.at_start(ids)
    if layout.anchor is not None:
        return layout.offset(ids)
    head = _heads.get((text[: layout.start(text, messages)], tokenizer))
    return None if head is None or tuple(ids[: len(head)]) != head else len(head)


class _Heads:
    """Token ids of what stood before user tokens, by text and tokenizer: the last ones, for any thread."""

    def __init__(self) -> None:
        self._ids: OrderedDict[tuple[str, Any], tuple[int, ...]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[str, Any]) -> tuple[int, ...] | None:
        with self._lock:
            if key in self._ids:
                self._ids.move_to_end(key)
            return self._ids.get(key)

    def keep(self, key: tuple[str, Any], ids: tuple[int, ...]) -> None:
        with self._lock:
            self._ids[key] = ids
            while len(self._ids) > HEADS or sum(map(len, self._ids.values())) > HEAD_TOKENS:
                self._ids.popitem(last=False)


_heads = _Heads()


def reply_ids(reply: str, layout: Layout, tokenizer: Any) -> list[int]:
    """Token ids of a reply and of the end of the turn after it."""
    text = reply if layout.special_texts else as_text(reply, tokenizer)
    return [*encode(text, tokenizer), end_id(layout, tokenizer)]


def scored_ids(reply: str, marks: Sequence[str], layout: Layout, tokenizer: Any) -> list[int]:
    """The token ids of a reply that its margins are of: those that training would see. `marks` are its end_marks.

    Raises ValueError when the reply is nothing but such a mark.
    """
    return reply_ids(bare_reply(reply, marks), layout, tokenizer)[: layout.max_reply_tokens]


def are_equal(one: str, other: str, marks: Sequence[str], one_ids: Sequence[int], other_ids: Sequence[int]) -> bool:
    """Whether two replies, and what training would see of their tokens, leave nothing to prefer."""
    first, second = (normalize("NFC", without_mark(reply, marks)) for reply in (one, other))
    return first == second or tuple(one_ids) == tuple(other_ids)


def stop_ids(end_id: int | None, tokenizer: Any) -> list[int]:
    """What ends a reply besides the tokenizer's eos, at which an engine stops anyway."""
    return [] if end_id is None or end_id == tokenizer.eos_token_id else [end_id]


def end_id(layout: Layout, tokenizer: Any) -> int:
    """The token that ends a reply."""
    return int(tokenizer.eos_token_id) if layout.end_id is None else layout.end_id
