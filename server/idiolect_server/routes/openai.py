"""/v1/chat/completions, /v1/completions and /v1/models: the OpenAI API, with `user` honoured."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from idiolect.errors import IdiolectError
from idiolect.text import is_printable
from idiolect_server.door.dialect import openai_error
from idiolect_server.engine.protocol.fields import MAX_CHOICES
from idiolect_server.errors import ConstraintRefused, NotFound, PromptTooLong, RequestError, UnknownModel
from idiolect_server.giving_back import give_back_after
from idiolect_server.openapi.answers import COMPLETION, CONTINUATION, MODEL, MODELS
from idiolect_server.openapi.refusals import REPLY, raises
from idiolect_server.openapi.requests import ref
from idiolect_server.prompt import UserTokens
from idiolect_server.routes import who as whose
from idiolect_server.routes.caller import unless_caller_leaves
from idiolect_server.routes.completion import Completion, turns
from idiolect_server.routes.stream import EventStream, described
from idiolect_server.serving import leased, serving

router = APIRouter(prefix="/v1", tags=["OpenAI"])

CHARACTERS_A_TOKEN = 4
"""About, of English: vLLM counts the tokens, after admission."""
COMPLETED: dict[str, Any] = {
    "description": "A completion, or its chunks as server-sent events, after which `[DONE]` comes.",
    "content": {
        "application/json": {"schema": ref(COMPLETION)},
        **described(),
    },
}
CONTINUED: dict[str, Any] = {
    "description": "The continuations, or their chunks as server-sent events, after which `[DONE]` comes.",
    "content": {"application/json": {"schema": ref(CONTINUATION)}, **described()},
}
STATE_HEADER = "x-idiolect-personalization"
IN_THE_PROMPT = (
    *("messages", "tools", "documents", "chat_template_kwargs"),
    *("prompt", "input", "instructions", "system"),
)
"""Fields of a body, of whatever protocol, whose texts stand in the prompt."""
Told = Callable[[IdiolectError], str]
Verb = Literal["chat", "complete", "respond", "message", "count"]
"""A method of ChatApi."""


@router.post("/chat/completions", responses={200: COMPLETED})
@raises(*REPLY, UnknownModel, ConstraintRefused)
async def chat_completions(body: dict[str, Any], http: Request, user: whose.UserHeader = None) -> Response:
    """A chat completion in the way that `user` prefers; `personalization` in the answer says how.

    The body is what vLLM takes for one: the OpenAI API, and vLLM's own fields. A stream says `personalization` in its
    first chunk.
    """
    return await reply(http, body, "chat", _told)


@router.post("/completions", responses={200: CONTINUED})
@raises(*REPLY, UnknownModel, ConstraintRefused)
async def completions(body: dict[str, Any], http: Request, user: whose.UserHeader = None) -> Response:
    """The continuation of a raw prompt, in the way that `user` prefers."""
    return await reply(http, body, "complete", _told)


async def reply(http: Request, body: dict[str, Any], verb: Verb, told: Told) -> Response:
    """The answer to a request of any of these protocols; `told` has an error as the protocol's streams tell of one."""
    release, live = leased(http), serving(http.app)
    live.admission.check()
    deadline, began_s = live.admission.deadline(), time.time()
    user_id = whose.user_of(http, **{field: body.get(field) for field in whose.FIELDS})
    named = release.named(body.get("model"))
    said = {field: list(_texts(body.get(field))) for field in IN_THE_PROMPT}
    live.engine.conversations.check(*said["messages"])  # before anybody reads a text that cannot fit
    for field, texts in said.items():
        if not all(map(is_printable, texts)):
            raise RequestError(f"{field}: control characters are not allowed", param=field)
    who = await release.personalizer.find(user_id if named.is_personal else None)
    if body.get("frequency_penalty") is None and named.has_tokens:
        body = {**body, "frequency_penalty": release.frequency_penalty}
    inside = ExitStack()
    inside.enter_context(live.admission.reply(*_size(body, live.engine.max_model_len)))
    give_back_after(http, inside.close)  # a stream goes on when this function has returned
    user_tokens = who.user_tokens if named.has_tokens else None
    work = _fitting(getattr(named.chat, verb), body, user_tokens, who.profile)
    answered = await unless_caller_leaves(http, work, deadline)
    if answered is None:
        return Response(status_code=499)  # nobody is listening any more
    (status, answer), profile = answered
    headers = {STATE_HEADER: who.state}
    kept = None
    if verb in ("chat", "message") and named.is_personal and user_id is not None:
        messages = body["messages"] if verb == "chat" else turns(body)
        kept = Completion(live, who, user_id, messages, began_s, profile)
    if isinstance(answer, dict):
        if kept is not None:
            await kept.whole(answer)
        return JSONResponse({**answer, "personalization": whose.told(who)}, status_code=status, headers=headers)
    lines = answer if kept is None else kept.streamed(answer)
    return EventStream(http, whose.told_first(lines, who), told, deadline, headers)


async def _fitting(
    ask: Callable[..., Awaitable[Any]], body: dict[str, Any], user_tokens: UserTokens | None, profile: str | None
) -> tuple[Any, str | None]:
    """The answer, and the profile in its prompt: a stored one must not cost its user a reply that fits without it.

    Raises what `ask` raises.
    """
    try:
        return await ask(body, user_tokens, profile), profile
    except PromptTooLong:
        if profile is None:
            raise
        return await ask(body, user_tokens), None


def _told(error: IdiolectError) -> str:
    """As the protocol tells of an error in a stream, whose clients raise it: `[DONE]` does not follow."""
    return f"data: {json.dumps({'error': openai_error(error)})}\n\n"


def _size(body: dict[str, Any], max_model_len: int) -> tuple[int, int, int]:
    """Tokens of the prompt, most tokens of a choice, and choices of a body that vLLM has yet to check: roughly."""
    asked = body.get("max_completion_tokens"), body.get("max_tokens"), body.get("max_output_tokens")
    max_tokens = next((n for n in asked if isinstance(n, int) and n > 0), max_model_len)
    n_choices = body["n"] if isinstance(body.get("n"), int) and body["n"] > 0 else 1
    if isinstance(prompts := body.get("prompt"), list) and prompts and not isinstance(prompts[0], int):
        n_choices *= len(prompts)
    n_characters = sum(len(text) for field in IN_THE_PROMPT for text in _texts(body.get(field)))
    return min(n_characters // CHARACTERS_A_TOKEN, max_model_len), max_tokens, min(n_choices, MAX_CHOICES)


@router.get("/models", responses={200: {"content": {"application/json": {"schema": ref(MODELS)}}}})
async def models(http: Request) -> JSONResponse:
    """The release by each of its names."""
    return JSONResponse({"object": "list", "data": await _cards(http)})


@router.get("/models/{name:path}", responses={200: {"content": {"application/json": {"schema": ref(MODEL)}}}})
@raises(NotFound, UnknownModel)
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
