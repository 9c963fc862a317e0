"""In which words an error is told: ours, or, below /v1, those of the API that is spoken there, whose clients read them.

The names are those of OpenAI's own answers (API reference, "Error codes", and its Python client's classes): `type` is
the kind of error, `code` the error, `param` the field of the request that is at fault.
"""

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from idiolect.errors import IdiolectError
from idiolect_server.errors import PromptTooLong, RequestError, Unauthorized, UnknownModel, body, headers, status

CODES: dict[type[IdiolectError], str] = {
    PromptTooLong: "context_length_exceeded",
    UnknownModel: "model_not_found",
    Unauthorized: "invalid_api_key",
}
"""Errors that have a well-known name there. All others keep ours."""
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
"""By status; other errors of the caller are `invalid_request_error`, and ours `server_error`."""


def is_openai(path: str) -> bool:
    """Whether the OpenAI API is spoken at a path."""
    return path == "/v1" or path.startswith("/v1/")


def is_anthropic(path: str) -> bool:
    """Whether the Anthropic API is spoken at a path."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def openai_status(error: IdiolectError) -> int:
    """The HTTP status there: 400 for what the first table has as 422, and for a prompt that is too long."""
    found = status(error)
    return 400 if found == HTTPStatus.UNPROCESSABLE_ENTITY or isinstance(error, PromptTooLong) else found


def openai_error(error: IdiolectError, code: int | None = None) -> dict[str, Any]:
    """OpenAI's error object, with our hint and whether a retry can help; `code` is the status if it is another."""
    code = openai_status(error) if code is None else code
    ours = body(error)["error"]
    return {
        "message": ours["message"],
        "type": TYPES.get(code, "invalid_request_error" if code < 500 else "server_error"),
        "param": error.param if isinstance(error, RequestError) else None,
        "code": CODES.get(type(error), error.code),
        "hint": error.hint,
        "retryable": error.retryable,
    }


def told(error: IdiolectError, path: str, code: int | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an error at a path. `code` is the status where it is not the error's own."""
    if is_openai(path):
        code = openai_status(error) if code is None else code
        said = openai_error(error, code)
        if is_anthropic(path):
            # Its reference, "Errors": the same kinds by the same names, but for the server's own.
            said["type"] = "api_error" if said["type"] == "server_error" else said["type"]
            return code, {"type": "error", "error": said}
        return code, {"error": said}
    return status(error) if code is None else code, body(error)


def answer(
    error: IdiolectError, path: str, code: int | None = None, more: dict[str, str] | None = None
) -> JSONResponse:
    """The whole answer; `more` are further headers."""
    found, content = told(error, path, code)
    return JSONResponse(content, found, {**headers(error), **(more or {})})
