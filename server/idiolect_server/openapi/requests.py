"""Requests of other APIs as schemas, each from the list of what is passed and refused."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from idiolect_server.engine.chat_request import REFUSED, ChatRequest
from idiolect_server.engine.protocol import completion_request, message_request, response_request
from idiolect_server.engine.protocol.completion_request import CompletionRequest
from idiolect_server.engine.protocol.message_request import CountRequest, MessageRequest
from idiolect_server.engine.protocol.response_request import ResponseRequest

REF = "#/components/schemas/{model}"
REQUEST = "ChatCompletionRequest"
FORMS: dict[str, tuple[type[BaseModel], Mapping[str, tuple[Any, ...]]]] = {
    REQUEST: (ChatRequest, REFUSED),
    "CompletionRequest": (CompletionRequest, completion_request.REFUSED),
    "ResponseRequest": (ResponseRequest, response_request.REFUSED),
    "MessageRequest": (MessageRequest, message_request.REFUSED),
    "CountRequest": (CountRequest, message_request.REFUSED),
}
"""Requests by the names of their schemas: what is passed, and what is refused with what it may say for nothing."""
EXAMPLES = {
    REQUEST: {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "user": "ada"},
    "CompletionRequest": {"prompt": "The sky is blue because", "max_tokens": 16},
    "ResponseRequest": {"input": "Why is the sky blue?", "user": "ada"},
    "MessageRequest": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16},
    "CountRequest": {"messages": [{"role": "user", "content": "Hi"}]},
}
_USER = {
    "anyOf": [{"type": "string", "maxLength": 256}, {"type": "null"}],
    "description": "Who the request is for: a user id. Nobody if empty.",
}


def ref(name: str) -> dict[str, str]:
    return {"$ref": REF.format(model=name)}


def schemas() -> dict[str, Any]:
    """By name, those that the routes of other APIs refer to. A part of a request has its name in front of its own."""
    found: dict[str, Any] = {}
    for name, (form, refused) in FORMS.items():
        # No dots: generators make types of these names, and forget what stands before a dot.
        request = form.model_json_schema(ref_template=REF.format(model=f"{name}{{model}}"))
        found |= {f"{name}{part}": schema for part, schema in request.pop("$defs", {}).items()}
        # Clients send `user` for anybody, so the route, and not the list, says what may stand there.
        request["properties"] |= {
            "user": _USER,
            "safety_identifier": {**_USER, "description": "As `user`, without one."},
        }
        request["properties"] |= {field: _nothing(values) for field, values in refused.items()}
        request["description"] = "The API's and vLLM's fields, null being as good as absent. Others are ignored."
        request["examples"] = [EXAMPLES[name]]
        found[name] = request
    return found


def _nothing(values: tuple[Any, ...]) -> dict[str, Any]:
    """What a refused field may say. Not as an `enum`: generators make names of its values, and these have none."""
    said: list[dict[str, Any]] = [{"type": "null"}]
    said += [{"type": "object", "maxProperties": 0} if value == {} else {"const": value} for value in values]
    return {"anyOf": said, "description": "Not supported: may only ask for nothing."}
