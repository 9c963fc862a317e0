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
OTHER = "gen-" + "1" * 32
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
        ("comparison", {"question_id": PAIR, "chosen": "So!", "rejected": "So."}),
        ("tie", {"prompt": "Why?", "tied": ["So!", "So."]}),
        ("tie", {"question_id": PAIR, "tied": ["So!", "So."], "consent": True}),
        ("tie", {"generation_id": GENERATION, "tied": ["So!", "So."]}),
        ("tie", {"tied_generation_ids": [GENERATION, OTHER]}),
        ("tie", {"generation_id": GENERATION, "tied_indices": [1, 0]}),
    ],
)
def test_a_request_is_of_one_kind(kind, said):
    assert FeedbackRequest.model_validate({"user_id": "ada", **said}).kind == kind


THUMB = {"generation_id": GENERATION, "thumb": "up"}
TEXT = {"prompt": "Why?", "reply": "So."}
ONE = "give one of chosen with rejected, tied, thumb, and edit"
SIDES = "give chosen and rejected, or tied, unless ids or indices say what they are"
CHOICES = "are two choices of generation_id"
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
        ({"prompt": "Why?", "chosen": "a", "rejected": "b", "tied": ["a", "b"]}, ONE),
        ({**THUMB, "tied": ["a", "b"]}, ONE),
        ({**TEXT, "edit": "So!", "tied": ["a", "b"]}, ONE),
        ({"tied_generation_ids": [GENERATION, OTHER], "chosen_generation_id": OTHER}, ONE),
        ({"prompt": "Why?", "tied": ["a", "a"]}, "the two replies are equal"),
        ({"prompt": "Why?", "tied": ["a"]}, "at least 2 items"),
        ({"prompt": "Why?", "tied": ["a", "b", "c"]}, "at most 2 items"),
        ({"prompt": "Why?", "tied": ["a", ""]}, "at least 1 character"),
        ({"prompt": "Why?", "tied": True}, "valid list"),
        ({"prompt": "Why?", "tied": ["a", "b"], "shown_first": "chosen"}, "one was preferred"),
        ({"prompt": "Why?", "tied": ["a", "b"], "reply": "c"}, REPLY),
        ({"generation_id": GENERATION, "tied": ["a", "b"], "reply_index": 0}, "reply_index is of thumb and edit"),
        ({"prompt": "Why?", "tied": ["a", "b"], "tied_generation_ids": [GENERATION, OTHER]}, "give one of prompt"),
        ({"tied": ["a", "b"], "tied_generation_ids": [GENERATION, OTHER]}, SIDES),
        ({"generation_id": GENERATION, "tied": ["a", "b"], "tied_indices": [0, 1]}, SIDES),
        ({"generation_id": GENERATION, "tied_indices": [1, 1]}, CHOICES),
        ({"prompt": "Why?", "tied_indices": [0, 1]}, CHOICES),
        ({"generation_id": GENERATION, "tied_indices": [0, 99]}, "less than"),
        ({"tied": ["a", "b"]}, "give one of prompt"),
        ({"question_id": PAIR}, SIDES),
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
        ({"kind": "tie"}, True),
        ({"kind": "tie", "rejected": NO_REPLY}, False),
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
    tie = {"kind": "tie", "shown": True}
    kinds = {"1-0": {}, "2-0": {"kind": "thumb"}, "3-0": {"kind": "edit"}, "4-0": tie}
    odds = ("shrug", None, 1, ["thumb"], {}, "Thumb", "Tie", "comparison ")
    kinds |= {f"{5 + place}-0": {"kind": odd} for place, odd in enumerate(odds)}
    listed = {name.encode(): json.dumps({"pair": PAIR, "first": True, **kind}).encode() for name, kind in kinds.items()}
    assert in_order(listed) == [
        GivenVote(PAIR, True, 1, "1-0", "comparison"),
        GivenVote(PAIR, True, 2, "2-0", "thumb"),
        GivenVote(PAIR, True, 3, "3-0", "edit"),
        GivenVote(PAIR, None, 4, "4-0", "tie"),
    ]
