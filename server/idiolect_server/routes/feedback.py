"""POST /feedback: a durable vote. Answered only when Redis has it, and counted once for each idempotency key."""

import asyncio
import json
import time
import uuid
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from idiolect.bank import pair_id
from idiolect_server import metrics
from idiolect_server.errors import (
    IdempotencyConflict,
    PromptTooLong,
    StoreError,
    TooManyVotes,
    UnknownGeneration,
    UnknownQuestion,
    VoteTooLarge,
)
from idiolect_server.openapi.refusals import STORE, raises
from idiolect_server.serving import leased, serving
from idiolect_server.store.export import to_parquet
from idiolect_server.users.vote import vote_of
from idiolect_server.wire.vote import FeedbackRequest, FeedbackResponse

router = APIRouter(tags=["votes"])

CURSOR_HEADER = "x-idiolect-cursor"
MAX_EXPORT = 10_000
EXPORTED: dict[str, Any] = {
    "description": "Votes, one a line, or as a Parquet file.",
    "content": {
        "application/x-ndjson": {"schema": {"type": "string"}},
        "application/vnd.apache.parquet": {
            "schema": {"type": "string", "contentMediaType": "application/octet-stream"}
        },
    },
    "headers": {CURSOR_HEADER: {"description": "Resumes after these.", "schema": {"type": "string"}}},
}


@router.post("/feedback")
@raises(*STORE, PromptTooLong, UnknownGeneration, UnknownQuestion, IdempotencyConflict, VoteTooLarge, TooManyVotes)
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
    vote = await vote_of(store, release, request)
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


@router.get("/feedback", response_class=Response, responses={200: EXPORTED})
@raises(*STORE)
async def export_votes(
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
