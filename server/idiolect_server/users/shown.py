"""What of users and their votes is shown, page by page."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from idiolect.learning import VoteKind
from idiolect_server.users.knowledge import Effect


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Turn(_Shown):
    """As the store has it: what was a good message once may break a rule of today's."""

    role: Literal["system", "user", "assistant"]
    content: str


class ListedUser(_Shown):
    user_id: str
    votes: int
    has_profile: bool


class UsersResponse(_Shown):
    """GET /users. `cursor` is null on the last page."""

    users: list[ListedUser]
    cursor: str | None


class GivenVote(_Shown):
    """A vote of a user, and what it does to the user's code now."""

    vote_id: str
    given_at: str
    """RFC 3339, in UTC."""
    kind: VoteKind
    messages: list[Turn]
    chosen: str
    rejected: str
    """Of a tie, the two replies in the order of the alphabet."""
    effect: Effect
    consent: bool


class VotesResponse(_Shown):
    """GET /users/{user_id}/votes. `cursor` is null on the last page."""

    user_id: str
    votes: list[GivenVote]
    cursor: str | None
