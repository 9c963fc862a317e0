"""/v1/chat/completions, /v1/completions and /v1/models: the OpenAI API, with `user` honoured."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter, ValidationError

from idiolect.errors import IdiolectError
from idiolect.text import UserId, is_printable
from idiolect_server.engine.protocol.fields import MAX_CHOICES
from idiolect_server.errors import NotFound, RequestError, first_problem
from idiolect_server.errors import body as error_body
from idiolect_server.giving_back import give_back_after
from idiolect_server.routes.caller import unless_caller_leaves
from idiolect_server.routes.stream import EventStream
from idiolect_server.serving import leased, serving

router = APIRouter(prefix="/v1")

CHARACTERS_A_TOKEN = 4
"""About, of English: vLLM counts the tokens, after admission."""
STATE_HEADER = "x-idiolect-personalization"
IN_THE_PROMPT = (
    *("messages", "tools", "documents", "chat_template_kwargs"),
    *("prompt", "input", "instructions", "system"),
)
"""Fields of a body, of whatever protocol, whose texts stand in the prompt."""
Told = Callable[[IdiolectError], str]
Verb = Literal["chat", "complete", "respond", "message", "count"]
"""A method of ChatApi."""
_user_id: TypeAdapter[str] = TypeAdapter(UserId)


@router.post("/chat/completions")
async def chat_completions(body: dict[str, Any], http: Request) -> Response:
    """A chat completion in the way that `user` prefers; the header `x-idiolect-personalization` says its state.

    The body is what vLLM takes for one: the OpenAI API, and vLLM's own fields.
    """
    return await reply(http, body, "chat", _told)


@router.post("/completions")
async def completions(body: dict[str, Any], http: Request) -> Response:
    """The continuation of a raw prompt, in the way that `user` prefers."""
    return await reply(http, body, "complete", _told)


async def reply(http: Request, body: dict[str, Any], verb: Verb, told: Told) -> Response:
    """The answer to a request of any of these protocols; `told` has an error as the protocol's streams tell of one."""
    release, live = leased(http), serving(http.app)
    live.admission.check()
    deadline = live.admission.deadline()
    try:
        user_id = None if body.get("user") is None else _user_id.validate_python(body["user"])
    except ValidationError as error:
        raise RequestError(f"user: {first_problem(error.errors())}") from None
    named = release.named(body.get("model"))
    for field in IN_THE_PROMPT:
        if not all(is_printable(text) for text in _texts(body.get(field))):
            raise RequestError(f"{field}: control characters are not allowed")
    who = await release.personalizer.find(user_id if named.is_personal else None)
    if body.get("frequency_penalty") is None and named.has_tokens:
        body = {**body, "frequency_penalty": release.frequency_penalty}
    inside = ExitStack()
    inside.enter_context(live.admission.reply(*_size(body, live.engine.max_model_len)))
    give_back_after(http, inside.close)  # a stream goes on when this function has returned
    work = getattr(named.chat, verb)(body, who.user_tokens if named.has_tokens else None, who.profile)
    answered = await unless_caller_leaves(http, work, deadline)
    if answered is None:
        return Response(status_code=499)  # nobody is listening any more
    status, answer = answered
    headers = {STATE_HEADER: who.state}
    if isinstance(answer, dict):
        return JSONResponse(answer, status_code=status, headers=headers)
    return EventStream(http, answer, told, deadline, headers)


def _told(error: IdiolectError) -> str:
    """As the protocol tells of an error in a stream, whose clients raise it: `[DONE]` does not follow."""
    told = {**error_body(error)["error"], "type": "server_error", "param": None}
    return f"data: {json.dumps({'error': told})}\n\n"


def _size(body: dict[str, Any], max_model_len: int) -> tuple[int, int, int]:
    """Tokens of the prompt, most tokens of a choice, and choices of a body that vLLM has yet to check: roughly."""
    asked = body.get("max_completion_tokens"), body.get("max_tokens"), body.get("max_output_tokens")
    max_tokens = next((n for n in asked if isinstance(n, int) and n > 0), max_model_len)
    n_choices = body["n"] if isinstance(body.get("n"), int) and body["n"] > 0 else 1
    if isinstance(prompts := body.get("prompt"), list) and prompts and not isinstance(prompts[0], int):
        n_choices *= len(prompts)
    n_characters = sum(len(text) for field in IN_THE_PROMPT for text in _texts(body.get(field)))
    return min(n_characters // CHARACTERS_A_TOKEN, max_model_len), max_tokens, min(n_choices, MAX_CHOICES)


@router.get("/models")
async def models(http: Request) -> JSONResponse:
    """The release by each of its names."""
    return JSONResponse({"object": "list", "data": await _cards(http)})


@router.get("/models/{name:path}")
async def model(name: str, http: Request) -> JSONResponse:
    """One of them."""
    if not name:
        raise NotFound(f"no such path: {http.url.path}")
    leased(http).named(name)
    return JSONResponse(next(card for card in await _cards(http) if card["id"] == name))


async def _cards(http: Request) -> list[Any]:
    listings = [await named.chat.models() for named in leased(http).names.values()]
    return [card for listing in listings for card in listing["data"]]


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value of JSON, however deep; names too."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
