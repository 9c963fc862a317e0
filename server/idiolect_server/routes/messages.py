"""/v1/messages: Anthropic's protocol, personalized as chat completions are. `metadata.user_id` is the user."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from idiolect.errors import IdiolectError
from idiolect_server.door.dialect import told
from idiolect_server.errors import ConstraintRefused, UnknownModel
from idiolect_server.openapi.answers import MESSAGE, TOKEN_COUNT
from idiolect_server.openapi.refusals import REPLY, raises
from idiolect_server.openapi.requests import ref
from idiolect_server.routes import who as whose
from idiolect_server.routes.openai import reply
from idiolect_server.routes.stream import described, event

router = APIRouter(prefix="/v1/messages", tags=["Anthropic"])
ANSWERED: dict[str, Any] = {
    "description": "The message, or its events as server-sent events.",
    "content": {"application/json": {"schema": ref(MESSAGE)}, **described()},
}
COUNTED: dict[str, Any] = {
    "description": "`input_tokens`.",
    "content": {"application/json": {"schema": ref(TOKEN_COUNT)}},
}


@router.post("", responses={200: ANSWERED})
@raises(*REPLY, UnknownModel, ConstraintRefused)
async def messages(body: dict[str, Any], http: Request, user: whose.UserHeader = None) -> Response:
    """A message in the way that the user of `metadata.user_id` prefers."""
    return await reply(http, _with_user(body), "message", _told)


@router.post("/count_tokens", responses={200: COUNTED})
@raises(*REPLY, UnknownModel, ConstraintRefused)
async def count_tokens(body: dict[str, Any], http: Request, user: whose.UserHeader = None) -> Response:
    """How many tokens the prompt of such a message has."""
    return await reply(http, _with_user(body), "count", _told)


def _with_user(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with `user`, where our other routes have it."""
    metadata = body.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    return {**body, "user": body.get("user", user_id)}


def _told(error: IdiolectError) -> str:
    """As the protocol tells of an error in a stream."""
    return event("error", json.dumps(told(error, "/v1/messages")[1]))
