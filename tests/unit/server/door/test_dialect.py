"""Below /v1 every error is OpenAI's error object, whoever raises it; elsewhere it is ours."""

from pathlib import Path

import pytest

from idiolect.errors import IdiolectError, LayoutError
from idiolect_server.door.dialect import is_openai, told
from idiolect_server.door.keys import digest
from idiolect_server.engine import chat_request
from idiolect_server.errors import (
    DeadlineExceeded,
    EngineDead,
    Overloaded,
    PromptTooLong,
    RequestError,
    StoreError,
    Unauthorized,
    UnknownHost,
    UnknownModel,
    body,
    first_place,
    first_problem,
    status,
)
from tests.parts.door import Door, answers, run
from tests.unit.server.door.test_access import call
from tests.unit.server.test_errors import leaves

OPENAI = {"message", "type", "param", "code", "hint", "retryable"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RequestError("m", param="n"), (400, "invalid_request_error", "n", "invalid_request")),
        (LayoutError("m"), (400, "invalid_request_error", None, "no_user_turn")),
        (PromptTooLong("m"), (400, "invalid_request_error", None, "context_length_exceeded")),
        (UnknownModel("m", param="model"), (404, "not_found_error", "model", "model_not_found")),
        (Unauthorized("m"), (401, "authentication_error", None, "invalid_api_key")),
        (UnknownHost("m"), (421, "invalid_request_error", None, "unknown_host")),
        (Overloaded("m"), (429, "rate_limit_error", None, "overloaded")),
        (DeadlineExceeded("m"), (504, "server_error", None, "deadline_exceeded")),
        (EngineDead("m"), (503, "server_error", None, "engine_dead")),
        (StoreError("m"), (500, "server_error", None, "store_error")),
    ],
)
def test_openai_clients_are_told_in_their_words(error: IdiolectError, expected: tuple[object, ...]):
    code, content = told(error, "/v1/chat/completions")
    found = content["error"]
    assert found.keys() == OPENAI
    assert (code, found["type"], found["param"], found["code"]) == expected
    assert told(error, "/generate") == (status(error), body(error))


def test_anthropic_clients_are_told_in_theirs():
    assert told(Overloaded("m"), "/v1/messages")[1]["type"] == "error"
    code, content = told(EngineDead("m"), "/v1/messages/count_tokens")
    assert (code, content["error"]["type"], content["error"]["message"]) == (503, "api_error", "m")
    assert "type" not in told(EngineDead("m"), "/v1/messagesX")[1]


def test_no_error_is_422_below_v1():
    for error in leaves(IdiolectError):
        code, content = told(error("m"), "/v1")
        assert code != 422
        assert content["error"].keys() == OPENAI


def test_only_v1_speaks_openai():
    assert is_openai("/v1")
    assert is_openai("/v1/")
    assert not is_openai("/v10/models")
    assert not is_openai("/users/v1/")


def test_the_door_speaks_it_too(tmp_path: Path):
    with_keys = {"api_keys": (digest("k"),)}
    chat = "/v1/chat/completions"
    allowed = {"settings": with_keys, "headers": {"Authorization": "Bearer k"}}
    as_json = allowed | {"headers": {"Authorization": "Bearer k", "content-type": "application/json"}}
    found = {
        401: call(tmp_path, "GET", "/v1/models", settings=with_keys),
        404: call(tmp_path, "GET", "/v1/embeddings", **allowed),
        405: call(tmp_path, "PUT", "/v1/models", **allowed),
        413: call(tmp_path, "POST", chat, content=b"x" * (2 << 20), **allowed),
        421: call(tmp_path, "GET", "/v1/models", headers={"Host": "evil.example"}),
        503: call(tmp_path, "GET", "/v1/models", **allowed),
        400: call(tmp_path, "POST", chat, content=b"{", **as_json),
    }
    for code, response in found.items():
        assert response.status_code == code
        assert response.json()["error"].keys() == OPENAI
    assert found[401].headers["www-authenticate"] == "Bearer"
    assert found[405].headers["allow"] == "GET"


def test_what_is_no_whole_request_is_refused_in_them_too():
    async def check(opened: Door) -> None:
        head = b"GET /v1/models?a=b HTTP/1.1\r\nHost: localhost\r\n"
        for sent, code in ((head + b"X: " + b"x" * 70_000, 431), (head + b"\xff\xfe: \x00\r\n\r\n", 400)):
            ((status, content), *_) = answers(await opened.say(sent))
            assert status == code
            assert content["error"].keys() == OPENAI

    run(check)


def test_a_body_that_is_not_said_to_be_json(tmp_path: Path):
    """As `curl -d` sends it."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    for path, code in (("/generate", 422), ("/feedback", 422), ("/v1/chat/completions", 400)):
        for headers in (form, {}):
            refused = call(tmp_path, "POST", path, content=b'{"prompt": "Hi"}', headers=headers)
            assert refused.status_code == code
            assert refused.json()["error"]["hint"] == "send content-type: application/json"
    assert call(tmp_path, "POST", "/generate", json=[1]).json()["error"]["hint"] == ""


def test_a_line_break_in_a_path_is_a_wrong_id(tmp_path: Path):
    for path in ("/users/%0A/profile", "/users/a%0Ab/question", "/users/%0A"):
        method = "PUT" if path.endswith("profile") else "GET"
        refused = call(tmp_path, method, path, json={"profile": "x"})
        assert refused.status_code == 422
        assert refused.json()["error"]["message"] == "user_id: control characters are not allowed"


def test_problems_are_told_by_the_callers_names():
    errors = [{"loc": ("body", "messages", 0, "ChatCompletionDeveloperMessageParam", "role"), "msg": "Field required"}]
    assert first_problem(errors) == "messages.0.role: Field required"
    errors = [{"loc": ("response_format", "function-wrap[__log_extra_fields__()]", "type"), "msg": "x"}]
    assert first_place(errors) == "response_format.type"


@pytest.mark.parametrize(
    ("stop", "problem"),
    [
        ("", "stop: String should have at least 1 character"),
        ("a" * 257, "stop: String should have at most 256 characters"),
        (["a"] * 5, "stop: List should have at most 4 items after validation, not 5"),
        (["a", ""], "stop.1: String should have at least 1 character"),
        (5, "stop: Input should be a valid string"),
    ],
)
def test_of_several_types_the_one_that_was_sent_is_judged(stop: object, problem: str):
    with pytest.raises(RequestError) as refused:
        chat_request.read({"messages": [{"role": "user", "content": "x"}], "stop": stop})
    assert refused.value.message == problem
    assert refused.value.param == problem.partition(":")[0]
