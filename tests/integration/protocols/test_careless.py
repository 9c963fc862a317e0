"""What real clients get wrong, on real vLLM: 400 in OpenAI's words, no traceback, and the connection goes on."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.clients.openapi import try_all
from tests.integration.protocols.conftest import Clients

CHAT = "/v1/chat/completions"
SAID = [{"role": "user", "content": "hi"}]
CALLED = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

CARELESS: dict[str, dict[str, Any]] = {
    # Fields that need one another.
    "choice of another kind": {"tools": [CALLED], "tool_choice": "bogus"},
    "choice as list": {"tools": [CALLED], "tool_choice": [1]},
    "choice of nothing": {"tools": [CALLED], "tool_choice": {}},
    "choice without function": {"tools": [CALLED], "tool_choice": {"type": "function"}},
    "choice that is not there": {"tools": [CALLED], "tool_choice": {"type": "function", "function": {"name": "g"}}},
    "tools as text": {"tools": "x"},
    "tools of numbers": {"tools": [1]},
    "an empty tool, named": {"tools": [{}], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    "top_logprobs alone": {"top_logprobs": 3},
    "top_logprobs as text": {"logprobs": True, "top_logprobs": "3"},
    "top_logprobs as list": {"logprobs": True, "top_logprobs": [1]},
    "top_logprobs below": {"logprobs": True, "top_logprobs": -2},
    "prompt_logprobs streamed": {"prompt_logprobs": 1, "stream": True},
    "prompt_logprobs below": {"prompt_logprobs": -2},
    "logprob_token_ids alone": {"logprob_token_ids": [1]},
    "stream_options alone": {"stream_options": {"include_usage": True}},
    "schema absent": {"response_format": {"type": "json_schema"}},
    "tag absent": {"response_format": {"type": "structural_tag"}},
    "tag of nothing": {"response_format": {"type": "structural_tag", "format": {}}},
    "tag of old": {"response_format": {"type": "structural_tag", "structures": [], "triggers": []}},
    "tag as number": {"response_format": {"type": "structural_tag", "format": 5}},
    "format unknown": {"response_format": {"type": "xml"}},
    "salt empty": {"cache_salt": ""},
    "salt as number": {"cache_salt": 5},
    "both ends": {"continue_final_message": True, "add_generation_prompt": True},
    "two forms": {"structured_outputs": {"choice": ["a"], "regex": "a"}},
    "forms as text": {"structured_outputs": "x"},
    "forms as list": {"structured_outputs": [1]},
    # Messages that are none.
    "calls as number": {"messages": [{"role": "assistant", "tool_calls": 5}]},
    "messages null": {"messages": None},
    "no role": {"messages": [{"content": "hi"}]},
    "another role": {"messages": [{"role": "my-custom-role", "content": "hi"}]},
    "an image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    # What vLLM's own tests expect to be BadRequestError.
    "long seed": {"seed": 1 << 64},
    "forms of another type": {"structured_outputs": {"regex": {"a": 1}}},
    "bias as word": {"logit_bias": {"1": "x"}},
    "user as number": {"user": 5},
    "greedy choices": {"n": 2, "temperature": 0},
    "n of many": {"n": 9},
    "too many tokens": {"max_tokens": 100_000},
}
INNER = re.compile(r"ChatCompletion\w+Param|function-\w+|\[\w+\(|\btype=\w+|For further information|Traceback")
"""Names and phrases of libraries, which a caller does not know."""


@dataclass
class Server:
    http: httpx.Client
    log: Path

    def ask(self, **body: Any) -> httpx.Response:
        return self.http.post(CHAT, json={"messages": SAID, "max_tokens": 2} | body)


@pytest.fixture(scope="module")
def server(clients: Clients) -> Iterator[Server]:
    with httpx.Client(base_url=clients.http.base_url, timeout=60, limits=httpx.Limits(max_connections=1)) as http:
        yield Server(http, clients.log)


@pytest.mark.parametrize("name", CARELESS)
def test_a_callers_mistake_is_told_as_openai_tells_it(server: Server, name: str):
    refused = server.ask(**CARELESS[name])
    assert refused.status_code == 400, refused.text
    assert refused.headers.get("connection") != "close"
    error = refused.json()["error"]
    assert error.keys() == {"message", "type", "param", "code", "hint", "retryable"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert not INNER.search(error["message"]), error["message"]
    assert server.ask().status_code == 200  # on the same connection


def test_what_openai_answers_is_answered(server: Server):
    for said in (
        {"messages": [{"role": "system", "content": "Say hello."}]},
        {"messages": [{"role": "developer", "content": "Say hello."}]},
        {"user": ""},
        {"user": None},
        {"metadata": {"a": "b"}, "store": True, "prompt_cache_key": "k"},
        {"tools": []},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "auto"},
    ):
        assert server.ask(**said).status_code == 200, said


def test_a_prompt_that_is_too_long_is_told_so(server: Server):
    error = server.ask(messages=[{"role": "user", "content": "word " * 9000}]).json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "context_length_exceeded")
    error = server.ask(model="gpt-4o").json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("not_found_error", "model", "model_not_found")


def test_models_name_no_path_of_the_host(server: Server):
    models = server.http.get("/v1/models").json()["data"]
    assert models
    for model in models:
        assert model["root"] == model["id"]
        assert "/" not in model["root"]


def test_every_reply_says_how_it_is_personalized(server: Server):
    for said in ({"user": "long"}, {"safety_identifier": "long"}):
        assert server.ask(**said).json()["personalization"]["state"] == "stored"
    header = {"x-idiolect-user": "long"}
    answer = server.http.post(CHAT, json={"messages": SAID, "max_tokens": 2, "stream": True}, headers=header)
    first, *others = answer.text.split("\n\n")
    assert '"state": "stored"' in first
    assert not any("personalization" in chunk for chunk in others)


def test_the_real_engine_answers_as_described(server: Server):
    tally = try_all(str(server.http.base_url), 100)
    assert tally.found == []


def test_the_log_holds_no_traceback(server: Server):
    """Runs last in this file: of all the mistakes above."""
    assert "Traceback" not in server.log.read_text(errors="replace")
