"""POST /generate: one personalized reply, whole or streamed."""

import json
import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from idiolect.errors import IdiolectError
from idiolect.profile import with_profile
from server.engine.engine import Chunk, Sampling
from server.engine.injection import Placed
from server.errors import PromptTooLong, StoreUnavailable, body
from server.personalize import Personalization
from server.routes.caller import unless_caller_leaves
from server.serving import Serving, serving
from server.wire import GenerateRequest, GenerateResponse, PersonalizationInfo, Usage

log = logging.getLogger(__name__)
router = APIRouter()


@router.post("/generate", response_model=GenerateResponse)
async def generate(request: GenerateRequest, http: Request) -> Response:
    """A reply in the way that `user_id` prefers. Streams server-sent events when `stream` is true."""
    live = serving(http.app)
    messages = with_profile(request.chat(), request.profile)
    token_ids = live.engine.encode_chat(messages)
    offset = live.bundle.manifest.layout.offset(token_ids)
    who = await live.personalizer.find(request.user_id)
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
    )
    reply = Reply(live, request, placed, sampling, who)
    if request.stream:
        return EventSourceResponse(reply.events(), ping=15)
    return await reply.whole(http)


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
        self._live, self._request, self._placed, self._sampling = live, request, placed, sampling
        self._who = PersonalizationInfo.of(who)
        self._text = ""
        self._n_tokens = 0
        self._last: Chunk | None = None

    async def _chunks(self) -> AsyncGenerator[str, None]:
        """Pieces of text. Whoever leaves early aborts the generation."""
        async with aclosing(self._live.engine.generate(self._placed, self._sampling, self.id)) as chunks:
            async for chunk in chunks:
                self._text += chunk.text
                self._n_tokens += len(chunk.token_ids)
                self._last = chunk
                if chunk.text:
                    yield chunk.text

    def _response(self) -> GenerateResponse:
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
            personalization=self._who,
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
        return Response(self._response().model_dump_json(), media_type="application/json")

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """start, text..., then done or error. After the first byte no status can change, so errors are events."""
        start = {"generation_id": self.id, "personalization": self._who.model_dump()}
        yield ServerSentEvent(event="start", data=json.dumps(start))
        try:
            async for text in self._chunks():
                yield ServerSentEvent(event="text", data=json.dumps({"text": text}))
        except IdiolectError as error:
            yield ServerSentEvent(event="error", data=json.dumps(body(error)))
            return
        await self._remember()
        yield ServerSentEvent(event="done", data=self._response().model_dump_json(exclude={"text"}))

    async def _remember(self) -> None:
        """Keep prompt and reply for feedback by generation_id. A reply is worth more than this, so it may fail."""
        generation = {
            "user_id": self._request.user_id,
            "messages": self._request.chat(),
            "profile": self._request.profile,
            "text": self._text,
            "bundle": self._who.bundle,
        }
        try:
            await self._live.store.remember(self.id, generation)
        except StoreUnavailable:
            log.warning("generation %s cannot be kept for feedback: the store does not answer", self.id)
