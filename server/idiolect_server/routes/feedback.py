"""POST /feedback: a durable vote. Answered only when Redis has it, and counted once for each idempotency key."""

import asyncio
import json
import time
import uuid
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from idiolect.bank import NO_REPLY, pair_id
from idiolect_server import metrics
from idiolect_server.errors import RequestError, StoreError, UnknownGeneration
from idiolect_server.releases.release import Release
from idiolect_server.serving import leased, serving
from idiolect_server.store.export import to_parquet
from idiolect_server.store.store import Store
from idiolect_server.wire import FeedbackRequest, FeedbackResponse, as_chat

router = APIRouter()

CURSOR_HEADER = "x-idiolect-cursor"
MAX_EXPORT = 10_000


@router.post("/feedback")
async def feedback(
    request: FeedbackRequest,
    http: Request,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=256)] = None,
) -> FeedbackResponse:
    """Store one vote. Repeat it with the same Idempotency-Key after any failure: it counts once."""
    live, release, began = serving(http.app), leased(http), time.perf_counter()
    store = live.store
    pair = "bank" if request.question_id else "organic"
    store.check_room()
    vote = await _vote(store, release, request)
    for reply in (vote["chosen"], vote["rejected"]):
        live.engine.conversations.check(*(message["content"] for message in vote["messages"]), reply)
    receipt = await store.votes.add(request.user_id, idempotency_key or uuid.uuid4().hex, vote)
    if not receipt.duplicate:
        metrics.VOTES.labels(pair).inc()
    answer = FeedbackResponse(vote_id=receipt.vote_id, votes=receipt.votes, duplicate=receipt.duplicate)
    # The vote is safe: when this fails, the next request of the user makes up for it. After a duplicate too: what
    # brought the vote before may have failed here.
    with suppress(StoreError):
        learnt = await release.learner.learn(
            request.user_id, pair_id(vote["messages"], vote["chosen"], vote["rejected"])
        )
        n_effective = 0 if learnt.known is None else learnt.known.effective_votes
        answer = answer.model_copy(
            update={"state": learnt.state, "effective_votes": n_effective, "effect": learnt.effect}
        )
    metrics.VOTE_TAKEN.labels(pair).observe(time.perf_counter() - began)
    return answer


@router.get("/feedback")
async def export(
    http: Request,
    cursor: Annotated[str | None, Query(max_length=8192)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_EXPORT)] = 1000,
    format: Annotated[str, Query(pattern="^(ndjson|parquet)$")] = "ndjson",
) -> Response:
    """Votes that count and whose users consented, oldest first in each shard, as `training` reads them
    (`format: feedback`).

    The header `x-idiolect-cursor` resumes after them. It comes back unchanged when there is nothing more yet.
    """
    votes, after = await serving(http.app).store.export.page(cursor, limit)
    headers = {CURSOR_HEADER: after}
    if format == "parquet":
        content = await asyncio.to_thread(to_parquet, votes)
        return Response(content, media_type="application/vnd.apache.parquet", headers=headers)
    # In a thread: four megabytes take longer than others should wait.
    lines = await asyncio.to_thread(lambda: "".join(json.dumps(vote, ensure_ascii=False) + "\n" for vote in votes))
    return Response(lines, media_type="application/x-ndjson", headers=headers)


async def _vote(store: Store, release: Release, request: FeedbackRequest) -> dict[str, Any]:
    """The vote to store: the request, with what its ids stand for."""
    chosen, rejected, profile, reply = request.chosen, request.rejected, None, request.reply
    if request.chosen_generation_id is not None and request.rejected_generation_id is not None:
        generation = await _generation(store, request.user_id, request.chosen_generation_id)
        other = await _generation(store, request.user_id, request.rejected_generation_id)
        if generation["messages"] != other["messages"]:
            raise RequestError("the two generations reply to different prompts")
        chosen, rejected = generation["text"], other["text"]
        if chosen == rejected or not chosen or not rejected:
            raise RequestError("the two generations cannot be compared: they are equal, or one is empty")
        messages, profile = generation["messages"], generation["profile"]
    elif request.question_id is not None:
        question = release.learner.question(request.question_id)
        if {chosen, rejected} != {question.first, question.second}:
            raise RequestError("chosen and rejected are not the two replies of the question")
        messages = [dict(message) for message in question.messages]
    elif request.generation_id is not None:
        generation = await _generation(store, request.user_id, request.generation_id)
        messages, profile, reply = generation["messages"], generation["profile"], generation["text"]
    else:
        messages = as_chat(request.prompt, request.messages)
    if request.kind != "comparison":
        if reply in (None, "", request.edit):
            raise RequestError("the generation's reply is empty, or equals the edit")
        better = NO_REPLY if request.edit is None else request.edit
        chosen, rejected = (reply, better) if request.thumb == "up" else (better, reply)
    return {
        "messages": messages,
        "profile": profile,
        "chosen": chosen,
        "rejected": rejected,
        "generation_id": request.generation_id or request.chosen_generation_id,
        "bundle_id": release.bundle_id,
        "consent": request.consent,
        # Not of a comparison: a request is the same vote, under its idempotency key, as before there were others.
        **({} if request.kind == "comparison" else {"kind": request.kind}),
    }


async def _generation(store: Store, user_id: str, generation_id: str) -> dict[str, Any]:
    generation: dict[str, Any] | None = await store.generations.get(user_id, generation_id)
    if generation is None:
        raise UnknownGeneration(f"generation {generation_id} is not known", hint="send prompt or messages instead")
    return generation
