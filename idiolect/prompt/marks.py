"""What is said is text, also where it looks like a special token of the tokenizer, such as `<|im_end|>`.

Otherwise whoever writes a message writes turns of others. A mark in a message is cut in two before the chat template
sees it, by a character that no text has, and what stands before and behind the cut is encoded apart. Prompts without
such marks are encoded as ever.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

CUT = "\ufdd0"
"""A noncharacter, for use inside a process only (The Unicode Standard, section 23.7)."""
NAMES = ("role", "type", "id")
"""What in a message is no text."""


def as_text(text: str, tokenizer: Any) -> str:
    """The text, with a cut in each mark."""
    text = text.replace(CUT, "\ufffd")
    marks = _marks(tokenizer)
    while marks is not None and marks.search(text):  # marks may overlap
        text = marks.sub(lambda mark: mark[0][0] + CUT + mark[0][1:], text)
    return text


def said(messages: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[dict[str, Any]]:
    """The messages, with a cut in each mark that one of them holds."""
    return [
        {name: each if name in NAMES else _said(each, tokenizer) for name, each in message.items()}
        for message in messages
    ]


def has_cut(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a message, as `said` returns it, held a mark."""
    return any(CUT in str(message.get("content") or "") for message in messages)


def everywhere(value: Any, tokenizer: Any) -> Any:
    """A value of JSON, such as what a tool is, with a cut in each mark of its texts and names."""
    if isinstance(value, str):
        return as_text(value, tokenizer)
    if isinstance(value, list):
        return [everywhere(each, tokenizer) for each in value]
    if isinstance(value, Mapping):
        return {as_text(name, tokenizer): everywhere(each, tokenizer) for name, each in value.items()}
    return value


def _said(value: Any, tokenizer: Any) -> Any:
    if isinstance(value, str):
        return as_text(value, tokenizer)
    if isinstance(value, list):
        return [_said(each, tokenizer) for each in value]
    if isinstance(value, Mapping):
        return {name: each if name in NAMES else _said(each, tokenizer) for name, each in value.items()}
    return value


@lru_cache(64)
def _marks(tokenizer: Any) -> re.Pattern[str] | None:
    """Special tokens only: others that were added, such as `<think>`, are for templates to look for in what is said."""
    texts = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    longest_first = sorted((text for text in texts if len(text) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if longest_first else None
