"""Where user tokens go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from idiolect.errors import LayoutError
from idiolect.prompt.chat import place
from idiolect.prompt.layout import Layout
from idiolect.prompt.template import chat_layout

AFTER_SYSTEM = Layout(placement="after_system", anchor=(1, 9), bos_id=1)
AFTER_BOS = Layout(placement="after_bos", anchor=(1, 9), bos_id=1)


def test_after_system_is_before_the_first_user_turn():
    assert AFTER_SYSTEM.offset([1, 7, 5, 2, 1, 9, 6, 2, 1, 9, 4, 2]) == 4
    assert AFTER_SYSTEM.offset([1, 9, 6]) == 0


def test_after_bos_is_the_papers_placement():
    assert AFTER_BOS.offset([1, 7, 5]) == 1
    assert AFTER_BOS.offset([7, 5]) == 0


def test_a_prompt_without_user_turn_is_a_typed_error():
    with pytest.raises(LayoutError) as caught:
        AFTER_SYSTEM.offset([1, 7, 5, 2])
    assert caught.value.code == "no_user_turn"


@given(st.lists(st.integers(0, 10)), st.lists(st.integers(0, 10)))
def test_offset_depends_on_nothing_behind_the_anchor(before: list[int], after: list[int]):
    ids = [*before, 1, 9]
    assert AFTER_SYSTEM.offset(ids) == AFTER_SYSTEM.offset([*ids, *after])


def test_the_place_is_found_in_a_real_chat_template(model_path):
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    layout = chat_layout(tokenizer, "after_system")
    for messages in (
        [{"role": "user", "content": "Hi"}],
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "\n\nHi"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
    ):
        ids, offset = place(messages, layout, tokenizer)
        assert tokenizer.decode(ids[offset:]).startswith("<|im_start|>user")
        assert "<|im_start|>user" not in tokenizer.decode(ids[:offset])
