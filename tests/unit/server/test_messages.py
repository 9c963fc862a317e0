"""Every form of a message that a chat API takes, as one plain turn; what has none is refused."""

import pytest
from pydantic import ValidationError

from idiolect_server.wire.messages import Message, plain

CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
FORMS = [
    ({"role": "user", "content": "Hi"}, ("user", "Hi")),
    ({"role": "developer", "content": "Be brief."}, ("system", "Be brief.")),
    ({"role": "user", "name": "ann", "content": "Hi"}, ("user", "Hi")),
    ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ("user", "a\nb")),
    ({"role": "assistant", "content": ""}, ("assistant", "")),
    ({"role": "tool", "tool_call_id": "call-1", "content": "4 °C"}, ("user", "4 °C")),
    ({"role": "assistant", "content": None, "refusal": "I cannot."}, ("assistant", "I cannot.")),
    (
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        ("assistant", '{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}'),
    ),
    # As OpenAI's client writes out a reply that it was given.
    (
        {"role": "assistant", "content": "Hi", "refusal": None, "annotations": None, "audio": None, "tool_calls": None},
        ("assistant", "Hi"),
    ),
]
REFUSED = [
    {"role": "user"},
    {"role": "user", "content": None},
    {"role": "user", "content": []},
    {"role": "user", "content": 5},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "assistant", "content": None, "audio": {"id": "a"}},
    {"role": "user", "content": "x", "tool_calls": [CALL]},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
    {"role": "user", "content": [{"type": "text", "text": "a", "weight": 2}]},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "custom", "custom": {}}]},
    {"role": "function", "name": "f", "content": "x"},
    {"role": "user", "content": "a\0b"},
    "Hi",
    None,
]


@pytest.mark.parametrize(("form", "said"), FORMS)
def test_a_form_has_one_plain_turn(form: dict, said: tuple[str, str]):
    turn = Message.model_validate(form).plain()
    assert (turn.role, turn.content) == said
    assert Message.model_validate(turn.model_dump()).plain() == turn  # which is itself a form
    assert plain([form]) == [{"role": said[0], "content": said[1]}]


@pytest.mark.parametrize("form", REFUSED)
def test_what_has_no_plain_turn_is_refused_whole(form: object):
    with pytest.raises(ValidationError):
        Message.model_validate(form)
    assert plain([{"role": "user", "content": "Hi"}, form]) is None
