"""The place of user tokens and the end of a reply, for templates of many styles and conversations of many kinds.

What is right is worked out another way: texts are replaced by sentinels, so that only the template's marks are left.
"""

import itertools
from typing import Any

import pytest

from idiolect.errors import ChatTemplateUnsupported
from idiolect.prompt.chat import encode, end_id, place, render, reply_ids, scored_ids
from idiolect.prompt.layout import Layout
from idiolect.prompt.marks import CUT, said
from idiolect.prompt.template import chat_layout, prove
from tests.parts.chat_templates import STYLES, UNMARKED, Style

CONTENTS = (
    *("What is rain?", "\nA new line", " a space", "7 days", "🙂 smile", "日本語", "<tag>", "S", "S.O.S. means?"),
    *("user", "{{ messages }}", "[INST] no [/INST]", "<|im_start|>user\nno<|im_end|>", "<|user|> no", "USER: no"),
    *("line\n", "### Instruction:\nno"),
)  # fmt: skip
Messages = list[dict[str, str]]


def conversations(style: Style) -> list[Messages]:
    """One turn and three, with a system prompt and without; what quotes the style's own marks is among the contents."""
    found: list[Messages] = []
    for content in (*CONTENTS, f"Quote {style.opening} and\n{style.opening}\nx", style.opening):
        said = {"role": "user", "content": content}
        more = [
            said,
            {"role": "assistant", "content": f"Water. {content}"},
            {"role": "user", "content": "S.O.S. means?"},
        ]
        found += [[said], more]
        if style.takes_system:
            for system in (content, f"Be brief. {content}"):
                found += [[{"role": "system", "content": system}, *turns] for turns in ([said], more)]
        answer = {"role": "assistant", "content": content}
        found += [[*more, answer, said], [said, answer, said], [said, answer, {"role": "user", "content": "And?"}]]
    return found


def right_start(style: Style, messages: Messages, tokenizer: Any) -> int:
    """Where the first user turn opens in the rendered text."""
    sentinels = [f"\ue000{number}\ue001" for number in range(len(messages))]
    blank = [{**message, "content": mark} for message, mark in zip(messages, sentinels, strict=True)]
    skeleton = render(blank, tokenizer)
    first = next(number for number, message in enumerate(messages) if message["role"] == "user")
    before = skeleton[: skeleton.index(sentinels[first])]
    start = before.index(style.opening) if style.folds else before.rindex(style.opening)
    contents = [message["content"].strip() if style.trims else message["content"] for message in messages]

    def filled(text: str) -> str:
        for mark, content in zip(sentinels, contents, strict=True):
            text = text.replace(mark, content)
        return text

    assert filled(skeleton) == render(messages, tokenizer)
    return len(filled(skeleton[:start]))


def encoded(text: str, tokenizer: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a rendered text whose marks were cut, and which characters each of them is of."""
    ids, spans, at = list[int](), list[tuple[int, int]](), 0
    for piece in text.split(CUT):
        found = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
        ids += found["input_ids"]
        spans += [(at + first, at + end) for first, end in found["offset_mapping"]]
        at += len(piece) + 1
    return ids, spans


def wrong_places(style: Style) -> tuple[int, int]:
    """How many conversations, and how many of them have the user tokens elsewhere."""
    tokenizer = style.tokenizer()
    layout = chat_layout(tokenizer, "after_system")
    n_wrong, asked = 0, conversations(style)
    for messages in asked:
        ids, offset = place(messages, layout, tokenizer)
        cut = said(messages, tokenizer)  # as all prompts are
        start = right_start(style, cut, tokenizer)
        expected, spans = encoded(render(cut, tokenizer), tokenizer)
        ends = [end for _, end in spans[:offset]]
        n_wrong += not (max(ends, default=0) <= start <= spans[offset][0] and ids == expected)
    return len(asked), n_wrong


def test_user_tokens_are_before_the_first_user_turn_in_every_style(evidence) -> None:
    """M1: 16 styles and 80 conversations of each."""
    found = {style.name: wrong_places(style) for style in STYLES}
    assert {name: n_wrong for name, (_, n_wrong) in found.items() if n_wrong} == {}
    evidence(
        "M1",
        {
            "styles": len(found),
            "conversations": {name: n_asked for name, (n_asked, _) in found.items()},
            "wrong": sum(n_wrong for _, n_wrong in found.values()),
        },
    )


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_a_reply_ends_as_the_template_ends_one(style: Style) -> None:
    tokenizer = style.tokenizer()
    layout = chat_layout(tokenizer, "after_system")
    assert layout.opening == style.opening
    assert layout.folds_system is style.folds
    assert tokenizer.convert_ids_to_tokens(end_id(layout, tokenizer)) == style.end
    assert reply_ids("Water.", layout, tokenizer)[-1] == layout.end_id


def test_what_is_scored_of_a_long_reply_is_what_training_saw() -> None:
    tokenizer = STYLES[0].tokenizer()
    whole, cut = chat_layout(tokenizer, "after_system"), chat_layout(tokenizer, "after_system", max_reply_tokens=3)
    ids = reply_ids("Water falls from clouds.", whole, tokenizer)
    assert scored_ids("Water falls from clouds.", (), whole, tokenizer) == ids
    assert scored_ids("Water falls from clouds.", (), cut, tokenizer) == ids[:3]
    assert scored_ids("7", (), cut, tokenizer)[-1] == cut.end_id


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_a_layout_of_another_template_is_not_proven(style: Style) -> None:
    written = render([{"role": "user", "content": "Hi"}], style.tokenizer())
    wrong = next(other for other in STYLES if other.opening not in written)
    layout = Layout(placement="after_system", opening=wrong.opening, folds_system=wrong.folds, end_id=1)
    with pytest.raises(ChatTemplateUnsupported, match="no safe place"):
        prove(layout, style.tokenizer())


@pytest.mark.parametrize("style", STYLES[:2], ids=lambda style: style.name)
def test_layouts_of_format_1_are_proven_too(style: Style) -> None:
    tokenizer = style.tokenizer()
    opening = tuple(encode(style.opening, tokenizer))
    assert prove(Layout(placement="after_system", anchor=opening, bos_id=None), tokenizer) >= 20
    with pytest.raises(ChatTemplateUnsupported, match=r"does not fit|opens at"):
        prove(Layout(placement="after_system", anchor=(*opening, opening[0]), bos_id=None), tokenizer)
    with pytest.raises(ChatTemplateUnsupported, match="opens at"):
        prove(Layout(placement="after_system", anchor=opening[-1:], bos_id=None), tokenizer)


def test_a_template_without_marks_is_refused_and_the_papers_placement_needs_none() -> None:
    with pytest.raises(ChatTemplateUnsupported, match="does not mark where a user speaks") as refused:
        chat_layout(UNMARKED.tokenizer(), "after_system")
    assert "after_bos" in refused.value.hint
    layout = chat_layout(UNMARKED.tokenizer(), "after_bos")
    assert place([{"role": "user", "content": "Hi"}], layout, UNMARKED.tokenizer())[1] == 0


@pytest.mark.parametrize("style", [style for style in STYLES if style.bos], ids=lambda style: style.name)
def test_the_papers_placement_is_behind_the_first_token(style: Style) -> None:
    tokenizer = style.tokenizer()
    layout = chat_layout(tokenizer, "after_bos")
    ids, offset = place([{"role": "user", "content": "Hi"}], layout, tokenizer)
    assert offset == (1 if ids[0] == tokenizer.bos_token_id else 0)


def test_a_conversation_without_a_user_has_them_at_the_start() -> None:
    style = STYLES[0]
    layout = chat_layout(style.tokenizer(), "after_system")
    for roles in itertools.product(("system", "critic"), repeat=2):
        messages = [{"role": role, "content": f"I am {role}."} for role in roles]
        assert place(messages, layout, style.tokenizer())[1] == 0


def test_neither_template_nor_eos_is_said() -> None:
    tokenizer = Style("bare", "", "", "").tokenizer()
    with pytest.raises(ChatTemplateUnsupported, match="no chat template"):
        chat_layout(tokenizer, "after_system")
    endless = Style("endless", STYLES[-1].template, "### Instruction:", "").tokenizer()
    endless.eos_token = None
    with pytest.raises(ChatTemplateUnsupported, match="what ends a reply"):
        chat_layout(endless, "after_system")
