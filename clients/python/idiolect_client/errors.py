"""Everything the client raises for a call, and how an error body becomes one of them."""

import json
from collections.abc import Mapping

import httpx


class IdiolectClientError(Exception):
    """Base of every error of this client."""


class TransportError(IdiolectClientError):
    """No answer: the server could not be reached, or the connection broke before the answer was complete.

    `sent` is False when no connection was made, so that the server cannot have acted on the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class StreamInterrupted(IdiolectClientError):
    """A stream ended before its last event. `text` is what had arrived."""

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.text = text


class UnexpectedResponse(IdiolectClientError):
    """A successful answer is not what an Idiolect server sends."""


class APIError(IdiolectClientError):
    """The server answered with an error. Codes without a class of their own are plain APIErrors.

    `status` is 200 when the error came inside a stream that had begun. `retry_after_s` is how long the server asks to
    wait before another try, if it says so.
    """

    def __init__(
        self,
        code: str,
        message: str,
        hint: str,
        retryable: bool,
        status: int,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{message} {hint}".rstrip())
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.status = status
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are rebuilt from args, which hold only the printed line: without this, no worker
        # process could pass the error on.
        return type(self), (self.code, self.message, self.hint, self.retryable, self.status, self.retry_after_s)


class InvalidRequest(APIError):
    """The request cannot be served as it is."""


class NoUserTurn(APIError):
    """The messages hold no turn of the user."""


class PromptTooLong(APIError):
    """The prompt leaves no room for a reply."""


class ConstraintRefused(APIError):
    """The form that a reply should have is not supported, or could cost others their replies."""


class UnknownModel(APIError):
    """The server serves no model of that name."""


class BodyTooLarge(APIError):
    """The request body exceeds what the server accepts."""


class HeadersTooLarge(APIError):
    """The headers of the request exceed what the server accepts."""


class RequestTimeout(APIError):
    """The request took too long to arrive."""


class UnknownHost(APIError):
    """The server has no API keys, and is asked by another name than this machine's own."""


class UnknownGeneration(APIError):
    """Feedback names a generation that the server does not (or no longer) know."""


class UnknownQuestion(APIError):
    """Feedback names a question that is not in the bank of the server's bundle."""


class UnknownVote(APIError):
    """The user has no such vote."""


class IdempotencyConflict(APIError):
    """The idempotency key was used before with another vote."""


class Unauthorized(APIError):
    """The API key is absent or wrong."""


class VoteTooLarge(APIError):
    """The vote, with its conversation, takes more bytes than the server keeps of one vote."""


class TooManyVotes(APIError):
    """The user has as many votes as the server keeps of one user."""


class StoreRefused(APIError):
    """The server's store has answered with an error: its operator has to look."""


class StoreFull(StoreRefused):
    """The server's store is full; its operator has to make room. Nothing that it has acknowledged is lost."""


class Overloaded(APIError):
    """More work waits at the server than it lets wait."""


class DeadlineExceeded(APIError):
    """The reply was not finished in the time that the server gives a request."""


class StoreUnavailable(APIError):
    """The server's store does not answer. Sending the same vote with the same key settles whether it counts."""


class NotReady(APIError):
    """The server is still starting."""


class Stopping(APIError):
    """The server is being stopped; another one may take the request, or the next one."""


class NotFound(APIError):
    """The server has no such path."""


class GenerationFailed(APIError):
    """The engine failed this request, and goes on with others."""


class EngineDead(APIError):
    """The server's engine has stopped; the server is about to be restarted."""


BY_CODE: dict[str, type[APIError]] = {
    "invalid_request": InvalidRequest,
    "no_user_turn": NoUserTurn,
    "prompt_too_long": PromptTooLong,
    "structured_output_refused": ConstraintRefused,
    "unknown_model": UnknownModel,
    "body_too_large": BodyTooLarge,
    "headers_too_large": HeadersTooLarge,
    "request_timeout": RequestTimeout,
    "unknown_host": UnknownHost,
    "unknown_generation": UnknownGeneration,
    "unknown_question": UnknownQuestion,
    "unknown_vote": UnknownVote,
    "idempotency_conflict": IdempotencyConflict,
    "unauthorized": Unauthorized,
    "vote_too_large": VoteTooLarge,
    "too_many_votes": TooManyVotes,
    "store_error": StoreRefused,
    "store_refused": StoreRefused,
    "store_denied": StoreRefused,
    "store_full": StoreFull,
    "overloaded": Overloaded,
    "deadline_exceeded": DeadlineExceeded,
    "store_unavailable": StoreUnavailable,
    "not_ready": NotReady,
    "stopping": Stopping,
    "engine_dead": EngineDead,
    "generation_failed": GenerationFailed,
    "not_found": NotFound,
}

# What a proxy answers while the server behind it is restarted.
PROXY_STATUSES = frozenset({502, 503, 504})


def api_error(status: int, content: bytes | str, headers: Mapping[str, str] | None = None) -> APIError:
    """The error that an answer with this status, body and headers stands for."""
    error = _api_error(status, content)
    after = (headers or {}).get("retry-after", "")
    if after.isdecimal() and len(after) < 10:  # it may be a date, but not ours
        error.retry_after_s = float(after)
    return error


def _api_error(status: int, content: bytes | str) -> APIError:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    match body:
        case {"error": {"code": str(code), "message": str(message), **rest}}:
            hint = str(rest.get("hint") or "")
            return BY_CODE.get(code, APIError)(code, message, hint, rest.get("retryable") is True, status)
        case {"status": str(state)}:
            # The readiness route reports its state in place of an error.
            return NotReady("not_ready", f"The server is {state}.", "", True, status)
    text = content if isinstance(content, str) else content.decode(errors="replace")
    message = f"The server answered {status}: {text[:200]}"
    return APIError("unknown", message, "", status in PROXY_STATUSES, status)


def transport_error(error: httpx.RequestError, method: str, path: str) -> TransportError:
    """What httpx raised, as an error of this client."""
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return TransportError(f"{method} {path}: {type(error).__name__} {error}".rstrip(), sent=not unsent)
