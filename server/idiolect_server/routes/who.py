"""Who a request is for, wherever the caller says it; and how it was personalized, told in the answer.

Frameworks drop fields that they do not know, and hide headers: so both can be said in either place.
"""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Header, Request
from pydantic import TypeAdapter, ValidationError

from idiolect.text import UserId
from idiolect_server.errors import RequestError, first_problem
from idiolect_server.users.personalizer import Personalization
from idiolect_server.wire.native import PersonalizationInfo

USER_HEADER = "x-idiolect-user"
_ENCODED = re.compile(r"(?:[\x20-\x24\x26-\x7e]|%[0-9A-Fa-f]{2})*")
UserHeader = Annotated[
    str | None,
    Header(
        alias=USER_HEADER,
        description="Who the request is for, where the body does not say: a user id, percent-encoded (RFC 3986).",
        json_schema_extra={"examples": ["ada", "zo%C3%AB"], "pattern": f"^{_ENCODED.pattern}$"},
    ),
]
"""Documented so in a route's signature; `user_of` reads it."""
FIELDS = ("user", "safety_identifier")
"""Where the OpenAI API has the user, the first that says somebody."""
_user_id: TypeAdapter[str] = TypeAdapter(UserId)


def user_of(http: Request, **said: object) -> str | None:
    """The user whom the fields `said`, or else the header, name; an empty text is nobody.

    Raises RequestError for what is no user id, and where two of them name different users.
    """
    found: dict[str, str] = {}
    for field, value in said.items():
        if value is not None and value != "":
            found[field] = _checked(field, value)
    for value in http.headers.getlist(USER_HEADER):
        if value:
            found.setdefault(USER_HEADER, _decoded(value))
            if _decoded(value) != found[USER_HEADER]:
                raise RequestError(f"{USER_HEADER}: sent twice, for different users", param=USER_HEADER)
    if len(set(found.values())) > 1:
        raise RequestError(f"{' and '.join(found)} name different users", param=next(iter(found)))
    return next(iter(found.values()), None)


def _decoded(value: str) -> str:
    """RFC 3986, section 2.1, of UTF-8: a header is bytes, and clients differ in how they write others."""
    if not _ENCODED.fullmatch(value):
        raise RequestError(f"{USER_HEADER}: want a percent-encoded user id, as zo%C3%AB", param=USER_HEADER)
    try:
        return _checked(USER_HEADER, unquote(value, errors="strict"))
    except UnicodeDecodeError:
        raise RequestError(f"{USER_HEADER}: what is percent-encoded is not UTF-8", param=USER_HEADER) from None


def _checked(field: str, value: object) -> str:
    try:
        return _user_id.validate_python(value, strict=True)
    except ValidationError as error:
        raise RequestError(f"{field}: {first_problem(error.errors())}", param=field) from None


def told(who: Personalization) -> dict[str, Any]:
    """How a reply is personalized, as every reply's body says it."""
    return info(who).model_dump()


def info(who: Personalization) -> PersonalizationInfo:
    return PersonalizationInfo(state=who.state, bundle=who.bundle_id, votes=who.votes)


async def told_first(lines: AsyncGenerator[str, None], who: Personalization) -> AsyncGenerator[str, None]:
    """The same in the first event of a stream, whose name, if it has one, stands before its data."""
    async with aclosing(lines):
        async for line in lines:
            name, _, data = line.partition("data: ")
            yield f"{name}data: {json.dumps({**json.loads(data), 'personalization': told(who)})}\n\n"
            break
        async for line in lines:
            yield line
