"""What the readers of published forms share: their rows, their files, and the account of what they leave out."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from idiolect.learning import VoteKind
from idiolect_training.data.lines import BadLines, read_lines
from idiolect_training.data.preferences import Preference

log = logging.getLogger(__name__)

Choice = Literal["a", "b", "tie"]
Key = TypeVar("Key")
Value = TypeVar("Value")


class Row(BaseModel):
    """A published row: the fields that are used, checked; the others are the publisher's own business."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


Kind = TypeVar("Kind", bound=Row)


def find(folder: Path, name: str) -> Path:
    """The file `name` in a folder, or `name.gz` where that is what there is."""
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() else folder / name


def read_rows(path: Path, kind: type[Kind], bad_lines: BadLines) -> list[Kind]:
    """Every row of a JSON-lines file. Raises BadPreference naming file and line."""
    return [row for _, row in read_lines(path, kind.model_validate_json, bad_lines)]


def look_up(table: Mapping[Key, Value], key: Key, field: str) -> Value:
    """What a row refers to. Raises ValueError, which makes the row a bad line."""
    if key not in table:
        raise ValueError(f"{field}: {key} is not known")
    return table[key]


def compare(
    user_id: str, prompt: str, replies: tuple[str, str], choice: Choice, left_out: Counter[str]
) -> list[Preference]:
    """The vote of a user who chose reply "a", reply "b" or "tie"; none, but counted, where it compares nothing."""
    if replies[0] == replies[1]:
        left_out["identical replies"] += 1
    elif not all(replies):
        left_out["empty replies"] += 1
    else:
        chosen, rejected = replies[::-1] if choice == "b" else replies
        kind: VoteKind = "tie" if choice == "tie" else "comparison"
        return [Preference(user_id=user_id, prompt=prompt, chosen=chosen, rejected=rejected, kind=kind)]
    return []


def located(lines: Iterable[tuple[str, Iterable[Preference]]]) -> list[Preference]:
    """The comparisons that each line gave, each with its line."""
    return [preference.at(source) for source, preferences in lines for preference in preferences]


def log_account(path: Path, preferences: list[Preference], left_out: Counter[str]) -> None:
    """Say what was read and what was left out."""
    n_users = len({preference.user_id for preference in preferences})
    n_ties = sum(preference.kind == "tie" for preference in preferences)
    account = ", ".join(f"{n} {what}" for what, n in sorted(left_out.items())) or "nothing"
    ties = f", of which {n_ties} ties," if n_ties else ""
    log.info("%s: %d comparisons%s by %d users; left out: %s", path, len(preferences), ties, n_users, account)
