"""LLMFAO: crowd votes over the answers of 59 models to 13 prompts (github dustalov/llmfao; data CC BY 4.0).

The folder holds prompts.jsonl, responses.jsonl and labels.jsonl, packed or not. Votes are real, one a label.
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


class _Prompt(Row):
    id: int
    text: Text


class _Response(Row):
    prompt: int
    model: int
    text: str


class _Label(Row):
    prompt: int
    model_a: int
    model_b: int
    user: UserId
    choice: Choice


def read(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """The votes, in file order, ties among them; identical and empty replies are left out. Raises BadPreference."""
    prompts = {row.id: row.text for row in read_rows(find(path, "prompts.jsonl"), _Prompt, bad_lines)}
    responses = {
        (row.prompt, row.model): row.text for row in read_rows(find(path, "responses.jsonl"), _Response, bad_lines)
    }
    left_out: Counter[str] = Counter()

    def vote(line: bytes) -> list[Preference]:
        label = _Label.model_validate_json(line)
        prompt = look_up(prompts, label.prompt, "prompt")
        a = look_up(responses, (label.prompt, label.model_a), "model_a")
        b = look_up(responses, (label.prompt, label.model_b), "model_b")
        return compare(label.user, prompt, (a, b), label.choice, left_out)

    preferences = located(read_lines(find(path, "labels.jsonl"), vote, bad_lines))
    log_account(path, preferences, left_out)
    return preferences
