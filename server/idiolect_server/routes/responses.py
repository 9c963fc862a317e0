"""/v1/responses: OpenAI's later protocol, personalized as chat completions are. Nothing is stored."""

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from idiolect.errors import IdiolectError
from idiolect_server.errors import body as error_body
from idiolect_server.routes.openai import reply
from idiolect_server.routes.stream import event

router = APIRouter(prefix="/v1")


@router.post("/responses")
async def responses(body: dict[str, Any], http: Request) -> Response:
    """A response in the way that `user` prefers."""
    return await reply(http, body, "respond", _told)


def _told(error: IdiolectError) -> str:
    """As the protocol tells of an error in a stream."""
    told = {"type": "error", "sequence_number": 0, "param": None, **error_body(error)["error"]}
    return event("error", json.dumps(told))
