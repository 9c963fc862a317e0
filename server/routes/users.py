"""What is known of a user, what to ask the user next, and votes taken back."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from server.errors import UnknownVote
from server.serving import serving
from server.wire import DeletedVote, Message, Question, QuestionResponse, UserId, UserResponse

router = APIRouter()

MAX_SHOWN_NUMBERS = 64

UserPath = Annotated[UserId, Path()]
VotePath = Annotated[str, Path(pattern=r"^\d{1,2}-\d{1,16}-\d{1,16}$")]


# The longer paths first: a user id may hold slashes.
@router.get("/users/{user_id:path}/question")
async def question(user_id: UserPath, http: Request) -> QuestionResponse:
    """The pair of replies whose comparison would tell most about the user."""
    found, gain, answered = await serving(http.app).learner.ask(user_id)
    asked = None
    if found is not None:
        asked = Question(
            question_id=found.question_id,
            messages=[Message.model_validate(message) for message in found.messages],
            first=found.first,
            second=found.second,
            expected_gain=gain,
        )
    return QuestionResponse(user_id=user_id, question=asked, answered=answered)


@router.delete("/users/{user_id:path}/votes/{vote_id}")
async def delete_vote(user_id: UserPath, vote_id: VotePath, http: Request) -> DeletedVote:
    """Take one vote back: the user is then served as if it had never been given."""
    live = serving(http.app)
    if not await live.store.delete_vote(user_id, vote_id):
        raise UnknownVote(f"user has no vote {vote_id}")
    who = await live.personalizer.find(user_id)
    return DeletedVote(vote_id=vote_id, votes=who.votes or 0)


@router.get("/users/{user_id:path}")
async def user(user_id: UserPath, http: Request) -> UserResponse:
    """State, votes and bundle of one user. An unknown user is no error."""
    live = serving(http.app)
    who = await live.personalizer.find(user_id)
    belief = None
    if who.state in ("stored", "inferred"):
        belief, _ = await live.learner.refresh(user_id)
    return UserResponse(
        user_id=user_id,
        known=who.state in ("stored", "inferred") or bool(who.votes),
        state=who.state,
        votes=who.votes,
        bundle=who.bundle_id,
        effective_votes=0 if belief is None else belief.effective_votes,
        uncertainty=None if belief is None else belief.uncertainty,
        code=None if belief is None or len(belief.code) > MAX_SHOWN_NUMBERS else belief.code.tolist(),
    )
