"""The layout of a chat template: derived from renderings that differ in what is said, and proven on conversations."""

from collections.abc import Sequence
from typing import Any

from idiolect.errors import ChatTemplateUnsupported, LayoutError
from idiolect.prompt.chat import Messages, encode, offset, render
from idiolect.prompt.layout import Layout, Placement

SYSTEM, FIRST, ANSWER, SECOND = "Sq0s", "Uq1u", "Aq2a", "Wq3w"
"""Texts that no template writes by itself."""
OTHER = "Zq4z"


def chat_layout(
    tokenizer: Any, placement: Placement, max_reply_tokens: int | None = None, special_texts: bool = False
) -> Layout:
    """The layout for a tokenizer's chat template, proven. Raises ChatTemplateUnsupported."""
    if not getattr(tokenizer, "chat_template", None):
        raise ChatTemplateUnsupported("the tokenizer has no chat template", hint="use an instruction-tuned model")
    head, answering, between = _around(tokenizer)
    bos_id = tokenizer.bos_token_id
    if placement == "after_bos":
        end_id = _end(between, tokenizer)
        return Layout(
            placement=placement,
            bos_id=bos_id,
            end_id=end_id,
            max_reply_tokens=max_reply_tokens,
            special_texts=special_texts,
        )
    # A token that begins a text may begin each user turn, too, and is not its mark then. In ChatML it begins all turns.
    bos = tokenizer.bos_token if tokenizer.bos_token and tokenizer.bos_token not in answering else ""
    opening = _opening(head, between, _tail(tokenizer), bos, tokenizer)
    layout = Layout(
        placement=placement,
        bos_id=bos_id,
        opening=opening,
        folds_system=_folds_system(opening, tokenizer),
        end_id=_end(between[: between.rfind(opening)], tokenizer),
        max_reply_tokens=max_reply_tokens,
        special_texts=special_texts,
    )
    prove(layout, tokenizer)
    return layout


def prove(layout: Layout, tokenizer: Any) -> int:
    """Look for the place in conversations of many kinds, and compare with where another user's words change the prompt.

    How many of them the template takes. Raises ChatTemplateUnsupported when one place is wrong, or none is taken.
    """
    if layout.placement == "after_bos":
        return 0
    if layout.anchor is not None:
        return _prove_anchor(layout, tokenizer)
    n_taken = 0
    for messages in probes():
        first = next(number for number, message in enumerate(messages) if message["role"] == "user")
        others = [*messages[:first], {"role": "user", "content": OTHER}, *messages[first + 1 :]]
        text, other = _try(messages, tokenizer), _try(others, tokenizer)
        if text is None or other is None:
            continue  # such as a template that takes no system prompt
        n_taken += 1
        if problem := _problem(layout, messages[:first], text, other, messages, tokenizer):
            raise ChatTemplateUnsupported(f"user tokens have no safe place in this chat template: {problem}")
    if not n_taken:
        raise ChatTemplateUnsupported("the chat template takes none of the conversations that it was tried on")
    return n_taken


def _prove_anchor(layout: Layout, tokenizer: Any) -> int:
    """Bundles of format 1: the anchor must be where the place is by the template, as it is derived today."""
    derived, n_taken = chat_layout(tokenizer, layout.placement), 0
    for messages in probes():
        text = _try(messages, tokenizer)
        if text is None:
            continue
        n_taken += 1
        ids = encode(text, tokenizer)
        expected = offset(ids, text, messages, derived, tokenizer)
        try:
            found = layout.offset(ids)
        except LayoutError as error:
            raise ChatTemplateUnsupported(f"the bundle's layout does not fit this chat template: {error}") from error
        if found != expected:
            raise ChatTemplateUnsupported(
                f"the bundle's layout puts user tokens before token {found}, this chat template opens at {expected}",
                hint="train the bundle again",
            )
    return n_taken


def probes() -> list[list[dict[str, str]]]:
    """Conversations: with and without a system prompt, one turn and three, contents that begin and end oddly."""
    contents = ["What is rain?", "\nNew line", " space", "7 days", "🙂", "日本", "<tag>", "S", "a\n"]
    found = []
    for content in contents:
        said = {"role": "user", "content": content}
        more = [said, {"role": "assistant", "content": "Water."}, {"role": "user", "content": f"{content} And?"}]
        system = {"role": "system", "content": f"Be brief. {content}"}
        found += [[said], more, [system, said], [system, *more]]
    return found


def _problem(layout: Layout, before: Messages, text: str, other: str, messages: Messages, tokenizer: Any) -> str | None:
    """What is wrong with the place; `other` is the rendering with other words of the first user."""
    assert layout.opening is not None
    try:
        start = layout.start(text, messages)
    except LayoutError as error:
        return error.message
    words = _n_same(text, other)  # where the first user's words begin
    between = text[start + len(layout.opening) : words].strip()
    said = {str(message["content"]).strip() for message in before}
    if start > words or (between and not (layout.folds_system and any(each in between for each in said))):
        return f"{text[max(0, start - 20) : words + 20]!r} has more between {layout.opening!r} and the user's words"
    ids = encode(text, tokenizer)
    found = offset(ids, text, messages, layout, tokenizer)
    if ids[:found] != encode(text[:start], tokenizer):
        return f"a token spans the place before {layout.opening!r}"
    return None


def _around(tokenizer: Any) -> tuple[str, str, str]:
    """What the template writes before a user's first words, between them and the answer, and before the next words."""
    text = _try(
        [
            {"role": "user", "content": FIRST},
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": SECOND},
        ],
        tokenizer,
    )
    if text is None or not all(text.count(word) == 1 for word in (FIRST, ANSWER, SECOND)):
        raise ChatTemplateUnsupported("the chat template does not write a conversation of two turns as it is")
    head, rest = text.split(FIRST)
    answering, rest = rest.split(ANSWER)
    return head, answering, rest.split(SECOND)[0]


def _tail(tokenizer: Any) -> str:
    """What the template writes behind an answer at the end."""
    messages = [{"role": "user", "content": FIRST}, {"role": "assistant", "content": ANSWER}]
    text = _try(messages, tokenizer, prompts=False)
    return "" if text is None else text.partition(ANSWER)[2]


def _opening(head: str, between: str, tail: str, bos: str, tokenizer: Any) -> str:
    """What opens a user turn: the end of `head` and of `between`, without what ends the answer's turn.

    A turn's end and the next one's opening may begin alike ("<|"), so they are told apart by tokens.
    """
    ended = between[: len(tail)] if tail and between.startswith(tail) else _common_tokens(between, tail, tokenizer)
    same = between[len(between) - _n_same(head[::-1], between[::-1]) :]
    for candidate in (between[len(ended) :], same):
        opening = candidate.strip().removeprefix(bos).strip()
        at = head.rfind(opening)
        if opening and at >= 0 and not head[at + len(opening) :].strip():
            return opening
    raise ChatTemplateUnsupported(
        f"the chat template does not mark where a user speaks: {head!r} before the first words, {between!r} later",
        hint="placement: after_bos needs no such mark",
    )


def _common_tokens(between: str, tail: str, tokenizer: Any) -> str:
    ids = encode(between, tokenizer)
    n_same = _n_same(ids, encode(tail, tokenizer))
    return str(tokenizer.decode(ids[:n_same])) if n_same else ""


def _n_same(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The length of the longest common beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _folds_system(opening: str, tokenizer: Any) -> bool:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": FIRST}]
    text = _try(messages, tokenizer)
    return text is not None and 0 <= text.find(opening) < text.find(SYSTEM)


def _end(ended: str, tokenizer: Any) -> int:
    """The first special token behind an answer, else the tokenizer's eos."""
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    found = next((token for token in encode(ended, tokenizer) if token in special), tokenizer.eos_token_id)
    if found is None:
        raise ChatTemplateUnsupported("neither the chat template nor the tokenizer says what ends a reply")
    return int(found)


def _try(messages: Messages, tokenizer: Any, prompts: bool = True) -> str | None:
    """The rendering; None when the template refuses the conversation, in whatever way it does that."""
    try:
        if prompts:
            return render(messages, tokenizer)
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=False))
    except Exception:  # jinja2's TemplateError, and what a template's own expressions raise
        return None
