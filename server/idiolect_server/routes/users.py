"""What is known of a user, what to ask the user next, the profile, and everything taken back."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from idiolect.text import UserId
from idiolect_server.errors import StoreError, UnknownVote
from idiolect_server.messages import PlainMessage
from idiolect_server.serving import leased, serving
from idiolect_server.wire import (
    DeletedVote,
    ErasureReceipt,
    ProfileRequest,
    Question,
    QuestionId,
    QuestionResponse,
    UserResponse,
)

router = APIRouter()

UserPath = Annotated[UserId, Path()]
VotePath = Annotated[str, Path(pattern=r"^\d{1,2}-\d{1,16}-\d{1,16}$")]

MAX_SHOWN_NUMBERS = 64
"""Longer codes tell a reader nothing."""
SkipQuery = Annotated[tuple[QuestionId, ...], Query(max_length=256)]


# The longer paths first: a user id may hold slashes.
@router.get("/users/{user_id:path}/question")
async def question(user_id: UserPath, http: Request, skip: SkipQuery = ()) -> QuestionResponse:
    """The pair of replies whose comparison would tell most about the user, but for those in `skip`."""
    asked = await leased(http).learner.ask(user_id, skip)
    found, question = asked.question, None
    if found is not None:
        question = Question(
            question_id=found.question_id,
            messages=[PlainMessage.model_validate(message) for message in found.messages],
            first=found.first,
            second=found.second,
            expected_gain=asked.gain,
        )
    return QuestionResponse(user_id=user_id, question=question, answered=asked.n_answered, reason=asked.reason)


@router.put("/users/{user_id:path}/profile")
async def put_profile(user_id: UserPath, request: ProfileRequest, http: Request) -> ProfileRequest:
    """What the user says in words, for every later reply; null forgets it."""
    await serving(http.app).store.put_profile(user_id, request.profile)
    return request


@router.delete("/users/{user_id:path}/votes/{vote_id}")
async def delete_vote(user_id: UserPath, vote_id: VotePath, http: Request) -> DeletedVote:
    """Take one vote back: the user is then served as if it had never been given."""
    release = leased(http)
    left = await serving(http.app).store.votes.take_back(user_id, vote_id)
    if left is None:
        raise UnknownVote(f"user has no vote {vote_id}")
    with suppress(StoreError):  # the next request of the user makes up for it
        await release.learner.refresh(user_id)
    return DeletedVote(vote_id=vote_id, votes=left)


@router.delete("/users/{user_id:path}")
async def erase(user_id: UserPath, http: Request) -> ErasureReceipt:
    """Erase everything of a user. The user is then unknown; to erase an unknown user is no error."""
    erased = await serving(http.app).store.erase(user_id)
    return ErasureReceipt(
        user_id=user_id,
        erased_at=datetime.now(UTC).isoformat(timespec="seconds"),
        votes=erased.votes,
        generations=erased.generations,
        codes=erased.codes,
        profiles=erased.profiles,
    )


@router.get("/users/{user_id:path}")
async def user(user_id: UserPath, http: Request) -> UserResponse:
    """What is known of one user. An unknown user is no error."""
    release = leased(http)
    who = await release.personalizer.find(user_id)
    known, n_trained = await release.learner.known(user_id) if who.votes else (None, 0)
    return UserResponse(
        user_id=user_id,
        known=who.state in ("stored", "inferred") or bool(who.votes) or who.profile is not None,
        state=who.state,
        votes=who.votes,
        bundle=who.bundle_id,
        profile=who.profile,
        trained_votes=n_trained,
        effective_votes=0 if known is None else known.effective_votes,
        outdated_votes=0 if known is None else known.outdated_votes,
        uncertainty=None if known is None else known.uncertainty,
        belief=None if known is None else release.learner.in_words(known),
        code=None if known is None or len(known.code) > MAX_SHOWN_NUMBERS else known.code.tolist(),
    )
