"""Every field of vLLM's chat completions is on a list, here and in the docs."""

import re

import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

from idiolect_server.engine import chat_request
from idiolect_server.engine.chat_request import REFUSED, ChatRequest
from idiolect_server.errors import RequestError
from tests.live import ROOT

SAID = [{"role": "user", "content": "x"}]


def test_a_field_that_vllm_adds_renames_or_gives_up_is_looked_at():
    assert ChatRequest.model_fields.keys() | REFUSED.keys() == ChatCompletionRequest.model_fields.keys()
    assert not ChatRequest.model_fields.keys() & REFUSED.keys()


def test_the_docs_list_every_field():
    section = (ROOT / "docs" / "http-api.md").read_text().split("## POST /v1/chat/completions")[1]
    rows = [row.split("|")[1] for row in section.split("**Structured")[0].splitlines() if row.startswith("| ")]
    listed = {
        refused: [name for row in rows if ("refused:" in row) == refused for name in re.findall(r"`(\w+)`", row)]
        for refused in (True, False)
    }
    assert sorted(listed[True]) == sorted(REFUSED)
    assert sorted(listed[False]) == sorted(ChatRequest.model_fields)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_may_still_ask_for_nothing(name):
    for nothing in (None, *REFUSED[name]):
        assert name not in chat_request.read({"messages": SAID, name: nothing}).passed()
    with pytest.raises(RequestError, match=f"{name} is not supported"):
        chat_request.read({"messages": SAID, name: {"x": 1}})


@pytest.mark.parametrize("options", [{}, {"include_usage": None}, {"include_usage": True}])
def test_options_of_a_stream_want_one(options):
    """As vLLM has it, and also where they say nothing."""
    with pytest.raises(RequestError, match=r"^stream_options wants stream$"):
        chat_request.read({"messages": SAID, "stream": False, "stream_options": options})


def test_all_biases_of_no_token_are_told_at_once():
    with pytest.raises(RequestError, match=r"^logit_bias: not token ids: bad, worse$"):
        chat_request.read({"messages": SAID, "logit_bias": {"bad": 1, "5": 1, "worse": 1}})


def test_a_bias_of_what_is_no_unicode_is_refused_in_words():
    """Half of a surrogate pair, which JSON can write, and no encoding takes."""
    with pytest.raises(RequestError, match=r"^logit_bias: not token ids: a\?b, bad$"):
        chat_request.read({"messages": SAID, "logit_bias": {"a\udc80b": 1, "bad": 1}})


def test_only_what_is_listed_is_passed():
    said = {"role": "assistant", "content": None, "audio": {"id": "x"}, "refusal": None, "function_call": None}
    read = chat_request.read({"messages": [said], "temperature": 1, "stop": None, "store": True, "future_field": {}})
    assert read.passed() == {"messages": [{"role": "assistant", "content": ""}], "temperature": 1}


def test_vllm_takes_what_is_passed():
    everything = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}]},
            {"role": "user", "content": "b", "name": "n"},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
            {"role": "tool", "tool_call_id": "1", "content": "c"},
        ],
        **{
            "model": "m",
            "max_tokens": 4,
            "n": 2,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "min_p": 0.1,
            "seed": 1,
        },
        **{"frequency_penalty": 1, "presence_penalty": 1, "repetition_penalty": 1.5, "logit_bias": {"5": -100}},
        **{"allowed_token_ids": [5], "stop_token_ids": [7], "bad_words": ["x"], "stop": ["y"], "min_tokens": 1},
        **{"logprobs": True, "top_logprobs": 2, "stream": True, "stream_options": {"include_usage": True}},
        **{"chat_template_kwargs": {"enable_thinking": False}, "cache_salt": "s", "request_id": "r-1"},
    }
    request = ChatCompletionRequest.model_validate(chat_request.read(everything).passed())
    assert request.messages[3]["content"] == "c"
    assert request.logit_bias == {"5": -100}
    assert (request.n, request.stop, request.cache_salt) == (2, ["y"], "s")
