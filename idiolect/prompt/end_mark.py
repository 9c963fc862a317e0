"""Replies that bring the mark with which the chat template ends a turn: logs of other servers often do."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jinja2 import TemplateError


def end_marks(tokenizer: Any) -> tuple[str, ...]:
    """What ends a reply in this tokenizer's words, the longest first: its end token, and what the chat template writes
    after an assistant's text, as a whole and each token of its own in it.
    """
    marks = {tokenizer.eos_token or ""}
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "\0"}]
    with suppress(TemplateError):
        _, found, after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("\0")
        if found:
            marks |= {after, *(token for token in tokenizer.get_added_vocab() if token in after)}
    return tuple(sorted({mark.strip() for mark in marks} - {""}, key=lambda mark: (-len(mark), mark)))


def bare_reply(reply: str, marks: Sequence[str]) -> str:
    """The reply as it is trained and scored: without marks at its end. Raises ValueError when nothing else is in it."""
    bare = without_mark(reply, marks)
    if not bare:
        raise ValueError("a reply is nothing but the mark of its end")
    return bare


def without_mark(reply: str, marks: Sequence[str]) -> str:
    """The reply up to the marks at its end, and to white space behind or between them; unchanged where there is none.

    >>> without_mark("yes<|im_end|>\\n", ["<|im_end|>"]), without_mark("yes\\n", ["<|im_end|>"])
    ('yes', 'yes\\n')
    """
    while True:
        bare = reply.rstrip()
        mark = next((mark for mark in marks if bare.endswith(mark)), None)
        if mark is None:
            return reply
        reply = bare.removesuffix(mark)
