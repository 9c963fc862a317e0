"""POST /generate: one personalized reply, whole or streamed, or two to compare."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from idiolect.errors import IdiolectError
from idiolect.prompt.profile import with_profile
from idiolect_server.admission import until
from idiolect_server.engine.base import Engine, Sampling
from idiolect_server.errors import PromptTooLong, StoreError, body
from idiolect_server.giving_back import give_back_after
from idiolect_server.openapi.refusals import REPLY, raises
from idiolect_server.prompt import Placed, UserTokens
from idiolect_server.releases.release import Release
from idiolect_server.reply import Asked, Reply
from idiolect_server.routes import who as whose
from idiolect_server.routes.caller import unless_caller_leaves
from idiolect_server.routes.stream import EventStream, described, event
from idiolect_server.serving import leased, serving
from idiolect_server.users.sides import swapped
from idiolect_server.wire.native import CandidatesResponse, GenerateRequest, GenerateResponse, Usage

router = APIRouter(tags=["replies"])

STREAMED: dict[str, Any] = {
    "description": "One reply, two candidates, or a stream of the events start, text, done and error.",
    "content": described("start", "text", "done", "error"),
}
EXPLORING_TEMPERATURE = 0.8
"""Least temperature of a second candidate, which should differ from the first."""


@router.post("/generate", response_model=GenerateResponse | CandidatesResponse, responses={200: STREAMED})
@raises(*REPLY)
async def generate(request: GenerateRequest, http: Request, user: whose.UserHeader = None) -> Response:
    """A reply in the way that `user_id` prefers. Streams server-sent events when `stream` is true."""
    live, release = serving(http.app), leased(http)
    live.admission.check()
    deadline = live.admission.deadline()
    user_id = whose.user_of(http, user_id=request.user_id)
    who = await release.personalizer.find(user_id)
    asked = Asked(user_id, request.chat(), request.profile or who.profile)
    async with until(deadline):
        try:
            placed = await _placed(live.engine, release, asked, who.user_tokens)
        except PromptTooLong:
            if request.profile or not who.profile:
                raise
            # What the user once said of themselves must not cost them a reply that fits without it.
            asked = replace(asked, profile=None)
            placed = await _placed(live.engine, release, asked, who.user_tokens)
    sampling = Sampling(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=request.stop,
        end_id=release.layout.end_id,
        frequency_penalty=release.frequency_penalty if request.frequency_penalty is None else request.frequency_penalty,
    )
    inside = ExitStack()
    give_back_after(http, inside.close)  # a stream goes on when this function has returned
    for _ in range(request.candidates):
        inside.enter_context(live.admission.reply(placed.n_tokens, request.max_tokens))
    reply = Reply(live, release, asked, who, placed, sampling, deadline)
    if request.stream:
        return EventStream(http, _events(reply), _told, deadline)
    if request.candidates > 1:
        return await _pair(http, *_in_order(reply, await _other(reply)))
    if not await _made(http, reply):
        return Response(status_code=499)
    return Response(_response(reply).model_dump_json(), media_type="application/json")


async def _placed(engine: Engine, release: Release, asked: Asked, user_tokens: UserTokens) -> Placed:
    """Raises PromptTooLong before the first byte, so that a stream too answers with a status."""
    said = with_profile(asked.chat, asked.profile)
    placed = await engine.conversations.place(said, release.layout, user_tokens)
    if placed.n_tokens >= engine.max_model_len:
        raise PromptTooLong(
            f"the prompt has {placed.n_tokens} tokens, the model takes {engine.max_model_len} with the reply"
        )
    return placed


async def _other(first: Reply) -> Reply:
    """A second reply to compare with the first: drawn, and for a code that the user may have just as well."""
    who, user_id = first.who, first.asked.user_id
    if user_id is not None:
        with suppress(StoreError):
            who = await first.release.personalizer.explore(user_id, who)
    seed = None if first.sampling.seed is None else (first.sampling.seed + 1) % (1 << 63)
    temperature = max(first.sampling.temperature, EXPLORING_TEMPERATURE)
    sampling = replace(first.sampling, temperature=temperature, seed=seed)
    placed = replace(first.placed, user_tokens=who.user_tokens)
    return Reply(first.live, first.release, first.asked, who, placed, sampling, first.deadline)


def _in_order(likely: Reply, other: Reply) -> tuple[Reply, Reply]:
    """As they are to be shown: the likely one is not always the first."""
    asked = likely.asked
    back = asked.user_id is not None and swapped(asked.user_id, json.dumps(list(asked.chat)))
    first, second = (other, likely) if back else (likely, other)
    return replace(first, place=0), replace(second, place=1)


async def _pair(http: Request, first: Reply, second: Reply) -> Response:
    """Both replies, computed together."""
    both = [asyncio.ensure_future(_made(http, reply)) for reply in (first, second)]
    try:
        made = await asyncio.gather(*both)
    finally:
        for one in both:
            one.cancel()  # when the other has failed
    if not all(made):
        return Response(status_code=499)
    return Response(
        CandidatesResponse(candidates=[_response(first), _response(second)]).model_dump_json(),
        media_type="application/json",
    )


async def _made(http: Request, reply: Reply) -> bool:
    """Make the whole reply; False when the caller hung up before, and nobody is listening any more."""
    await unless_caller_leaves(http, reply.whole(), reply.deadline)
    return reply.finished


async def _events(reply: Reply) -> AsyncGenerator[str, None]:
    """start, text..., then done. Raises as Reply.pieces does."""
    start = {"generation_id": reply.id, "personalization": whose.told(reply.who)}
    yield event("start", json.dumps(start))
    async with aclosing(reply.pieces(stream=True)) as pieces:
        async for text in pieces:
            yield event("text", json.dumps({"text": text}))
    yield event("done", _response(reply).model_dump_json(exclude={"text"}))


def _told(error: IdiolectError) -> str:
    return event("error", json.dumps(body(error)))


def _response(reply: Reply) -> GenerateResponse:
    last = reply.last
    assert last is not None
    return GenerateResponse(
        generation_id=reply.id,
        text=reply.text,
        finish_reason=last.finish_reason or "stop",
        usage=Usage(
            prompt_tokens=last.n_prompt_tokens, completion_tokens=reply.n_tokens, cached_tokens=last.n_cached_tokens
        ),
        personalization=whose.info(reply.who),
    )
