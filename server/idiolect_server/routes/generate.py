"""POST /generate: one personalized reply, whole or streamed."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from idiolect.errors import IdiolectError
from idiolect.profile import with_profile
from idiolect_server.engine.engine import Chunk, Sampling
from idiolect_server.engine.injection import Placed
from idiolect_server.errors import PromptTooLong, StoreUnavailable, body
from idiolect_server.personalize import Personalization
from idiolect_server.routes.caller import unless_caller_leaves
from idiolect_server.serving import Serving, serving
from idiolect_server.wire import CandidatesResponse, GenerateRequest, GenerateResponse, PersonalizationInfo, Usage

log = logging.getLogger(__name__)
router = APIRouter()

EXPLORING_TEMPERATURE = 0.8
"""Least temperature of a second candidate, which should differ from the first."""


@router.post("/generate", response_model=GenerateResponse | CandidatesResponse)
async def generate(request: GenerateRequest, http: Request) -> Response:
    """A reply in the way that `user_id` prefers. Streams server-sent events when `stream` is true."""
    live = serving(http.app)
    who = await live.personalizer.find(request.user_id)
    request = request.model_copy(update={"profile": request.profile or who.profile})
    token_ids = await live.engine.conversations.encode(with_profile(request.chat(), request.profile))
    offset = live.bundle.manifest.layout.offset(token_ids)
    placed = Placed(token_ids, offset, who.user_tokens)
    if placed.n_tokens >= live.engine.max_model_len:
        # Before the first byte, so that a stream too answers with a status.
        raise PromptTooLong(
            f"the prompt has {placed.n_tokens} tokens, the model takes {live.engine.max_model_len} with the reply"
        )
    sampling = Sampling(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=request.stop,
        frequency_penalty=live.frequency_penalty if request.frequency_penalty is None else request.frequency_penalty,
    )
    reply = Reply(live, request, placed, sampling, who)
    if request.stream:
        return EventSourceResponse(reply.events(), ping=15)
    if request.candidates > 1:
        return await _pair(http, reply, await _other(reply))
    return await reply.whole(http)


async def _other(first: "Reply") -> "Reply":
    """A second reply to compare with the first: drawn, and for a code that the user may have just as well."""
    live, request = first.live, first.request
    who = first.who
    if request.user_id is not None:
        with suppress(StoreUnavailable):
            who = await live.personalizer.explore(request.user_id, who)
    seed = None if first.sampling.seed is None else (first.sampling.seed + 1) % (1 << 63)
    temperature = max(first.sampling.temperature, EXPLORING_TEMPERATURE)
    sampling = replace(first.sampling, temperature=temperature, seed=seed)
    return Reply(live, request, replace(first.placed, user_tokens=who.user_tokens), sampling, who)


async def _pair(http: Request, first: "Reply", second: "Reply") -> Response:
    """Both replies, computed together."""
    both = [asyncio.ensure_future(reply.whole(http)) for reply in (first, second)]
    try:
        answers = await asyncio.gather(*both)
    finally:
        for one in both:
            one.cancel()  # when the other has failed
    if any(answer.status_code != 200 for answer in answers):
        return Response(status_code=499)
    return Response(
        CandidatesResponse(candidates=[first.response(), second.response()]).model_dump_json(),
        media_type="application/json",
    )


class Reply:
    """One reply being made."""

    def __init__(
        self,
        live: Serving,
        request: GenerateRequest,
        placed: Placed,
        sampling: Sampling,
        who: Personalization,
    ) -> None:
        self.id = f"gen-{uuid.uuid4().hex}"
        self.live, self.request, self.placed, self.sampling = live, request, placed, sampling
        self.who = who
        self._info = PersonalizationInfo.of(who)
        self._began_s = time.time()
        self._text = ""
        self._n_tokens = 0
        self._last: Chunk | None = None

    async def _chunks(self) -> AsyncGenerator[str, None]:
        """Pieces of text. Whoever leaves early aborts the generation."""
        chunks = self.live.engine.generate(self.placed, self.sampling, self.id, stream=self.request.stream)
        async with aclosing(chunks):
            async for chunk in chunks:
                self._text += chunk.text
                self._n_tokens += len(chunk.token_ids)
                self._last = chunk
                if chunk.text:
                    yield chunk.text

    def response(self) -> GenerateResponse:
        assert self._last is not None
        usage = Usage(
            prompt_tokens=self._last.n_prompt_tokens,
            completion_tokens=self._n_tokens,
            cached_tokens=self._last.n_cached_tokens,
        )
        return GenerateResponse(
            generation_id=self.id,
            text=self._text,
            finish_reason=self._last.finish_reason or "stop",
            usage=usage,
            personalization=self._info,
        )

    async def whole(self, http: Request) -> Response:
        """The finished reply; aborted when the caller hangs up."""

        async def finish() -> None:
            async for _ in self._chunks():
                pass

        await unless_caller_leaves(http, finish())
        if self._last is None or self._last.finish_reason is None:
            return Response(status_code=499)  # nobody is listening any more
        await self._remember()
        return Response(self.response().model_dump_json(), media_type="application/json")

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """start, text..., then done or error. After the first byte no status can change, so errors are events."""
        start = {"generation_id": self.id, "personalization": self._info.model_dump()}
        yield ServerSentEvent(event="start", data=json.dumps(start))
        try:
            async for text in self._chunks():
                yield ServerSentEvent(event="text", data=json.dumps({"text": text}))
        except IdiolectError as error:
            yield ServerSentEvent(event="error", data=json.dumps(body(error)))
            return
        await self._remember()
        yield ServerSentEvent(event="done", data=self.response().model_dump_json(exclude={"text"}))

    async def _remember(self) -> None:
        """Keep prompt and reply for feedback by generation_id. A reply is worth more than this, so it may fail."""
        if self.request.user_id is None:
            return  # feedback is somebody's
        generation = {
            "user_id": self.request.user_id,
            "messages": self.request.chat(),
            "profile": self.request.profile,
            "text": self._text,
            "bundle": self._info.bundle,
        }
        try:
            await self.live.store.generations.remember(self.request.user_id, self.id, generation, self._began_s)
        except StoreUnavailable:
            log.warning("generation %s cannot be kept for feedback: the store does not answer", self.id)
