"""Reading comparisons: what is meant is read, anything else names its line."""

import json
from pathlib import Path

import pytest

from training.config import RunConfig
from training.errors import BadPreference, BadRunConfig
from training.preferences import Preference, index_users, read_preferences

GOOD = {"user_id": "ada", "prompt": "Hi", "chosen": "a", "rejected": "b"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_prompt_messages_and_profile(tmp_path: Path):
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    chat = {**GOOD, "messages": turns, "profile": "likes tea"}
    del chat["prompt"]
    one, two = read_preferences(write(tmp_path / "p.jsonl", GOOD, chat))
    assert one.chat() == [{"role": "user", "content": "Hi"}]
    assert two.chat() == [turns[0], {"role": "user", "content": "About me: likes tea\n\nQ"}]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("not json", "JSON"),
        ({**GOOD, "user_id": ""}, "user_id"),
        ({**GOOD, "user_id": 7}, "user_id"),
        ({**GOOD, "mood": "x"}, "mood"),
        ({**GOOD, "rejected": "a"}, "chosen equals rejected"),
        ({**GOOD, "messages": [{"role": "user", "content": "x"}]}, "either prompt or messages"),
        ({k: v for k, v in GOOD.items() if k != "prompt"}, "either prompt or messages"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: object, reason: str):
    with pytest.raises(BadPreference, match=r"p\.jsonl:2: ") as caught:
        read_preferences(write(tmp_path / "p.jsonl", GOOD, bad, GOOD))
    assert reason in caught.value.message


def test_an_empty_file_is_an_error(tmp_path: Path):
    with pytest.raises(BadPreference, match="no preferences"):
        read_preferences(write(tmp_path / "p.jsonl"))


def test_row_zero_is_never_a_users():
    people = [Preference(**{**GOOD, "user_id": user}) for user in ("zoe", "ada", "zoe")]
    assert index_users(people) == {"ada": 1, "zoe": 2}


def test_the_demo_splits_by_prompt():
    folder = Path(__file__).parent.parent.parent / "training" / "runs" / "demo"
    train, test = (read_preferences(folder / f"{name}.jsonl") for name in ("train", "test"))
    assert not {p.prompt for p in train} & {p.prompt for p in test}
    assert not {p.chosen for p in train} & {p.chosen for p in test}
    assert len({p.prompt for p in test}) >= 40


def test_unknown_run_keys_are_refused(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("train: a\ntest: b\nlearning_rate: 1\n")
    with pytest.raises(BadRunConfig, match="learning_rate"):
        RunConfig.read(path)
