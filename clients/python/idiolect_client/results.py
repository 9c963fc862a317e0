"""What the server answers. Fields that this version does not know are ignored."""

import json
from dataclasses import dataclass, is_dataclass
from typing import TypeVar, get_type_hints

from idiolect_client.errors import UnexpectedResponse

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one generation. `cached_tokens` are those of the prompt that were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Personalization:
    """How a generation was personalized.

    `state` is "stored", "inferred", "generic" or "degraded"; `votes` is how many votes the user has given, None
    where the server cannot tell.
    """

    state: str
    bundle: str
    votes: int | None


@dataclass(frozen=True, slots=True)
class Generation:
    """One reply. `finish_reason` is "stop" or "length"."""

    generation_id: str
    text: str
    finish_reason: str
    usage: Usage
    personalization: Personalization


@dataclass(frozen=True, slots=True)
class Vote:
    """An accepted vote. `votes` counts the user's; `duplicate` means that this one was counted before."""

    vote_id: str
    votes: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class User:
    """What the server knows of a user. `state` and `votes` are those of Personalization."""

    user_id: str
    known: bool
    state: str
    votes: int | None
    bundle: str


def parse(result: type[Result], content: bytes | str) -> Result:
    """Read a result from JSON.

    Raises:
        UnexpectedResponse: it is not JSON, or a field is absent or of another type.
    """
    return build(result, decode(content))


def decode(content: bytes | str) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        UnexpectedResponse: it is not a JSON object.
    """
    try:
        value = json.loads(content)
    except ValueError as error:
        raise UnexpectedResponse(f"The answer is not JSON: {content[:200]!r}") from error
    if not isinstance(value, dict):
        raise UnexpectedResponse(f"The answer is not a JSON object: {content[:200]!r}")
    return value


def build(result: type[Result], value: object) -> Result:
    """Build a result from a decoded JSON value.

    Raises:
        UnexpectedResponse: a field is absent or of another type.
    """
    if not isinstance(value, dict):
        raise UnexpectedResponse(f"{result.__name__} is not an object: {value!r}")
    fields: dict[str, object] = {}
    for name, kind in get_type_hints(result).items():
        field = value.get(name)
        if isinstance(kind, type) and is_dataclass(kind):
            field = build(kind, field)
        elif not isinstance(field, kind):
            raise UnexpectedResponse(f"{result.__name__}.{name} is not {kind}: {field!r}")
        fields[name] = field
    return result(**fields)
