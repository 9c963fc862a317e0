"""UKPConvArg: crowd votes on which of two arguments convinces more (Habernal and Gurevych, ACL 2016; CC BY 4.0).

The folder holds topics.jsonl, arguments.jsonl, pairs.jsonl and labels.jsonl, packed or not. Votes are real, one a
label; both arguments of a pair take the same stance on the same topic.
"""

from collections import Counter
from pathlib import Path

from idiolect.text import Text, UserId
from idiolect_training.data.formats.published import (
    Choice,
    Row,
    compare,
    find,
    located,
    log_account,
    look_up,
    read_rows,
)
from idiolect_training.data.lines import BadLines, read_lines
from idiolect_training.data.preferences import Preference


class _Topic(Row):
    topic_id: int
    topic: Text
    stance: Text


class _Argument(Row):
    arg_id: Text
    text: str


class _Pair(Row):
    pair_id: int
    topic_id: int
    arg_a: Text
    arg_b: Text


class _Label(Row):
    pair_id: int
    user: UserId
    choice: Choice


def read(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """The votes, in file order, ties among them, with "topic: stance" for a prompt. Raises BadPreference."""
    topics = {
        row.topic_id: f"{row.topic}: {row.stance}" for row in read_rows(find(path, "topics.jsonl"), _Topic, bad_lines)
    }
    arguments = {row.arg_id: row.text for row in read_rows(find(path, "arguments.jsonl"), _Argument, bad_lines)}
    pairs = {row.pair_id: row for row in read_rows(find(path, "pairs.jsonl"), _Pair, bad_lines)}
    left_out: Counter[str] = Counter()

    def vote(line: bytes) -> list[Preference]:
        label = _Label.model_validate_json(line)
        pair = look_up(pairs, label.pair_id, "pair_id")
        prompt = look_up(topics, pair.topic_id, "topic_id")
        a, b = look_up(arguments, pair.arg_a, "arg_a"), look_up(arguments, pair.arg_b, "arg_b")
        return compare(label.user, prompt, (a, b), label.choice, left_out)

    preferences = located(read_lines(find(path, "labels.jsonl"), vote, bad_lines))
    log_account(path, preferences, left_out)
    return preferences
