"""One rule for user ids and one for texts: what the trainer takes the server takes, and the other way round."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from idiolect.text import MAX_USER_ID_CHARS, UserId, is_printable, printable
from idiolect_server.wire.native import GenerateRequest, ProfileRequest
from idiolect_server.wire.vote import FeedbackRequest
from idiolect_training.data.formats import feedback
from idiolect_training.data.preferences import Preference, read_preferences
from idiolect_training.errors import BadPreference

GOOD = ("ada", "a/b", "votes/7x/x", "profile", "question", "votes", " ", "\u540d\u524d", "a" * MAX_USER_ID_CHARS)
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
BAD = ("", "a" * 257, "a/question", "x/profile", "x/votes", "x/votes/7", "a\tb", "a\n", "\x85", "\u2028", "\u2029")
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


def test_control_characters_are_those_of_unicode_but_tab_and_line_breaks():
    for char in map(chr, range(sys.maxunicode + 1)):
        control = unicodedata.category(char) == "Cc" and char not in "\t\n\r"
        assert is_printable(char) != control
        assert printable(f"a{char}b") == ("ab" if control else f"a{char}b")


VOTE = {"user_id": "ada", "messages": [{"role": "user", "content": "Hi"}], "chosen": "yes", "rejected": "no"}


def history(text: str) -> list[dict[str, str]]:
    return [*VOTE["messages"], {"role": "assistant", "content": text}, {"role": "user", "content": "And?"}]


@pytest.mark.parametrize(
    "written", ["page 1\fpage 2", "\x1b[1mbold\x1b[0m", "a\0b", "a\x85b", "a\x7f", "tab\tand\r\nline"]
)
def test_every_door_judges_alike_and_lets_in_what_was_cleaned(tmp_path: Path, written: str):
    def reads(read, **changes) -> None:
        (tmp_path / "votes.jsonl").write_text(json.dumps(VOTE | changes) + "\n")
        read(tmp_path / "votes.jsonl")

    doors = {
        "history": lambda text: GenerateRequest(messages=history(text)),
        "prompt": lambda text: GenerateRequest(prompt=text),
        "profile": lambda text: ProfileRequest(profile=text),
        "vote": lambda text: FeedbackRequest(**VOTE | {"chosen": text}),
        "vote's history": lambda text: FeedbackRequest(**VOTE | {"messages": history(text)}),
        "training": lambda text: reads(read_preferences, rejected=text),
        "training's history": lambda text: reads(read_preferences, messages=history(text)),
        "export": lambda text: reads(feedback.read, chosen=text),
    }
    for name, door in doors.items():
        door(printable(written))
        if is_printable(written):
            door(written)
        else:
            with pytest.raises((ValidationError, BadPreference), match=r"control characters|NUL"):
                pytest.fail(f"{name}: {door(written)}")


def test_an_empty_turn_is_a_turn_at_every_door():
    """A reply may be empty: it is part of a history then, though nothing that could be preferred."""
    GenerateRequest(messages=history(""))
    FeedbackRequest(**VOTE | {"messages": history("")})
    Preference.model_validate_json(json.dumps(VOTE | {"messages": history("")}))
    for reply in ({"chosen": ""}, {"rejected": ""}):
        for door in (FeedbackRequest, Preference):
            with pytest.raises(ValidationError, match="at least 1 character"):
                door.model_validate_json(json.dumps(VOTE | reply))
