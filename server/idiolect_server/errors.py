"""What the service can answer with when it cannot answer, and the one table from error to HTTP status."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from idiolect.errors import BundleError, IdiolectError, LayoutError, UserCodeError


class RequestError(IdiolectError):
    """The request cannot be served as it is. `param`: the field that is at fault, where it is one."""

    code = "invalid_request"

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class PromptTooLong(RequestError):
    """The prompt and one token of reply exceed the model's length."""

    code = "prompt_too_long"


class ConstraintRefused(RequestError):
    """The structured output that a reply should have is not supported, or could cost others their replies."""

    code = "structured_output_refused"


class UnknownModel(RequestError):
    """The request names a model that is not served."""

    code = "unknown_model"


class BodyTooLarge(RequestError):
    """The request body exceeds what this route takes."""

    code = "body_too_large"


class HeadersTooLarge(RequestError):
    """The headers of the request exceed 64 KiB."""

    code = "headers_too_large"


class RequestTimeout(RequestError):
    """Headers and body were not there after ten seconds."""

    code = "request_timeout"
    retryable = True


class UnknownHost(RequestError):
    """Without keys, only requests to the names of this machine are answered: another may be a web page's trick."""

    code = "unknown_host"


class NotFound(RequestError):
    """There is no such path."""

    code = "not_found"


class UnknownGeneration(RequestError):
    """Feedback names a generation that is not (or no longer) known."""

    code = "unknown_generation"


class UnknownQuestion(RequestError):
    """Feedback names a question that is not in the bundle's bank."""

    code = "unknown_question"


class UnknownVote(RequestError):
    """There is no such vote of this user."""

    code = "unknown_vote"


class IdempotencyConflict(RequestError):
    """The idempotency key was used before with another vote."""

    code = "idempotency_conflict"


class Unauthorized(RequestError):
    """The API key is absent or not one of the configured ones."""

    code = "unauthorized"


class VoteTooLarge(RequestError):
    """The vote, with its conversation, takes more bytes than one vote may."""

    code = "vote_too_large"


class TooManyVotes(RequestError):
    """The user has as many votes as one user may have."""

    code = "too_many_votes"


class StoreError(IdiolectError):
    """Redis has not done what it was asked. Replies go on without it."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """Redis does not answer, or not yet. A vote was not acknowledged; repeating it with the same key settles it."""

    code = "store_unavailable"
    retryable = True


class StoreRefused(StoreError):
    """Redis has answered, and the answer is an error: asking again does not help."""

    code = "store_refused"


class StoreDenied(StoreRefused):
    """Redis does not accept the server's user or password, or does not allow them a command or a key."""

    code = "store_denied"


class StoreFull(StoreRefused):
    """Redis is at its memory limit, or its disk is nearly full: nothing new is stored until there is room."""

    code = "store_full"


class Overloaded(IdiolectError):
    """More work waits for the engine than may wait. `retry_after_s`: about how long that takes."""

    code = "overloaded"
    retryable = True

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(Overloaded):
    """The reply was not finished within IDIOLECT_DEADLINE_S, and is given up."""

    code = "deadline_exceeded"


class NotReady(IdiolectError):
    """The engine is still starting."""

    code = "not_ready"
    retryable = True


class Stopping(IdiolectError):
    """The server is being stopped: it takes no requests, or could not finish this one in time."""

    code = "stopping"
    retryable = True


class EngineDead(IdiolectError):
    """The engine has stopped; the process exits so that its supervisor starts a new one."""

    code = "engine_dead"
    retryable = True


class GenerationFailed(IdiolectError):
    """The engine failed this one request and goes on with others."""

    code = "generation_failed"


class BundleUnservable(BundleError):
    """The engine is up and gives no sound reply with this bundle. The message says what was seen."""

    code = "bundle_unservable"


class BundleServed(IdiolectError):
    """The bundle is being served already."""

    code = "bundle_served"


class SettingsError(IdiolectError):
    """The server cannot start as configured."""

    code = "bad_settings"


STATUS: dict[type[IdiolectError], int] = {
    RequestError: 422,
    PromptTooLong: 413,
    BodyTooLarge: 413,
    HeadersTooLarge: 431,
    RequestTimeout: 408,
    UnknownHost: 421,
    NotFound: 404,
    UnknownModel: 404,
    UnknownGeneration: 404,
    UnknownQuestion: 404,
    UnknownVote: 404,
    IdempotencyConflict: 409,
    Unauthorized: 401,
    LayoutError: 422,
    UserCodeError: 500,
    BundleError: 500,
    VoteTooLarge: 413,
    TooManyVotes: 429,
    StoreError: 500,
    BundleServed: 409,
    StoreUnavailable: 503,
    StoreFull: 507,
    Overloaded: 429,
    DeadlineExceeded: 504,
    NotReady: 503,
    Stopping: 503,
    EngineDead: 503,
    SettingsError: 500,
    IdiolectError: 500,
}
"""Error -> HTTP status, looked up along the error's base classes."""


_NO_FIELD = re.compile(r"str|int|float|bool|dict|none|(constrained|function|json)-.*|.*[^a-z0-9_-].*|.{65,}", re.S)
"""Names of types that pydantic has tried, which a caller does not know, and whatever else is no field's name."""


def first_problem(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first of pydantic's errors in words, without the input, which may be huge or not printable."""
    where, reason = first_place(errors), str(_first(errors)["msg"]).removeprefix("Value error, ")
    message = f"{where}: {reason}" if where else reason
    return message.encode("utf-8", "replace").decode()[:500]


def first_place(errors: Sequence[Mapping[str, Any]]) -> str:
    """The field that the first of pydantic's errors is about, as `messages.0.role`; empty for the whole."""
    return _place(_first(errors))


def _first(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of a field that may be of several types, what is wrong with it as the one that it is."""
    place = _place(errors[0])
    of_field = [error for error in errors if place and f"{_place(error)}.".startswith(f"{place}.")]
    return next((error for error in of_field if not str(error.get("type", "")).endswith("_type")), errors[0])


def _place(error: Mapping[str, Any]) -> str:
    parts = error["loc"]
    if parts and parts[0] in ("body", "path", "query", "header"):
        parts = parts[1:]
    return ".".join(str(part) for part in parts if isinstance(part, int) or not _NO_FIELD.fullmatch(part))


def status(error: IdiolectError) -> int:
    """The HTTP status of an error."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def headers(error: IdiolectError) -> dict[str, str]:
    """What else an error answers with: Retry-After (RFC 9110, section 10.2.3), in seconds."""
    return {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else {}


def body(error: IdiolectError) -> dict[str, dict[str, object]]:
    """The JSON that every error becomes."""
    message = error.message.encode("utf-8", "replace").decode()  # it may repeat what a caller sent
    values = {"code": error.code, "message": message, "hint": error.hint, "retryable": error.retryable}
    return {"error": values}
