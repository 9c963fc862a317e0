"""Other APIs as schemas: each request from the list of what is passed and refused, a completion's main fields."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from idiolect_server.engine.chat_request import REFUSED, ChatMessage, ChatRequest
from idiolect_server.engine.protocol import completion_request, message_request, response_request
from idiolect_server.engine.protocol.completion_request import CompletionRequest
from idiolect_server.engine.protocol.message_request import CountRequest, MessageRequest
from idiolect_server.engine.protocol.response_request import ResponseRequest

REF = "#/components/schemas/{model}"
REQUEST, COMPLETION, MODELS, ANSWER = "ChatCompletionRequest", "ChatCompletion", "ModelList", "Answer"
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
_TEXT = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}


def ref(name: str) -> dict[str, str]:
    return {"$ref": REF.format(model=name)}


def schemas() -> dict[str, Any]:
    """By name, those that the routes of other APIs refer to."""
    found: dict[str, Any] = {COMPLETION: _completion(), MODELS: _models(), ANSWER: _object({}, [])}
    for name, (form, refused) in FORMS.items():
        request = form.model_json_schema(ref_template=REF.format(model=f"{name}.{{model}}"))
        found |= {f"{name}.{part}": schema for part, schema in request.pop("$defs", {}).items()}
        # Clients send `user` for anybody, so the route, and not the list, says what may stand there.
        request["properties"] |= {
            "user": _USER,
            "safety_identifier": {**_USER, "description": "As `user`, without one."},
        }
        request["properties"] |= {
            field: {"enum": [None, *nothing], "description": "Not supported: may only ask for nothing."}
            for field, nothing in refused.items()
        }
        request["description"] = "The API's and vLLM's fields, null being as good as absent. Others are ignored."
        request["examples"] = [EXAMPLES[name]]
        found[name] = request
    return found


def _completion() -> dict[str, Any]:
    # vLLM gives a reply that goes on with the last message the role of that one.
    roles = get_args(ChatMessage.model_fields["role"].annotation)
    message = _object({"role": {"enum": list(roles)}, "content": _TEXT}, ["role", "content"])
    reason = {"enum": ["stop", "length", "tool_calls", "content_filter", "function_call", "abort", "repetition", None]}
    choice = _object({"index": _COUNT, "message": message, "finish_reason": reason}, ["index", "message"])
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    return _object(
        {
            "id": {"type": "string"},
            "object": {"const": "chat.completion"},
            "created": {**_COUNT, "description": "Unix seconds."},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": choice, "minItems": 1},
            "usage": _object(dict.fromkeys(counts, _COUNT), list(counts)),
            "personalization": ref("PersonalizationInfo"),
        },
        ["id", "object", "created", "model", "choices", "usage", "personalization"],
    )


def _models() -> dict[str, Any]:
    names = {name: {"type": "string"} for name in ("id", "owned_by", "root")}
    model = _object({**names, "object": {"const": "model"}, "created": _COUNT}, ["id", "object"])
    return _object({"object": {"const": "list"}, "data": {"type": "array", "items": model}}, ["object", "data"])


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """With what else vLLM may say."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": True}
