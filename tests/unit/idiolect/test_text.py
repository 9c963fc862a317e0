"""One rule for user ids: what the trainer takes the server takes, and the other way round."""

import pytest
from pydantic import TypeAdapter, ValidationError

from idiolect.text import MAX_USER_ID_CHARS, UserId
from idiolect_server.wire import FeedbackRequest
from idiolect_training.data.preferences import Preference

GOOD = ("ada", "a/b", "votes/7x/x", "profile", "question", "x/votes", " ", "\u540d\u524d", "a" * MAX_USER_ID_CHARS)
DOTTED = (
    "a.b",
    "...",
    ".../x",
    "x/.hidden",
    "x/..y",
    "a..b",
    "v1.",
    "corp\\ann",
    "a%2eb",
    "ann@example.org",
    "%2e%2e%2e",
)
BAD = ("", "a" * 257, "a/question", "x/profile", "x/votes/7", "a\tb", "a\n", "\x85", "\u2028", "\u2029")
SHORTENED = (
    *(".", "..", "x/..", "x/../victim", "../x", "./x", "x/.", "x/./y", "/", "//", "/x", "x/", "a//b", "x/..//y"),
    *("%2e", "%2E%2e", "x/.%2e/victim", "x/%2e%2E/victim", "%2e/x", "..\\x", "x\\..\\victim", "x\\/y", "\\x", "x\\"),
)
"""By clients, proxies or browsers, into the path of somebody else or of nobody."""


@pytest.mark.parametrize("user_id", [*GOOD, *DOTTED, *BAD, *SHORTENED])
def test_trainer_and_server_agree(user_id: str):
    vote = {"user_id": user_id, "prompt": "Hi", "chosen": "a", "rejected": "b"}
    for accepts in (
        TypeAdapter(UserId).validate_python,
        lambda _: Preference(**vote),
        lambda _: FeedbackRequest(**vote),
    ):
        if user_id in GOOD + DOTTED:
            accepts(user_id)
        else:
            with pytest.raises(ValidationError):
                accepts(user_id)
