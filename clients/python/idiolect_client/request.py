"""One request to the server, before any connection. Both clients build their requests here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict
from urllib.parse import quote
from uuid import uuid4

from idiolect_client.errors import APIError, IdiolectClientError, TransportError

READY_TIMEOUT_S = 5.0
"""How long one look at the server's readiness may take."""


class Message(TypedDict):
    """One turn of a conversation: `role` is "system", "user" or "assistant"."""

    role: str
    content: str


class Options(TypedDict, total=False):
    """What `generate` and `stream` accept besides the prompt. None is the same as absent."""

    user_id: str | None
    """Whose preferences to follow; without it, the reply is generic."""
    messages: Sequence[Message] | None
    """The conversation, in place of a prompt."""
    profile: str | None
    """What the user says of themselves or wants, in words."""
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: Sequence[str] | None
    frequency_penalty: float | None
    """The bundle's if absent."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and whether doing it twice is the same as doing it once."""

    method: str
    path: str
    idempotent: bool
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None

    def may_repeat(self, error: IdiolectClientError) -> bool:
        """Whether it is safe, and of use, to send the request again after this error."""
        if isinstance(error, APIError):
            return error.retryable
        return isinstance(error, TransportError) and (self.idempotent or not error.sent)


def generation(
    prompt: str | None = None,
    *,
    user_id: str | None = None,
    messages: Sequence[Message] | None = None,
    profile: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] | None = None,
    frequency_penalty: float | None = None,
    stream: bool | None = None,
) -> Request:
    """Ask for a reply."""
    body = _present(
        prompt=prompt,
        user_id=user_id,
        messages=messages,
        profile=profile,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=stop,
        frequency_penalty=frequency_penalty,
        stream=stream,
    )
    # Not idempotent: a reply that was lost on its way may have been computed, and would be once more.
    return Request("POST", "/generate", idempotent=False, body=body)


def candidates(prompt: str | None, options: Options) -> Request:
    """Ask for two replies to compare."""
    request = generation(prompt, **options)
    return replace(request, body={**(request.body or {}), "candidates": 2})


class Comparison(TypedDict, total=False):
    """What `feedback` accepts: two texts and what they reply to, or the ids of two candidates.

    `chosen` is preferred to `rejected`; of two that are `tied`, in either order, neither is.
    """

    chosen: str
    rejected: str
    tied: Sequence[str]
    prompt: str | None
    messages: Sequence[Message] | None
    generation_id: str | None
    """The generation whose prompt the texts reply to."""
    question_id: str | None
    """The question of the server's bank that the texts answer."""
    chosen_generation_id: str
    rejected_generation_id: str
    tied_generation_ids: Sequence[str]
    chosen_index: int
    rejected_index: int
    tied_indices: Sequence[int]
    """Two choices of the chat completion that `generation_id` names."""
    shown_first: Literal["chosen", "rejected"]
    """Which of the two the user saw first; needed where the server has not said in which order to show them."""
    consent: bool
    """The user agrees that the vote may be exported and train a later bundle."""


class Judged(TypedDict, total=False):
    """What `thumb` and `edit` accept: the reply that they are about, by its generation, or as a text and its prompt."""

    generation_id: str | None
    prompt: str | None
    messages: Sequence[Message] | None
    reply: str | None
    consent: bool
    """The user agrees that the vote may be exported and train a later bundle."""


def feedback(user_id: str, idempotency_key: str | None, comparison: Comparison) -> Request:
    """Tell which of two replies a user prefers, or that it is neither."""
    return _vote(idempotency_key, _present(user_id=user_id, **comparison))


def thumb(thumb: Literal["up", "down"], user_id: str, idempotency_key: str | None, judged: Judged) -> Request:
    """Tell whether a user likes a reply."""
    return _vote(idempotency_key, _present(user_id=user_id, thumb=thumb, **judged))


def edit(edit: str, user_id: str, idempotency_key: str | None, judged: Judged) -> Request:
    """Tell what a user made of a reply."""
    return _vote(idempotency_key, _present(user_id=user_id, edit=edit, **judged))


def _vote(idempotency_key: str | None, body: Mapping[str, object]) -> Request:
    # The key belongs to the request, not to an attempt: it is what makes repeating the request safe.
    headers = {"Idempotency-Key": uuid4().hex if idempotency_key is None else idempotency_key}
    return Request("POST", "/feedback", idempotent=True, body=body, headers=headers)


def user(user_id: str) -> Request:
    """Ask what is known of a user."""
    return Request("GET", _path(user_id), idempotent=True)


def users(cursor: str | None) -> Request:
    """Ask for a page of users."""
    return Request("GET", f"/users{_after(cursor)}", idempotent=True)


def votes(user_id: str, cursor: str | None) -> Request:
    """Ask for a page of a user's votes."""
    return Request("GET", f"{_path(user_id)}/votes{_after(cursor)}", idempotent=True)


def status() -> Request:
    """Ask what is served."""
    return Request("GET", "/status", idempotent=True)


def question(user_id: str, skip: Collection[str]) -> Request:
    """Ask what to ask a user next."""
    query = "".join(f"{'&' if place else '?'}skip={quote(one, safe='')}" for place, one in enumerate(skip))
    return Request("GET", f"{_path(user_id)}/question{query}", idempotent=True)


def profile(user_id: str, text: str | None) -> Request:
    """Store what a user says in words, or forget it."""
    return Request("PUT", f"{_path(user_id)}/profile", idempotent=True, body={"profile": text})


def vote_taken_back(user_id: str, vote_id: str) -> Request:
    """Take one vote back."""
    # Not repeated after a broken connection: the second time the vote may be gone, which is an error.
    return Request("DELETE", f"{_path(user_id)}/votes/{quote(vote_id, safe='')}", idempotent=False)


def erasure(user_id: str) -> Request:
    """Erase a user."""
    return Request("DELETE", _path(user_id), idempotent=True)


def _path(user_id: str) -> str:
    # quote leaves dots alone, and a path of "." or ".." would be resolved away before it is sent.
    return f"/users/{quote(user_id, safe='').replace('.', '%2E')}"


def _after(cursor: str | None) -> str:
    return "" if cursor is None else f"?cursor={quote(cursor, safe='')}"


def ready() -> Request:
    """Ask whether the server is ready."""
    return Request("GET", "/health/ready", idempotent=True, timeout_s=READY_TIMEOUT_S)


def _present(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
