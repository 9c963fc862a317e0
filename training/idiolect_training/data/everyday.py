"""Comparisons of simulated users from the data set `data/everyday`: replies to everyday prompts in eight tastes.

`python -m idiolect_training.data.everyday FOLDER` writes train.jsonl and test.jsonl there. The users are rules, not
people: a user of the taste short-list-warm prefers, of two replies, the one that shares more of these three words.

In training a user of each taste judges each prompt: the reply in the user's taste against that of a user who judges the
same pair the other way round. The two tastes differ in one word, or in all three. Held-out prompts are judged by all
tastes: three pairs per prompt, whose replies differ in one word.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from idiolect_training.evaluate.reply_style import HABITS

AXES = (("short", "thorough"), ("list", "prose"), ("warm", "plain"))
TASTES = tuple("-".join(words) for words in product(*AXES))
USERS_PER_TASTE = 2
REPLIES = Path(__file__).parents[2] / "data" / "everyday" / "replies.jsonl"

SHORT_WORDS = 29
"""Short replies have 12 to 18 words, thorough ones 40 to 50."""

Row = dict[str, Any]
"""Of replies.jsonl: `prompt`, `form`, `split` (train or test) and `replies`, one for each of TASTES."""


def read(path: Path = REPLIES) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shared(taste: str, other: str) -> int:
    """How many of their three words two tastes have in common.

    >>> shared("short-list-warm", "short-prose-plain")
    1
    """
    return sum(a == b for a, b in zip(taste.split("-"), other.split("-"), strict=True))


def opposed(taste: str, axes: Iterable[int]) -> str:
    """The taste with the other word on these axes.

    >>> opposed("short-list-warm", [0, 2])
    'thorough-list-plain'
    """
    words = taste.split("-")
    for axis in axes:
        one, other = AXES[axis]
        words[axis] = other if words[axis] == one else one
    return "-".join(words)


def taste_of(text: str) -> str:
    """The taste that a reader sees in a reply: by its words, its items and its exclamation marks.

    >>> taste_of("Try these:\\n- Walk a little every day\\n- Take the stairs, you will feel it!")
    'short-list-warm'
    """
    seen = (len(text.split()) < SHORT_WORDS, HABITS["list"](text), HABITS["exclamation"](text))
    return "-".join(words[0] if shown else words[1] for words, shown in zip(AXES, seen, strict=True))


def train_votes(number: int, row: Row) -> Iterator[dict[str, str]]:
    """What one user of each taste says of a prompt; its `number` decides who judges, and what is rejected."""
    words = (*((axis,) for axis in range(len(AXES))), range(len(AXES)))[number % (len(AXES) + 1)]
    for taste in TASTES:
        yield _vote(taste, 1 + number // 4 % USERS_PER_TASTE, row, taste, opposed(taste, words))


def test_votes(number: int, row: Row) -> Iterator[dict[str, str]]:
    """What one user of each taste says of three pairs, one an axis; `number` decides what their replies share."""
    for axis in range(len(AXES)):
        one = TASTES[(number + 3 * axis) % len(TASTES)]
        pair = (one, opposed(one, [axis]))
        for taste in TASTES:
            chosen, rejected = sorted(pair, key=lambda reply: -shared(taste, reply))
            yield _vote(taste, 1 + number % USERS_PER_TASTE, row, chosen, rejected)


def _vote(taste: str, user: int, row: Row, chosen: str, rejected: str) -> dict[str, str]:
    replies = row["replies"]
    return {
        "user_id": f"{taste}-{user}",
        "prompt": row["prompt"],
        "chosen": replies[chosen],
        "rejected": replies[rejected],
    }


def main(folder: Path) -> None:
    rows = read()
    for split, votes in (("train", train_votes), ("test", test_votes)):
        part = [row for row in rows if row["split"] == split]
        lines = [json.dumps(vote) for number, row in enumerate(part) for vote in votes(number, row)]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
