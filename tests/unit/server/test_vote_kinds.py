"""Comparison, edit or thumb: what a request may say, and what of Redis is read as a vote."""

import json

import pytest
from pydantic import ValidationError

from idiolect.bank import NO_REPLY
from idiolect.learning import GivenVote
from idiolect_server.store.stream import parse_vote
from idiolect_server.store.votes import in_order
from idiolect_server.wire.vote import FeedbackRequest

GENERATION = "gen-" + "0" * 32
PAIR = "0123456789abcdef"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("thumb", {"generation_id": GENERATION, "thumb": "up"}),
        ("thumb", {"prompt": "Why?", "reply": "So.", "thumb": "down"}),
        ("thumb", {"messages": [{"role": "user", "content": "Why?"}], "reply": "So.", "thumb": "up"}),
        ("edit", {"generation_id": GENERATION, "edit": "So!"}),
        ("edit", {"prompt": "Why?", "reply": "So.", "edit": "So!", "consent": True}),
        ("comparison", {"prompt": "Why?", "chosen": "So!", "rejected": "So."}),
    ],
)
def test_a_request_is_of_one_kind(kind, said):
    assert FeedbackRequest.model_validate({"user_id": "ada", **said}).kind == kind


THUMB = {"generation_id": GENERATION, "thumb": "up"}
TEXT = {"prompt": "Why?", "reply": "So."}
ONE = "give one of chosen with rejected, thumb, and edit"
REPLY = "give reply with thumb or edit, unless generation_id says what it is"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({**THUMB, "edit": "So!"}, ONE),
        ({**THUMB, "chosen": "a", "rejected": "b"}, ONE),
        ({**THUMB, "chosen": "a"}, ONE),
        ({**TEXT, "edit": "So!", "rejected": "b"}, ONE),
        ({"thumb": "up", "question_id": PAIR}, ONE),
        ({"thumb": "up", "chosen_generation_id": GENERATION, "rejected_generation_id": GENERATION}, ONE),
        ({**THUMB, "rejected_generation_id": GENERATION}, ONE),
        ({**THUMB, "reply": "So."}, REPLY),
        ({"prompt": "Why?", "thumb": "up"}, REPLY),
        ({**TEXT}, REPLY),
        ({"prompt": "Why?", "chosen": "a", "rejected": "b", "reply": "So."}, REPLY),
        ({**THUMB, "prompt": "Why?"}, "give one of prompt, messages"),
        ({"reply": "So.", "thumb": "up"}, "give one of prompt, messages"),
        ({"messages": [{"role": "system", "content": "x"}], "reply": "So.", "thumb": "up"}, "no user turn"),
        ({**TEXT, "edit": "So."}, "edit equals reply"),
        ({**TEXT, "thumb": "sideways"}, "Input should be 'up' or 'down'"),
        ({**TEXT, "thumb": True}, "Input should be 'up' or 'down'"),
        ({**TEXT, "edit": ""}, "at least 1 character"),
        ({**TEXT, "reply": "", "thumb": "up"}, "at least 1 character"),
        ({**TEXT, "edit": "a\0"}, "control characters"),
    ],
)
def test_what_is_of_no_kind_or_of_two_is_refused_in_words(said, reason):
    with pytest.raises(ValidationError, match=reason):
        FeedbackRequest.model_validate({"user_id": "ada", **said})


STORED = {"user_id": "ada", "messages": [{"role": "user", "content": "Why?"}], "chosen": "So.", "rejected": "Well."}


@pytest.mark.parametrize(
    ("said", "is_vote"),
    [
        ({}, True),
        ({"kind": "comparison"}, True),
        ({"kind": "edit"}, True),
        ({"kind": "thumb", "rejected": NO_REPLY}, True),
        ({"kind": "thumb", "chosen": NO_REPLY}, True),
        ({"kind": "thumb"}, False),
        ({"kind": "thumb", "chosen": NO_REPLY, "rejected": NO_REPLY}, False),
        ({"kind": "edit", "rejected": NO_REPLY}, False),
        ({"chosen": NO_REPLY}, False),
        ({"kind": "shrug"}, False),
        ({"kind": None}, False),
        ({"kind": ["thumb"], "rejected": NO_REPLY}, False),
    ],
)
def test_an_entry_of_the_stream_is_a_vote_of_a_kind_or_nothing(said, is_vote):
    vote = {**STORED, **said}
    assert parse_vote({b"vote": json.dumps(vote).encode()}) == (vote if is_vote else None)


def test_the_hash_says_the_kind_of_each_vote_and_odd_kinds_are_nothing():
    kinds = {"1-0": {}, "2-0": {"kind": "thumb"}, "3-0": {"kind": "edit"}}
    kinds |= {f"{4 + place}-0": {"kind": odd} for place, odd in enumerate(("shrug", None, 1, ["thumb"], {}, "Thumb"))}
    listed = {name.encode(): json.dumps({"pair": PAIR, "first": True, **kind}).encode() for name, kind in kinds.items()}
    assert in_order(listed) == [
        GivenVote(PAIR, True, 1, "1-0", "comparison"),
        GivenVote(PAIR, True, 2, "2-0", "thumb"),
        GivenVote(PAIR, True, 3, "3-0", "edit"),
    ]
