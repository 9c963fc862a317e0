"""GET /users/{user_id}: how a user is served now."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from server.serving import serving
from server.wire import UserId, UserResponse

router = APIRouter()


@router.get("/users/{user_id:path}")
async def user(user_id: Annotated[UserId, Path()], http: Request) -> UserResponse:
    """State, votes and bundle of one user. An unknown user is no error."""
    who = await serving(http.app).personalizer.find(user_id)
    known = who.state in ("stored", "inferred") or bool(who.votes)
    return UserResponse(user_id=user_id, known=known, state=who.state, votes=who.votes, bundle=who.bundle_id)
