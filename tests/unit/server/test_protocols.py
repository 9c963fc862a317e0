"""Every field of vLLM's other protocols is on a list, here and in the docs; and what their requests are made of."""

import re
from typing import Any

import pytest
from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from idiolect_server.engine import chat_request
from idiolect_server.engine.protocol import completion_request, message_request, response_request
from idiolect_server.engine.protocol.json_calls import NO_PARSER, known_parsers
from idiolect_server.engine.protocol.tools import MAX_TOOLS
from idiolect_server.errors import RequestError
from tests.live import ROOT

OURS = {"frequency_penalty"}
"""Of messages, whose protocol has none."""
PROTOCOLS: dict[str, tuple[Any, Any, set[str], set[str]]] = {
    "completions": (
        completion_request,
        CompletionRequest,
        set(completion_request.CompletionRequest.model_fields),
        set(),
    ),
    "responses": (
        response_request,
        ResponsesRequest,
        set(response_request.ResponseRequest.model_fields),
        response_request.IGNORED,
    ),
    "messages": (
        message_request,
        AnthropicMessagesRequest,
        set(message_request.MessageRequest.model_fields) - OURS,
        set(),
    ),
}
SCHEMA = {"type": "object", "properties": {"x": {"type": ["string", "null"], "default": None}}, "required": ["x"]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
SAID = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_field_that_vllm_adds_renames_or_gives_up_is_looked_at(name: str):
    module, theirs, passed, ignored = PROTOCOLS[name]
    assert passed | module.REFUSED.keys() | ignored == theirs.model_fields.keys()
    assert not passed & module.REFUSED.keys()


def test_counting_takes_the_fields_of_messages():
    assert set(message_request.CountRequest.model_fields) == AnthropicCountTokensRequest.model_fields.keys()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_docs_list_every_field(name: str):
    module, _, passed, ignored = PROTOCOLS[name]
    section = (ROOT / "docs" / "http-api.md").read_text().split(f"## POST /v1/{name}")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert passed | set(module.REFUSED) | ignored <= named


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_is_refused_may_still_ask_for_nothing(name: str):
    module = PROTOCOLS[name][0]
    least = {
        "completions": {"prompt": "x"},
        "responses": {"input": "x"},
        "messages": {"messages": SAID, "max_tokens": 1},
    }
    for field, nothings in module.REFUSED.items():
        for nothing in (None, *nothings):
            module.read({**least[name], field: nothing})
        with pytest.raises(RequestError, match=f"{field} is not supported"):
            module.read({**least[name], field: {"x": 1}})


def test_vllm_takes_what_is_passed():
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "message", "role": "user", "content": "c"},
        call,
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "d"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "e"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "f", "annotations": []}]},
    ]
    tool = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}
    asked = {"input": items, "tools": [tool], "tool_choice": {"type": "function", "name": "f"}, "metadata": {"a": "b"}}
    response = ResponsesRequest.model_validate(response_request.read(asked).passed())
    assert response.tools[0].parameters == SCHEMA
    assert response.store is False
    blocks = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"x": None}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "d"}]},
    ]
    asked = {"messages": blocks, "max_tokens": 4, "tools": [{"name": "f", "input_schema": SCHEMA}]}
    message = AnthropicMessagesRequest.model_validate(message_request.read(asked).passed("m"))
    assert message.tools is not None
    assert message.tools[0].input_schema == SCHEMA
    assert message.messages[0].content[0].input == {"x": None}
    for prompt in ("x", ["x", "y"], [1, 2], [[1], [2, 3]]):
        raw = CompletionRequest.model_validate(completion_request.read({"prompt": prompt, "logprobs": 2}).passed())
        assert raw.prompt == prompt


@pytest.mark.parametrize(
    ("module", "body", "problem"),
    [
        (completion_request, {}, "prompt: Field required"),
        (completion_request, {"prompt": []}, "expected texts, or token ids"),
        (completion_request, {"prompt": ["x"] * 9}, "at most 8"),
        (completion_request, {"prompt": ["x"] * 3, "n": 3}, "prompts times n"),
        (completion_request, {"prompt": "\ud800"}, "surrogate"),
        (response_request, {"input": [{"type": "item_reference", "id": "x"}]}, "expected a message"),
        (response_request, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "only text content"),
        (response_request, {"input": "x", "tools": [{"type": "web_search"}]}, "tools.0"),
        (response_request, {"input": "x", "tool_choice": "required"}, "wants tools"),
        (response_request, {"input": "x", "tool_choice": {"type": "function", "name": "f"}}, "none of tools"),
        (message_request, {"messages": SAID}, "max_tokens: Field required"),
        (
            message_request,
            {"messages": [{"role": "user", "content": [{"type": "image"}]}], "max_tokens": 1},
            "expected text",
        ),
        (message_request, {"messages": SAID, "max_tokens": 1, "tool_choice": {"type": "any"}}, "wants tools"),
        (chat_request, {"messages": SAID, "tool_choice": "required"}, "wants tools"),
        (chat_request, {"messages": SAID, "tools": [TOOL] * (MAX_TOOLS + 1)}, "at most 128"),
        (chat_request, {"messages": SAID, "tools": [{}]}, "tools.0.function: Field required"),
        (chat_request, {"messages": SAID, "tools": [TOOL], "tool_choice": "f"}, "tool_choice"),
    ],
)
def test_what_cannot_be_is_refused_in_words(module: Any, body: dict[str, Any], problem: str):
    with pytest.raises(RequestError, match=problem):
        module.read(body)


def test_a_schema_of_parameters_may_be_nested_so_deeply_only():
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"properties": {"x": deep}}
    with pytest.raises(RequestError, match="in one another"):
        chat_request.read(
            {"messages": SAID, "tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}]}
        )
    with pytest.raises(RequestError, match="in one another"):
        message_request.read({"messages": SAID, "max_tokens": 1, "tools": [{"name": "f", "input_schema": deep}]})


def test_no_tools_are_as_none_given():
    for choice in ({}, {"tool_choice": "auto"}, {"tool_choice": "none"}):
        read = chat_request.read({"messages": SAID, "tools": [], **choice})
        assert read.passed().keys() == {"messages"}
        assert not read.leaves_it_to_the_model
    assert chat_request.read({"messages": SAID, "tools": [TOOL]}).leaves_it_to_the_model
    assert chat_request.read({"messages": SAID, "tools": [TOOL]}).passed()["tools"] == [TOOL]


@pytest.mark.parametrize(
    ("choice", "anthropics", "is_strict"),
    [
        ("required", "any", True),
        ({"type": "function", "function": {"name": "f"}}, "tool", True),
        ("auto", "auto", False),
        (None, None, False),
        ("none", "none", False),
    ],
)
@pytest.mark.parametrize("said", [{}, {"strict": False}])
def test_a_call_that_must_be_made_follows_its_schema(
    choice: Any, anthropics: Any, is_strict: bool, said: dict[str, bool]
):
    function = {"name": "f", "parameters": SCHEMA, **said}
    messages = [{"role": "user", "content": "Hi"}]
    chat = chat_request.read(
        {"messages": messages, "tools": [{"type": "function", "function": function}], "tool_choice": choice}
    ).passed()
    assert (chat["tools"][0]["function"].get("strict") is True) == is_strict
    flat = {"type": "function", "name": "f"} if isinstance(choice, dict) else choice
    response = response_request.read(
        {"input": "Hi", "tools": [{"type": "function", **function}], "tool_choice": flat}
    ).passed()
    assert (response["tools"][0]["strict"] is True) == is_strict
    tool = {"name": "f", "input_schema": SCHEMA, **said}
    kind = anthropics and {"type": anthropics, **({"name": "f"} if anthropics == "tool" else {})}
    message = message_request.read({"messages": messages, "max_tokens": 1, "tools": [tool], "tool_choice": kind})
    assert (message.passed("m")["tools"][0].get("strict") is True) == is_strict


def test_what_a_template_may_write_out_is_measured():
    assert "d" in chat_request.read({"messages": SAID, "tools": [TOOL]}).texts
    assert {"x", "f", "null"} <= set(
        message_request.read(
            {"messages": SAID, "max_tokens": 1, "tools": [{"name": "f", "input_schema": SCHEMA}]}
        ).texts
    )
    assert response_request.read({"input": "x", "instructions": "y"}).texts == ["x", "y"]


def test_parsers_are_known_by_vllms_names():
    assert "hermes" in known_parsers()
    assert NO_PARSER not in known_parsers()
