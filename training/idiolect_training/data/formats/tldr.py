"""Reddit TL;DR with the paper's length users: simulated tastes over real annotators' pairs.

The data are the comparisons of openai/summarize-from-feedback (arXiv 2009.01325): JSON lines, one file or a folder of
batches. As in the code of arXiv 2402.05133: only pairs whose summaries both come from supervised policies count;
annotators rank by their number of such training pairs; each, in that order, prefers the longer summary with
probability 0.7, else the shorter one, and the real choice is discarded. Length is in characters; of two equally long
summaries the first wins. Annotators with equally many go by their id, where the paper's order depends on its sort.
"""

from collections import Counter
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from idiolect.text import Printable, UserId
from idiolect_training.data.formats.published import Row, compare, located, log_account
from idiolect_training.data.lines import BadLines, read_lines
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadPreference

N_USERS = 10
P_SHORTER = 0.3
SEED = 3456


class _Info(Row):
    post: Printable | None = None
    article: Printable | None = None
    title: Printable | None = None
    subreddit: Printable | None = None


class _Summary(Row):
    text: Printable
    policy: str

    @property
    def supervised(self) -> bool:
        return "sup" in self.policy and "ppo" not in self.policy and "cnn" not in self.policy


class _Comparison(Row):
    info: _Info
    summaries: tuple[_Summary, _Summary]
    worker: UserId
    split: Literal["train", "valid1", "valid2"]

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if not (self.info.post or self.info.article):
            raise ValueError("info holds neither post nor article")
        return self

    @property
    def supervised(self) -> bool:
        return all(summary.supervised for summary in self.summaries)

    @property
    def prompt(self) -> str:
        heads = {"SUBREDDIT: r/": self.info.subreddit, "TITLE: ": self.info.title}
        lines = [head + text for head, text in heads.items() if text]
        return "\n".join([*lines, f"POST: {self.info.post or self.info.article}", "TL;DR:"])

    def vote(self, prefers_shorter: bool, left_out: Counter[str]) -> list[Preference]:
        first, second = (summary.text for summary in self.summaries)
        takes_first = len(first) <= len(second) if prefers_shorter else len(first) >= len(second)
        return compare(self.worker, self.prompt, (first, second), "a" if takes_first else "b", left_out)


def read(path: Path, bad_lines: BadLines = "stop", part: Literal["train", "validation"] = "train") -> list[Preference]:
    """The ten users' training pairs; or everybody's validation pairs, strangers among them. Raises BadPreference.

    Both need the training pairs at `path`: they rank the annotators.
    """
    rows = [row for file in _files(path) for row in read_lines(file, _Comparison.model_validate_json, bad_lines)]
    supervised = [(source, row) for source, row in rows if row.supervised]
    left_out = Counter({"pairs of other policies": len(rows) - len(supervised)})

    n_train = Counter(row.worker for _, row in supervised if row.split == "train")
    ranked = sorted({row.worker for _, row in supervised}, key=lambda worker: (-n_train[worker], worker))
    shorter = dict(zip(ranked, prefers_shorter(len(ranked)), strict=True))
    users = set(ranked[:N_USERS] if part == "train" else ranked)
    in_part = [(source, row) for source, row in supervised if (row.split == "train") == (part == "train")]
    left_out["pairs of the other part"] = len(supervised) - len(in_part)
    wanted = [(source, row) for source, row in in_part if row.worker in users]
    left_out["pairs of other annotators"] = len(in_part) - len(wanted)

    preferences = located((source, row.vote(shorter[row.worker], left_out)) for source, row in wanted)
    log_account(path, preferences, left_out)
    return preferences


def prefers_shorter(n: int) -> list[bool]:
    """Whether each of the n first annotators prefers the shorter summary: the paper's own draws."""
    draws = np.random.RandomState(SEED)
    return [bool(draws.choice([0, 1], p=[1 - P_SHORTER, P_SHORTER])) for _ in range(n)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json*"))
    if not files:
        raise BadPreference(f"{path}: no batch file in it")
    return files
