"""Conversations and replies as token ids, by the base model's chat template: one rule for trainer, server and scorer.

A tokenizer is one of transformers', which this package does not import. Rendered and encoded in two steps, so that
every version of transformers gives a plain list, and a server can encode long texts elsewhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from idiolect.layout import Layout, Placement


def render(messages: Sequence[Mapping[str, str]], tokenizer: Any) -> str:
    """The text of a conversation up to where the assistant's reply begins. Raises jinja2's TemplateError."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def encode(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a rendered text, which brings its special tokens itself."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def prompt_ids(messages: Sequence[Mapping[str, str]], tokenizer: Any) -> list[int]:
    """Token ids of a conversation, ready for the reply."""
    return encode(render(messages, tokenizer), tokenizer)


def reply_ids(reply: str, tokenizer: Any) -> list[int]:
    """Token ids of a reply and of the end of the turn after it."""
    return [*encode(reply, tokenizer), end_id(tokenizer)]


def end_id(tokenizer: Any) -> int:
    """The token that ends a turn."""
    return int(tokenizer.eos_token_id)


def chat_layout(tokenizer: Any, placement: Placement) -> Layout:
    """The layout for a chat template: its anchor is what the template puts before a user's first words.

    Found by rendering one user turn after one system turn, and cutting at the user's text.
    """
    system = [{"role": "system", "content": "S"}]
    before = tokenizer.apply_chat_template(system, tokenize=False)
    both = tokenizer.apply_chat_template([*system, {"role": "user", "content": "\0"}], tokenize=False)
    opening = both.removeprefix(before).split("\0")[0]
    anchor = encode(opening, tokenizer)
    # The last token may merge with the user's text (a newline does): the ones before it identify the turn.
    if len(anchor) > 2:
        anchor = anchor[:-1]
    return Layout(placement=placement, anchor=tuple(anchor), bos_id=tokenizer.bos_token_id)
