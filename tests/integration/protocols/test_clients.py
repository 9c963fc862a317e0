"""Completions, responses, messages and names of models, as their own clients use them, on real vLLM."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from idiolect_server.engine.injection import PLACEHOLDER_ID
from tests.integration.protocols.conftest import (
    ARGUMENTS,
    FLAT,
    N_USER_TOKENS,
    SAID,
    SCHEMA,
    Clients,
    chat,
)


def test_completions(clients: Clients):
    def complete(**asked: Any) -> Any:
        given = {"model": clients.model, "prompt": "Question 1?", "max_tokens": 6, "temperature": 0}
        return clients.openai.completions.create(**{**given, **asked})

    whole = {user: complete(user=user).choices[0].text for user in ("long", "short")}
    assert whole["long"] != whole["short"]
    assert "".join(chunk.choices[0].text for chunk in complete(user="long", stream=True)) == whole["long"]
    several = complete(prompt=["Question 1?", "Hello"], user="long", logprobs=2)
    assert [choice.index for choice in several.choices] == [0, 1]
    assert several.choices[0].text == whole["long"]
    ids = clients.tokenizer("Question 1?")["input_ids"]
    assert complete(prompt=ids, user="long").choices[0].text == whole["long"]
    extra = {"structured_outputs": {"choice": ["yes", "no"]}}
    assert complete(extra_body=extra).choices[0].text in ("yes", "no")
    raw = complete(
        prompt="<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
        user="long",
        extra_body={"return_token_ids": True},
    )
    ids = raw.choices[0].model_dump()["prompt_token_ids"]
    behind = clients.tokenizer.decode(ids[ids.index(PLACEHOLDER_ID) + N_USER_TOKENS :])
    assert behind.startswith("<|im_start|>user\nHi")
    for body in ({"prompt": [1] * 2000}, {"prompt": "x " * 100_000}):
        assert clients.http.post("/v1/completions", json=body).status_code == 400
    assert clients.http.post("/v1/completions", json={"prompt": [1 << 30]}).status_code == 400


def test_responses(clients: Clients):
    def respond(**asked: Any) -> Any:
        given = {
            "model": clients.model,
            "input": "Question 1?",
            "max_output_tokens": 8,
            "temperature": 0,
            "user": "long",
        }
        return clients.openai.responses.create(**{**given, **asked})

    whole = respond()
    as_chat = chat(clients, user="long").choices[0].message.content
    assert whole.output_text == as_chat
    assert respond(user="short").output_text != as_chat
    events = list(respond(stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == as_chat
    form = {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}}
    bias = {"logit_bias": clients.dense}
    assert json.loads(respond(text=form, max_output_tokens=60, extra_body=bias).output_text) in ARGUMENTS
    made = respond(
        tools=[FLAT], tool_choice="required", max_output_tokens=200, parallel_tool_calls=False, extra_body=bias
    )
    assert [(item.name, json.loads(item.arguments) in ARGUMENTS) for item in made.output] == [("pick", True)]
    items: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": "Question 1?"}]},
        made.output[0].model_dump(include={"type", "call_id", "name", "arguments"}),
        {"type": "function_call_output", "call_id": made.output[0].call_id, "output": "42"},
    ]
    assert respond(input=items, tools=[FLAT]).status == "incomplete"  # by the number of its tokens
    with pytest.raises(openai.APIStatusError, match="previous_response_id is not supported"):
        respond(previous_response_id=whole.id)
    assert clients.http.get(f"/v1/responses/{whole.id}").status_code == 404


def test_messages(clients: Clients):
    def message(**asked: Any) -> Any:
        given = {"model": clients.model, "messages": SAID, "max_tokens": 8, "extra_body": {"temperature": 0}}
        return clients.anthropic.messages.create(**{**given, "metadata": {"user_id": "long"}, **asked})

    whole = message()
    as_chat = chat(clients, user="long")
    assert whole.content[0].text == as_chat.choices[0].message.content
    assert message(metadata={"user_id": "short"}).content[0].text != whole.content[0].text
    parts = [event.delta.text for event in message(stream=True) if event.type == "content_block_delta"]
    assert "".join(parts) == whole.content[0].text
    count = clients.anthropic.messages.count_tokens(model=clients.model, messages=SAID)
    assert count.input_tokens == as_chat.usage.prompt_tokens
    history: list[Any] = [
        *SAID,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "u1", "name": "pick", "input": ARGUMENTS[0]}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "u1", "content": "42"}]},
    ]
    tools = [{"name": "pick", "input_schema": SCHEMA}]
    assert message(messages=history, system="Be brief.", tools=tools).stop_reason == "max_tokens"
    refused = clients.http.post("/v1/messages", json={"messages": SAID})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "max_tokens: Field required")


def test_three_names_are_three_models(clients: Clients):
    names = [card.id for card in clients.openai.models.list()]
    assert names == [clients.model, f"{clients.model}:generic", f"{clients.model}:base"]
    assert clients.openai.models.retrieve(names[1]).id == names[1]
    said = {name: chat(clients, model=name, user="long", max_tokens=12) for name in names}
    assert {name: reply.model for name, reply in said.items()} == {name: name for name in names}
    texts = {name: reply.choices[0].message.content for name, reply in said.items()}
    assert len(set(texts.values())) == 3
    assert texts[names[1]] == chat(clients, user="nobody", max_tokens=12).choices[0].message.content
    assert said[names[2]].usage.prompt_tokens == said[names[0]].usage.prompt_tokens - N_USER_TOKENS
    roots = {card["root"] for card in clients.http.get("/v1/models").json()["data"]}
    assert roots == set(names)  # no path of the machine
    with pytest.raises(openai.NotFoundError):
        chat(clients, model="gpt-4o")


def test_together_nobody_gets_anothers_reply(clients: Clients):
    """Turns of several protocols at once, each with its own user and model."""
    model = clients.model

    def chats(user: str, name: str) -> str:
        return str(chat(clients, user=user, model=name).choices[0].message.content)

    def responds(user: str, name: str) -> str:
        asked: Any = {"input": "Question 1?", "max_output_tokens": 8, "temperature": 0}
        return str(clients.openai.responses.create(model=name, user=user, **asked).output_text)

    def streams(user: str, name: str) -> str:
        asked: Any = {
            "messages": SAID,
            "max_tokens": 8,
            "metadata": {"user_id": user},
            "extra_body": {"temperature": 0},
        }
        events = clients.anthropic.messages.create(model=name, stream=True, **asked)
        return "".join(event.delta.text for event in events if event.type == "content_block_delta")  # type: ignore[union-attr]

    asked: list[tuple[Callable[[str, str], str], str, str]] = [
        (how, user, name)
        for how in (chats, responds, streams)
        for user in ("long", "short", "nobody")
        for name in (model, f"{model}:base")
    ]
    alone = {(user, name): chats(user, name) for _, user, name in asked}
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda one: one[0](*one[1:]), asked * 3))
    assert together == [alone[user, name] for _, user, name in asked] * 3


def test_vllms_series_stand_beside_ours_and_log_lines_have_names(clients: Clients):
    seen = clients.http.get("/metrics").text
    for series in ("vllm:num_requests_running", "vllm:time_to_first_token_seconds_count", "vllm:kv_cache_usage_perc"):
        assert f"\n{series}" in seen
    assert "\nidiolect_engine_requests_total" in seen


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/messages"])
def test_a_caller_who_leaves_frees_the_engine(clients: Clients, path: str):
    said = {
        "messages": SAID,
        "input": "Hi",
        "prompt": "Hi",
        "max_tokens": 900,
        "max_output_tokens": 900,
        "stream": True,
    }
    fields = {"completions": ("prompt", "max_tokens"), "responses": ("input", "max_output_tokens")}
    names = fields.get(path.rpartition("/")[2]) if "chat" not in path else None
    body = {name: said[name] for name in (*(names or ("messages", "max_tokens")), "stream")}
    with clients.http.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        next(response.iter_lines())
    for _ in range(20):
        chat(clients, max_tokens=1)  # vLLM counts in steps
        running = [
            line
            for line in clients.http.get("/metrics").text.splitlines()
            if line.startswith("vllm:num_requests_running")
        ]
        if running and running[0].endswith(" 0.0"):
            return
    raise AssertionError(running)
