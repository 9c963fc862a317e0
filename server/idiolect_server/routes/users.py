"""What is known of a user, what to ask the user next, the profile, and everything taken back."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.convertors import Convertor, register_url_convertor

from idiolect.text import UserId
from idiolect_server.errors import StoreError, UnknownVote
from idiolect_server.openapi.refusals import STORE, raises
from idiolect_server.serving import leased, serving
from idiolect_server.store.pages.cursor import MAX_CURSOR_CHARS
from idiolect_server.store.pages.votes import page, vote_id
from idiolect_server.users.shown import GivenVote, ListedUser, Turn, UsersResponse, VotesResponse
from idiolect_server.users.sides import shown
from idiolect_server.users.words import in_words
from idiolect_server.wire.messages import PlainMessage
from idiolect_server.wire.native import (
    DeletedVote,
    ErasureReceipt,
    ProfileRequest,
    Question,
    QuestionId,
    QuestionResponse,
    UserResponse,
)

router = APIRouter(tags=["users"])


class _Anything(Convertor[str]):
    """A part of a path with slashes and, unlike Starlette's `path`, line breaks: these are refused in words."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())

UserPath = Annotated[UserId, Path()]
VotePath = Annotated[str, Path(pattern=r"^\d{1,2}-\d{1,16}-\d{1,16}$")]

MAX_SHOWN_NUMBERS = 64
"""Longer codes tell a reader nothing."""
CursorQuery = Annotated[str | None, Query(max_length=MAX_CURSOR_CHARS)]
SkipQuery = Annotated[tuple[QuestionId, ...], Query(max_length=256)]


@router.get("/users")
@raises(*STORE)
async def users(
    http: Request, cursor: CursorQuery = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> UsersResponse:
    """The users who have voted or have a profile, in no order. `limit` is about how many come in one page."""
    found, after = await serving(http.app).store.user_pages.page(cursor, limit)
    listed = [ListedUser(user_id=one.user_id, votes=one.votes, has_profile=one.has_profile) for one in found]
    return UsersResponse(users=listed, cursor=after)


# The longer paths first: a user id may hold slashes.
@router.get("/users/{user_id:anything}/question")
@raises(*STORE)
async def question(user_id: UserPath, http: Request, skip: SkipQuery = ()) -> QuestionResponse:
    """The pair of replies whose comparison would tell most about the user, but for those in `skip`."""
    asked = await leased(http).learner.ask(user_id, skip)
    found, question = asked.question, None
    if found is not None:
        first, second = shown(user_id, found)
        question = Question(
            question_id=found.question_id,
            messages=[PlainMessage.model_validate(message) for message in found.messages],
            first=first,
            second=second,
            expected_gain=asked.gain,
        )
    return QuestionResponse(user_id=user_id, question=question, answered=asked.n_answered, reason=asked.reason)


@router.get("/users/{user_id:anything}/votes")
@raises(*STORE)
async def votes(
    user_id: UserPath, http: Request, cursor: CursorQuery = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> VotesResponse:
    """The votes of one user, the newest first, and what each of them does now. An unknown user has none."""
    effects = dict(await leased(http).learner.effects(user_id))
    given = {vote.vote_id: vote for vote in effects}
    chosen, after = page(list(given), cursor, limit)
    whole = await serving(http.app).store.vote_pages.whole(user_id, chosen)
    found = [
        GivenVote(
            vote_id=vote_id(user_id, stream_id),
            given_at=datetime.fromtimestamp(given[stream_id].given_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            kind=given[stream_id].kind,
            messages=[Turn.model_validate(message) for message in whole[stream_id]["messages"]],
            chosen=whole[stream_id]["chosen"],
            rejected=whole[stream_id]["rejected"],
            effect=effects[given[stream_id]],
            consent=whole[stream_id].get("consent", False),
        )
        for stream_id in chosen
        if stream_id in whole
    ]
    return VotesResponse(user_id=user_id, votes=found, cursor=after)


@router.put("/users/{user_id:anything}/profile")
@raises(*STORE)
async def set_profile(user_id: UserPath, request: ProfileRequest, http: Request) -> ProfileRequest:
    """What the user says in words, for every later reply; null forgets it."""
    await serving(http.app).store.put_profile(user_id, request.profile)
    return request


@router.delete("/users/{user_id:anything}/votes/{vote_id}")
@raises(*STORE, UnknownVote)
async def take_back(user_id: UserPath, vote_id: VotePath, http: Request) -> DeletedVote:
    """Take one vote back: the user is then served as if it had never been given."""
    release = leased(http)
    left = await serving(http.app).store.votes.take_back(user_id, vote_id)
    if left is None:
        raise UnknownVote(f"user has no vote {vote_id}")
    with suppress(StoreError):  # the next request of the user makes up for it
        await release.learner.refresh(user_id)
    return DeletedVote(vote_id=vote_id, votes=left)


@router.delete("/users/{user_id:anything}")
@raises(*STORE)
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


@router.get("/users/{user_id:anything}")
@raises(*STORE)
async def user(user_id: UserPath, http: Request) -> UserResponse:
    """What is known of one user. An unknown user is no error."""
    release = leased(http)
    who = await release.personalizer.find(user_id)
    known, n_trained = await release.learner.known(user_id) if who.votes else (None, 0)
    belief = None if known is None else release.learner.in_words(known)
    n_effective = 0 if known is None else known.effective_votes
    named = release.bundle.manifest.cluster_names is not None
    return UserResponse(
        user_id=user_id,
        known=who.state in ("stored", "inferred", "unexplained") or bool(who.votes) or who.profile is not None,
        state=who.state,
        votes=who.votes,
        bundle=who.bundle_id,
        profile=who.profile,
        trained_votes=n_trained,
        effective_votes=n_effective,
        outdated_votes=0 if known is None else known.outdated_votes,
        uncertainty=None if known is None else known.uncertainty,
        familiar=None if known is None else known.impression.familiar,
        belief=belief,
        belief_in_words=in_words(belief, who.state, n_effective, named),
        code=None if known is None or len(known.code) > MAX_SHOWN_NUMBERS else known.code.tolist(),
    )
