"""The document is valid, and follows from the tables of errors; tests/service/test_openapi.py asks the server."""

import json
import keyword
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from idiolect_server.app import create_app
from idiolect_server.door.dialect import is_anthropic, is_openai
from idiolect_server.door.keys import digest
from idiolect_server.engine.chat_request import REFUSED, ChatRequest
from idiolect_server.errors import Overloaded, UnknownVote
from idiolect_server.openapi.refusals import raises, responses
from idiolect_server.settings import Settings


@pytest.fixture(params=[(), (digest("k"),)], ids=["open", "keys"])
def document(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    host = {"host": "0.0.0.0"} if request.param else {}
    found: dict[str, Any] = create_app(Settings(bundle=tmp_path, api_keys=request.param, **host)).openapi()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, one) for path, methods in document["paths"].items() for one in methods.values()]


def test_every_schema_is_one_and_every_reference_leads_to_one(document: dict[str, Any]):
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert referred == schemas.keys()


def test_examples_are_what_their_schemas_allow(document: dict[str, Any]):
    seen = 0
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
            Draft202012Validator(whole).validate(example)
            seen += 1
    assert seen >= 4


def test_every_operation_says_its_errors_in_its_dialect(document: dict[str, Any]):
    with_keys = bool(operations(document)[0][1]["security"])
    for path, operation in operations(document):
        assert operation["tags"]
        assert "HTTPValidationError" not in json.dumps(operation)
        answers, is_health = operation["responses"], path.startswith("/health")
        assert {"400", "408", "431", "500"} <= answers.keys()
        assert ("401" in answers) == (with_keys and not is_health)
        assert ("421" in answers) == (not with_keys)
        assert ("503" in answers) == (path != "/health/live")
        assert ("422" in answers) <= (not is_openai(path))
        for status, response in answers.items():
            if int(status) >= 400 and not (is_health and status == "503"):  # that says how it goes instead
                name = "AnthropicError" if is_anthropic(path) else "OpenAIError" if is_openai(path) else "NativeError"
                assert f"#/components/schemas/{name}" in json.dumps(response)
        assert operation["security"] == ([{"key": []}] if with_keys and not is_health else [])


def test_bodies_have_their_media_types(document: dict[str, Any]):
    def kinds(method: str, path: str) -> set[str]:
        return set(document["paths"][path][method]["responses"]["200"]["content"])

    assert kinds("post", "/generate") == {"application/json", "text/event-stream"}
    assert kinds("post", "/v1/chat/completions") == {"application/json", "text/event-stream"}
    assert kinds("get", "/feedback") == {"application/x-ndjson", "application/vnd.apache.parquet"}
    assert kinds("get", "/metrics") == {"text/plain"}


def test_the_chat_completions_schema_knows_every_field(document: dict[str, Any]):
    known = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    assert known.keys() == ChatRequest.model_fields.keys() | REFUSED.keys() | {"safety_identifier"}


def test_generators_find_good_names(document: dict[str, Any]):
    """Clients are generated from it (bench/clients/generated.py): operations are functions, schemas are types."""
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names)) >= 25
    assert {"generate", "feedback", "chat_completions", "take_back", "health"} <= set(names)
    assert [name for name in names if not name.isidentifier() or keyword.iskeyword(name)] == []
    types = list(document["components"]["schemas"])
    assert [name for name in types if not name.isidentifier()] == []
    assert len({name.lower() for name in types}) == len(types)
    assert not {"Error", "Response", "Client"} & set(types)  # generated code has those already
    assert '"title": "' not in json.dumps([document["paths"], document["components"]])


def test_an_error_is_one_type_wherever_it_is_answered(document: dict[str, Any]):
    for _, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert response["content"]["application/json"]["schema"].keys() <= {"$ref", "properties"}


def test_either_prompt_or_messages(document: dict[str, Any]):
    whole = {"$ref": "#/components/schemas/GenerateRequest", "components": document["components"]}
    said = [{"role": "user", "content": "a"}]
    right = [{"prompt": "a"}, {"messages": said}, {"prompt": None, "messages": said}, {"prompt": "a", "messages": None}]
    wrong: list[dict[str, Any]] = [{}, {"prompt": None}, {"prompt": "a", "messages": said}, {"messages": None}]
    is_valid = Draft202012Validator(whole).is_valid
    assert [is_valid(body) for body in right + wrong] == [True] * 4 + [False] * 4


def test_a_route_notes_what_it_raises_and_is_itself():
    def endpoint() -> None: ...

    assert raises(UnknownVote)(endpoint) is endpoint
    native, openai = (responses([UnknownVote, Overloaded], path) for path in ("/x", "/v1/x"))
    assert list(native) == list(openai) == ["400", "404", "429"]
    assert native["429"]["headers"].keys() == {"Retry-After"}
    assert native["404"]["description"] == "`unknown_vote`"
