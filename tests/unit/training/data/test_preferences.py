"""Reading comparisons: what is meant is read, anything else names its line."""

import gzip
import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idiolect_training.config import RunConfig
from idiolect_training.data.lines import SHOWN_BAD_LINES
from idiolect_training.data.preferences import Preference, index_users, read_preferences
from idiolect_training.errors import BadPreference, BadRunConfig

GOOD = {"user_id": "ada", "prompt": "Hi", "chosen": "a", "rejected": "b"}
CHAT = {"user_id": "ada", "chosen": "a", "rejected": "b"}
UNSERVABLE = ("team/profile", "x/votes/7", "a/question", "tab\tid", "line\u2028end", "\x9f", "a" * 257)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_prompt_messages_and_profile(tmp_path: Path):
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    chat = {**CHAT, "messages": turns, "profile": "likes tea"}
    one, two = read_preferences(write(tmp_path / "p.jsonl", GOOD, chat))
    assert one.chat() == [{"role": "user", "content": "Hi"}]
    assert two.chat() == [turns[0], {"role": "user", "content": "About me: likes tea\n\nQ"}]
    assert two.turns() == turns


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("not json", "JSON"),
        ('{"user_id":' * 100_000, "recursion limit"),
        ({**GOOD, "user_id": ""}, "user_id"),
        ({**GOOD, "user_id": 7}, "user_id"),
        ('{"user_id": ' + "9" * 10_000 + "}", "number out of range"),
        ('{"user_id": 1e99999}', "user_id"),
        ({**GOOD, "mood": "x"}, "mood"),
        ({**GOOD, "source": "elsewhere:1"}, "source: Extra inputs"),
        ({**GOOD, "_source": "elsewhere:1"}, "_source: Extra inputs"),
        ({**GOOD, "rejected": "a"}, "chosen equals rejected"),
        ({**GOOD, "messages": [{"role": "user", "content": "x"}]}, "either prompt or messages"),
        (CHAT, "either prompt or messages"),
        ({**CHAT, "messages": []}, "messages"),
        ({**CHAT, "messages": [{"role": "system", "content": "x"}]}, "no user turn"),
        ({**CHAT, "messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
        ({**GOOD, "chosen": "a\0"}, "chosen: Value error, control characters are not allowed"),
        ({**GOOD, "prompt": "page 1\fpage 2"}, "prompt: Value error, control characters are not allowed"),
        ({**CHAT, "messages": [{"role": "user", "content": "\x85"}]}, "messages.0.content: Value error, control"),
        ({**GOOD, "profile": "\x7f"}, "profile: Value error, control characters"),
        *(({**GOOD, "user_id": user_id}, "user_id: ") for user_id in UNSERVABLE),
        ('{"user_id": "a\0da"}', "NUL at byte 15"),
        ('{"user_id": "a\1da"}', "control character"),
        ('{"user_id": "ada", "prompt": "\\ud800"}', "JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: object, reason: str):
    with pytest.raises(BadPreference, match=r"p\.jsonl:2: ") as caught:
        read_preferences(write(tmp_path / "p.jsonl", GOOD, bad, GOOD))
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "name", ["absent.jsonl", "absent.jsonl.gz", "folder", "nul\0byte.jsonl", "folder/below.jsonl/x"]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "below.jsonl", GOOD)
    with pytest.raises(BadPreference, match=name.split("/")[0]):
        read_preferences(tmp_path / name)


def test_a_packed_file_reads_like_a_plain_one(tmp_path: Path):
    plain = write(tmp_path / "p.jsonl", GOOD, {**GOOD, "user_id": "zoe"})
    packed = tmp_path / "q.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_preferences(packed) == read_preferences(plain)


@pytest.mark.parametrize("bad_lines", ["stop", "skip"])
def test_the_encoding_of_a_packed_file_is_looked_at_too(tmp_path: Path, bad_lines):
    packed = tmp_path / "q.jsonl.gz"
    packed.write_bytes(gzip.compress((json.dumps(GOOD) + "\r\n\r\n").encode("utf-8-sig")))
    assert read_preferences(packed, bad_lines) == [Preference(**GOOD)]
    packed.write_bytes(gzip.compress(json.dumps(GOOD).encode("utf-16")))
    with pytest.raises(BadPreference, match=r"q\.jsonl\.gz: encoded as UTF-16, not as UTF-8"):
        read_preferences(packed, bad_lines)


@pytest.mark.parametrize("bad_lines", ["stop", "skip"])
def test_a_broken_packed_file_is_an_error(tmp_path: Path, bad_lines):
    rows = "".join(json.dumps({**GOOD, "chosen": str(i)}) + "\n" for i in range(5000))
    packed = gzip.compress(rows.encode())
    for name, content in {
        "plain.gz": rows.encode(),
        "cut.gz": packed[: len(packed) // 2],
        "turned.gz": packed[:2000] + bytes([packed[2000] ^ 255]) + packed[2001:],
        "header.gz": packed[:5],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadPreference, match=name):
            read_preferences(tmp_path / name, bad_lines)


def test_a_file_without_a_good_line_is_an_error(tmp_path: Path):
    for rows in ((), ("no", "no")):
        with pytest.raises(BadPreference, match=r"p\.jsonl: no usable line"):
            read_preferences(write(tmp_path / "p.jsonl", *rows), "skip")
    with pytest.raises(BadPreference, match=r"p\.jsonl: no usable line"):
        read_preferences(write(tmp_path / "p.jsonl"))


def test_skipped_lines_are_told_one_by_one_and_in_total(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write(tmp_path / "p.jsonl", GOOD, "no", *[{**GOOD, "user_id": ""}] * 30, GOOD)
    preferences = read_preferences(path, "skip")
    assert [preference.source for preference in preferences] == [f"{path}:1", f"{path}:33"]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == SHOWN_BAD_LINES + 1
    assert told[0].startswith(f"skipped {path}:2: line: Invalid JSON")
    assert told[1].startswith(f"skipped {path}:3: user_id: ")
    assert told[-1] == f"{path}: skipped 31 bad lines of 33"


def test_the_total_is_told_even_when_it_is_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "p.jsonl", GOOD)
    read_preferences(path, "skip")
    assert [record.getMessage() for record in caplog.records] == [f"{path}: skipped 0 bad lines of 1"]


def test_the_place_is_no_part_of_a_comparison(tmp_path: Path):
    path = write(tmp_path / "p.jsonl", GOOD, GOOD)
    one, two = read_preferences(path)
    assert (one.source, two.source) == (f"{path}:1", f"{path}:2")
    assert one == two == Preference(**GOOD)
    assert len({one, two}) == 1
    assert Preference(**one.model_dump()).source == ""
    assert one != Preference(**{**GOOD, "user_id": "zoe"})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary() | st.sampled_from([json.dumps(GOOD).encode()]), max_size=5), st.sampled_from(["", ".gz"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, lines: list[bytes], suffix: str):
    path = tmp_path / f"p.jsonl{suffix}"
    path.write_bytes(b"\n".join(lines))
    for bad_lines in ("stop", "skip"):
        try:
            told = read_preferences(path, bad_lines)[0].source
        except BadPreference as error:
            told = error.message
        assert told.startswith(f"{path}:")


def test_row_zero_is_never_a_users():
    people = [Preference(**{**GOOD, "user_id": user}) for user in ("zoe", "ada", "zoe")]
    assert index_users(people) == {"ada": 1, "zoe": 2}


def test_the_demo_splits_by_prompt():
    folder = Path(__file__).parents[4] / "training" / "runs" / "demo"
    train, test = (read_preferences(folder / f"{name}.jsonl") for name in ("train", "test"))
    assert not {p.prompt for p in train} & {p.prompt for p in test}
    assert not {p.chosen for p in train} & {p.chosen for p in test}
    assert len({p.prompt for p in test}) >= 40


def test_unknown_run_keys_are_refused(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("train: a\ntest: b\nlearning_rate: 1\n")
    with pytest.raises(BadRunConfig, match="learning_rate"):
        RunConfig.read(path)
