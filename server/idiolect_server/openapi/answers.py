"""Answers of other APIs as schemas: the main fields of each, with what else vLLM may say."""

from typing import Any, get_args

from idiolect_server.engine.chat_request import ChatMessage
from idiolect_server.openapi.requests import ref

COMPLETION, CONTINUATION, RESPONSE = "ChatCompletion", "Completion", "ResponseObject"
MESSAGE, TOKEN_COUNT, MODEL, MODELS = "AnthropicMessage", "TokenCount", "Model", "ModelList"

_TEXT = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_SECONDS = {**_COUNT, "description": "Unix seconds."}
_FINISH = {"enum": ["stop", "length", "tool_calls", "content_filter", "function_call", "abort", "repetition", None]}
_PERSONALIZATION = {"personalization": ref("PersonalizationInfo")}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """All of the properties are always there, or only those that are `required`."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required or properties),
        "additionalProperties": True,
    }


def _list(items: dict[str, Any], **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **bounds}


def _usage(*names: str) -> dict[str, Any]:
    return _object(dict.fromkeys(names, _COUNT))


def _completed(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    usage = _usage("prompt_tokens", "completion_tokens", "total_tokens")
    made = {"id": _TEXT, "object": {"const": kind}, "created": _SECONDS, "model": _TEXT}
    return _object({**made, "choices": _list(choice, minItems=1), "usage": usage, **_PERSONALIZATION})


# vLLM gives a reply that goes on with the last message the role of that one.
_SAID = _object({"role": {"enum": list(get_args(ChatMessage.model_fields["role"].annotation))}, "content": _MAYBE})
_CARD = {"id": _TEXT, "object": {"const": "model"}, "owned_by": _TEXT, "root": _TEXT, "created": _SECONDS}
_BLOCK = _object({"type": {"enum": ["text", "tool_use", "thinking", "redacted_thinking"]}, "text": _MAYBE}, "type")
_RESPONSE = {
    "id": _TEXT,
    "object": {"const": "response"},
    "created_at": _SECONDS,
    "model": _TEXT,
    "status": {"enum": ["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]},
    "output": _list(_object({"type": {"type": "string"}})),
    "usage": _usage("input_tokens", "output_tokens", "total_tokens"),
    **_PERSONALIZATION,
}
_MESSAGE = {
    "id": _TEXT,
    "type": {"const": "message"},
    "role": {"const": "assistant"},
    "model": _TEXT,
    "content": _list(_BLOCK),
    "stop_reason": {"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use", None]},
    "usage": _usage("input_tokens", "output_tokens"),
    **_PERSONALIZATION,
}
SCHEMAS = {
    COMPLETION: _completed(
        "chat.completion", _object({"index": _COUNT, "message": _SAID, "finish_reason": _FINISH}, "index", "message")
    ),
    CONTINUATION: _completed(
        "text_completion", _object({"index": _COUNT, "text": _TEXT, "finish_reason": _FINISH}, "index", "text")
    ),
    RESPONSE: _object(_RESPONSE),
    MESSAGE: _object(_MESSAGE),
    TOKEN_COUNT: _object({"input_tokens": _COUNT, **_PERSONALIZATION}),
    MODEL: _object(_CARD, "id", "object"),
    MODELS: _object({"object": {"const": "list"}, "data": _list(ref(MODEL))}),
}
