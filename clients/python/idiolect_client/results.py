"""What the server answers. Fields that this version does not know are ignored."""

import json
from dataclasses import dataclass, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

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

    `state` is "stored", "inferred", "unexplained" (nobody whom the server knows would vote like this user, who is
    served as before the votes), "generic" or "degraded"; `votes` is how many votes the user has given, None where the
    server cannot tell.
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
    """An accepted vote. `votes` counts the user's; `duplicate` means that this one was counted before.

    `state` is how the user is served from now on, `effective_votes` as in User. `effect` is what the vote does:
    "counted", "trained" (the user's code was trained on it), "to_be_scored" (it counts once its pair has been scored),
    "set_aside", "unscorable" or "no_bank" (the bundle infers nobody). All three are None where the server could not
    tell.
    """

    vote_id: str
    votes: int
    duplicate: bool
    state: str | None
    effective_votes: int | None
    effect: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """What the server serves. `votes_count` says whether votes change replies; if not, `why_not` says why.

    `questions` is how many the bundle's bank holds.
    """

    bundle: str
    base_model: str
    user_model: str
    trained_users: int
    cluster_names: list[str] | None
    questions: int
    votes_count: bool
    why_not: str | None
    store: str


@dataclass(frozen=True, slots=True)
class User:
    """What the server knows of a user. `state` and `votes` are those of Personalization.

    `effective_votes` are those that say something about the user, `outdated_votes` older ones that these contradict;
    `uncertainty` falls from 1 to 0, None without effective votes; `belief` are the weights of the clusters by name,
    None where the bundle has no names. `trained_votes` are those that the user's code was trained on: they are in it,
    and no effective votes on top of it; None where the server does not say. `belief_in_words` is the belief as a
    sentence, which says so where nothing is believed; None from servers that have no words. `familiar` is the
    probability that somebody whom the server knows would vote so; None without effective votes.
    """

    user_id: str
    known: bool
    state: str
    votes: int | None
    bundle: str
    profile: str | None
    effective_votes: int
    outdated_votes: int
    uncertainty: float | None
    belief: dict[str, float] | None
    trained_votes: int | None = None
    belief_in_words: str | None = None
    familiar: float | None = None


@dataclass(frozen=True, slots=True)
class ListedUser:
    """A user of whom the server has votes or a profile."""

    user_id: str
    votes: int
    has_profile: bool


@dataclass(frozen=True, slots=True)
class GivenVote:
    """A vote of a user, as it was given. `effect` is what it does now, as in Vote; `given_at` is RFC 3339, in UTC.

    `kind` is "comparison", "edit", "thumb" or "tie"; of a tie `chosen` and `rejected` are the two replies, of which
    neither was preferred. None where the server does not say.
    """

    vote_id: str
    given_at: str
    messages: list[dict[str, str]]
    chosen: str
    rejected: str
    effect: str
    consent: bool
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """Two replies for a user to compare. `messages` is what they reply to."""

    question_id: str
    messages: list[dict[str, str]]
    first: str
    second: str
    expected_gain: float


@dataclass(frozen=True, slots=True)
class Erasure:
    """How much of a user was deleted."""

    user_id: str
    erased_at: str
    votes: int
    generations: int
    codes: int
    profiles: int


def parse(result: type[Result], content: bytes | str) -> Result:
    """Read a result from JSON.

    Raises:
        UnexpectedResponse: it is not JSON, or a field is absent or of another type.
    """
    return build(result, decode(content))


def parse_candidates(content: bytes | str) -> tuple[Generation, Generation]:
    """Read two generations from JSON.

    Raises:
        UnexpectedResponse: it is not JSON, or not two generations.
    """
    match decode(content).get("candidates"):
        case [first, second]:
            return build(Generation, first), build(Generation, second)
        case other:
            raise UnexpectedResponse(f"The answer holds no two candidates: {other!r}")


def parse_question(content: bytes | str) -> Question | None:
    """Read a question from JSON, None when there is nothing left to ask.

    Raises:
        UnexpectedResponse: it is not JSON, or not a question.
    """
    value = decode(content)
    if "question" not in value:
        raise UnexpectedResponse(f"The answer holds no question: {content[:200]!r}")
    return None if value["question"] is None else build(Question, value["question"])


def parse_page(result: type[Result], field: str, content: bytes | str) -> tuple[list[Result], str | None]:
    """Read one page of results from JSON, and the cursor of the next, None after the last.

    Raises:
        UnexpectedResponse: it is not JSON, or not a page.
    """
    match decode(content):
        case {"cursor": (str() | None) as cursor, **rest} if isinstance(found := rest.get(field), list):
            return [build(result, one) for one in found], cursor
        case other:
            raise UnexpectedResponse(f"The answer is no page of {field}: {other!r}")


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
        elif not _is(field, kind):
            raise UnexpectedResponse(f"{result.__name__}.{name} is not {kind}: {field!r}")
        fields[name] = field
    return result(**fields)


def _is(field: object, kind: Any) -> bool:
    """Whether a value is of a type, or of one of a union's; what lists and dicts hold is not looked at."""
    if isinstance(kind, UnionType):
        return any(_is(field, one) for one in get_args(kind))
    plain: type = get_origin(kind) or kind
    return isinstance(field, plain)
