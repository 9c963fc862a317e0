"""Which errors a route can answer. Their statuses, codes and bodies follow from the tables of errors."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from idiolect.errors import IdiolectError, LayoutError
from idiolect_server.door.access import is_open
from idiolect_server.door.dialect import is_anthropic, is_openai, told
from idiolect_server.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    EngineDead,
    GenerationFailed,
    HeadersTooLarge,
    NotReady,
    Overloaded,
    PromptTooLong,
    RequestError,
    RequestTimeout,
    Stopping,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    Unauthorized,
    UnknownHost,
)

Errors = tuple[type[IdiolectError], ...]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

STORE: Errors = (StoreError, StoreUnavailable, StoreRefused, StoreDenied, StoreFull)
"""Of routes that need the store."""
REPLY: Errors = (PromptTooLong, LayoutError, Overloaded, DeadlineExceeded, GenerationFailed)
"""Of routes that have the model write."""
ANYWHERE: Errors = (HeadersTooLarge, RequestTimeout, IdiolectError)
BUT_HEALTH: Errors = (BodyTooLarge, NotReady, Stopping, EngineDead)


def raises(*errors: type[IdiolectError]) -> Callable[[Endpoint], Endpoint]:
    """What a route answers besides that which stands before every route, and what it says of its own fields."""

    def noted(endpoint: Endpoint) -> Endpoint:
        vars(endpoint)["raises"] = errors
        return endpoint

    return noted


def before(path: str, with_keys: bool) -> Errors:
    """What the door and the server as a whole answer at a path (door/access.py, door/connection.py)."""
    found: Errors = ANYWHERE if is_open(path) else (*ANYWHERE, *BUT_HEALTH)
    if not with_keys:
        return (*found, UnknownHost)
    return found if is_open(path) else (*found, Unauthorized)


def responses(errors: Iterable[type[IdiolectError]], path: str) -> dict[str, dict[str, Any]]:
    """By status, what an operation at the path answers with these errors; 400, for what is no HTTP, with every one."""
    codes: dict[int, set[str]] = defaultdict(set)
    retried: set[int] = set()
    for error, status in [(RequestError, 400), *((each, None) for each in errors)]:
        code, body = told(error("x"), path, status)
        codes[code].add(body["error"]["code"])
        if issubclass(error, Overloaded):
            retried.add(code)
    return {str(status): _response(sorted(found), path, status in retried) for status, found in sorted(codes.items())}


def _response(codes: list[str], path: str, retried: bool) -> dict[str, Any]:
    name = "AnthropicError" if is_anthropic(path) else "OpenAIError" if is_openai(path) else "NativeError"
    # Beside the reference, not in an `allOf` with it: generators of clients would make a type of each.
    of_these = {"error": {"properties": {"code": {"enum": codes}}}}
    error = {"$ref": f"#/components/schemas/{name}", "properties": of_these}
    response: dict[str, Any] = {
        "description": " or ".join(f"`{code}`" for code in codes),
        "content": {"application/json": {"schema": error}},
    }
    if retried:
        seconds = {"type": "integer", "minimum": 0}
        response["headers"] = {"Retry-After": {"description": "Seconds (RFC 9110, 10.2.3).", "schema": seconds}}
    return response


_TOLD = {
    "message": {"type": "string", "description": "For people; it may change."},
    "hint": {"type": "string", "description": "What to do about it; may be empty."},
    "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
}
_CODE = {"type": "string", "description": "Which error it is; it does not change."}


def _schema(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    error = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    whole = {"type": "object", "properties": {"error": error}, "required": ["error"], "additionalProperties": False}
    return {**whole, "description": description}


_OPENAI = {
    **_TOLD,
    "code": _CODE,
    "type": {"type": "string", "description": "Which kind of error, as the API names it."},
    "param": {"type": ["string", "null"], "description": "The field that is at fault, where it is one."},
}
_ANTHROPIC = _schema("What every error below /v1/messages becomes: Anthropic's, with what OpenAI's has.", _OPENAI)
_ANTHROPIC["properties"] = {"type": {"const": "error"}, **_ANTHROPIC["properties"]}
_ANTHROPIC["required"] = ["type", "error"]
SCHEMAS = {
    "NativeError": _schema("What every error of the native API becomes.", {"code": _CODE, **_TOLD}),
    "OpenAIError": _schema("What every error below /v1 becomes: OpenAI's error object, with our hint.", _OPENAI),
    "AnthropicError": _ANTHROPIC,
}
