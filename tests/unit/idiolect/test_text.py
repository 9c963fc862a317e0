"""One rule for user ids: what the trainer takes the server takes, and the other way round."""

import pytest
from pydantic import TypeAdapter, ValidationError

from idiolect.text import MAX_USER_ID_CHARS, UserId
from idiolect_server.wire import FeedbackRequest
from idiolect_training.data.preferences import Preference

GOOD = ("ada", "a/b", "votes/7x/..", "profile", "question", "x/votes", " ", "\u540d\u524d", "a" * MAX_USER_ID_CHARS)
BAD = ("", "a" * 257, "a/question", "/profile", "team/votes/", "x/votes/7", "a\tb", "a\n", "\x85", "\u2028", "\u2029")


@pytest.mark.parametrize("user_id", [*GOOD, *BAD])
def test_trainer_and_server_agree(user_id: str):
    vote = {"user_id": user_id, "prompt": "Hi", "chosen": "a", "rejected": "b"}
    for accepts in (
        TypeAdapter(UserId).validate_python,
        lambda _: Preference(**vote),
        lambda _: FeedbackRequest(**vote),
    ):
        if user_id in GOOD:
            accepts(user_id)
        else:
            with pytest.raises(ValidationError):
                accepts(user_id)
