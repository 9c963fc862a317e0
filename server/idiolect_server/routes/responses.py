"""/v1/responses: OpenAI's later protocol, personalized as chat completions are. Nothing is stored."""

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from idiolect.errors import IdiolectError
from idiolect_server.errors import ConstraintRefused, UnknownModel
from idiolect_server.errors import body as error_body
from idiolect_server.openapi.answers import RESPONSE
from idiolect_server.openapi.refusals import REPLY, raises
from idiolect_server.openapi.requests import ref
from idiolect_server.routes import who as whose
from idiolect_server.routes.openai import reply
from idiolect_server.routes.stream import described, event

router = APIRouter(prefix="/v1", tags=["OpenAI"])
ANSWERED: dict[str, Any] = {
    "description": "The response, or its events as server-sent events.",
    "content": {"application/json": {"schema": ref(RESPONSE)}, **described()},
}


@router.post("/responses", responses={200: ANSWERED})
@raises(*REPLY, UnknownModel, ConstraintRefused)
async def responses(body: dict[str, Any], http: Request, user: whose.UserHeader = None) -> Response:
    """A response in the way that `user` prefers."""
    return await reply(http, body, "respond", _told)


def _told(error: IdiolectError) -> str:
    """As the protocol tells of an error in a stream."""
    told = {"type": "error", "sequence_number": 0, "param": None, **error_body(error)["error"]}
    return event("error", json.dumps(told))
