"""What is kept of a request and its answer, in either protocol of chat."""

import doctest

from idiolect_server.routes import completion
from idiolect_server.routes.completion import said, turns
from idiolect_server.wire.messages import plain


def test_what_choices_and_blocks_say():
    assert doctest.testmod(completion).failed == 0
    whole = {"choices": [{"index": 0, "message": {"content": None}}, {"index": 1, "message": {"content": "b"}}]}
    assert list(said(whole)) == [(0, ""), (1, "b")]
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "tool_use", "name": "f"}]
    assert list(said({"type": "message", "content": blocks})) == [(0, "a")]
    assert list(said({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}})) == [(0, "a")]
    assert list(said({"type": "message_start", "message": {"id": "chatcmpl-1", "content": []}})) == []


def test_a_conversation_in_anthropics_words_has_plain_turns():
    block = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    body = {"system": [block], "messages": [{"role": "user", "content": "Who?"}, {"role": "user", "content": [block]}]}
    assert plain(turns(body)) == [
        {"role": "system", "content": "Hi"},
        {"role": "user", "content": "Who?"},
        {"role": "user", "content": "Hi"},
    ]
    image = {"role": "user", "content": [{"type": "image", "source": {}}]}
    assert plain(turns({"messages": [image]})) is None
