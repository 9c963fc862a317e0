"""POST /feedback: a durable vote. Answered only when Redis has it, and counted once for each idempotency key."""

import uuid
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Request

from server.errors import RequestError, StoreUnavailable, UnknownGeneration
from server.serving import serving
from server.wire import FeedbackRequest, FeedbackResponse, as_chat

router = APIRouter()


@router.post("/feedback")
async def feedback(
    request: FeedbackRequest,
    http: Request,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=256)] = None,
) -> FeedbackResponse:
    """Store one comparison. Repeat it with the same Idempotency-Key after any failure: it counts once."""
    live = serving(http.app)
    if request.question_id is not None:
        question = live.learner.question(request.question_id)
        if {request.chosen, request.rejected} != {question.first, question.second}:
            raise RequestError("chosen and rejected are not the two replies of the question")
        messages, profile = [dict(message) for message in question.messages], None
    elif request.generation_id is None:
        messages, profile = as_chat(request.prompt, request.messages), None
    else:
        generation = await live.store.generation(request.generation_id)
        if generation is None or generation["user_id"] != request.user_id:
            raise UnknownGeneration(
                f"generation {request.generation_id} is not known", hint="send prompt or messages instead"
            )
        messages, profile = generation["messages"], generation["profile"]
    vote = {
        "messages": messages,
        "profile": profile,
        "chosen": request.chosen,
        "rejected": request.rejected,
        "generation_id": request.generation_id,
    }
    receipt = await live.store.add_vote(request.user_id, idempotency_key or uuid.uuid4().hex, vote)
    if live.learner.infers and not receipt.duplicate:
        # The vote is safe: when this fails, the next request of the user makes up for it.
        with suppress(StoreUnavailable):
            await live.learner.refresh(request.user_id)
    return FeedbackResponse(vote_id=receipt.vote_id, votes=receipt.votes, duplicate=receipt.duplicate)
