"""Personalized Soups: six simulated users, two opposed ones a dimension (arXiv 2310.11564, github joeljang/RLPHF).

The folder is `rm_training` of the authors' data: P1A.json to P3B.json, each an array, or a line each, of
{"user_input", "completion_a", "completion_b"}. GPT-4 preferred `completion_a` when the input said in a sentence what is
wanted; that sentence is cut out, so that only the user tells it (as in the code of arXiv 2402.05133).
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic_core import from_json, to_json

from idiolect.text import Text
from idiolect_training.data.formats.published import Row, compare, find, located, log_account
from idiolect_training.data.lines import BadLines, check_keys, parse_lines, raw_lines
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadPreference

SENTENCES = {
    "P1A": "Generate a response that can be easily understood by an elementary school student.",
    "P1B": "Generate a response that only a PhD Student in that specific field could understand.",
    "P2A": "Generate a response that is concise and to the point without being verbose.",
    "P2B": "Generate a response that is very informative without missing any background information.",
    "P3A": "Generate a response that is friendly, witty, funny, and humorous, like a close friend.",
    "P3B": "Generate a response in an unfriendly manner.",
}
"""What each user asks for, word for word as in the inputs."""


class _Row(Row):
    user_input: Text
    completion_a: str
    completion_b: str


def read(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """The comparisons of users "P1A" to "P3B", each once per user. Raises BadPreference."""
    left_out: Counter[str] = Counter()
    preferences = [p for user_id in SENTENCES for p in _read_user(path, user_id, bad_lines, left_out)]
    log_account(path, preferences, left_out)
    return preferences


def _read_user(folder: Path, user_id: str, bad_lines: BadLines, left_out: Counter[str]) -> list[Preference]:
    seen: set[_Row] = set()

    def vote(line: bytes) -> list[Preference]:
        row = _Row.model_validate_json(line)
        if row in seen:
            left_out["duplicates"] += 1
            return []
        seen.add(row)
        prompt = row.user_input.replace(SENTENCES[user_id], "").strip()
        return compare(user_id, prompt, (row.completion_a, row.completion_b), "a", left_out)

    file = find(folder, f"{user_id}.json")
    return located(parse_lines(file, _rows(file), vote, bad_lines))


def _rows(file: Path) -> Iterator[tuple[str, bytes]]:
    """The lines, or the items of one JSON array, each with its place."""
    lines = list(raw_lines(file))
    if not lines or not lines[0][1].lstrip().startswith(b"["):
        yield from lines
        return
    try:
        whole = b"".join(line for _, line in lines)
        items = from_json(whole)
        check_keys(whole)
    except ValueError as error:
        raise BadPreference(f"{file}: {error}") from error
    for number, item in enumerate(items, start=1):
        yield f"{file}:item {number}", to_json(item)
