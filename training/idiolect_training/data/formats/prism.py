"""PRISM: real people's choices in live conversations with up to four models a turn (arXiv 2404.16019).

The folder holds conversations.jsonl and survey.jsonl, packed or not (github HannahKirk/prism-alignment; people's texts
CC BY 4.0, models' replies CC BY-NC 4.0). utterances.jsonl repeats the conversations, and is not read.

Every reply that was not chosen at a turn makes a pair with the one that was; the prompt is the conversation so far,
with the chosen replies. The profile is the survey's answers that arXiv 2402.05133 used, and the three things that the
user rated most important. Its code took `order_stated_prefs` for a ranking, but that is the order in which the survey
showed its sliders; the ratings are in `stated_prefs`.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Literal

from idiolect.text import UserId
from idiolect_training.data.formats.published import Row, find, located, log_account, look_up, read_rows
from idiolect_training.data.lines import BadLines, read_lines
from idiolect_training.data.preferences import Message, Preference

ATTRIBUTES = (
    "values", "creativity", "fluency", "factuality", "diversity", "safety", "personalisation", "helpfulness",
)  # fmt: skip
"""What the survey asked everybody to rate, in its order; "other" has no name in common."""
NO_TEXT = "EMPTY STRING"
"""What the publishers put where a text is missing."""


class _Answers(Row):
    user_id: UserId
    stated_prefs: dict[str, float | str | None]
    self_description: str | None = None
    age: str | None = None
    gender: str | None = None
    education: str | None = None
    employment_status: str | None = None
    marital_status: str | None = None
    english_proficiency: str | None = None

    def profile(self) -> str:
        """The survey in one line; of equal ratings the one that the survey lists first counts as higher."""
        ratings = {name: self.stated_prefs.get(name) for name in ATTRIBUTES}
        rated = {name: rating for name, rating in ratings.items() if isinstance(rating, float) and isfinite(rating)}
        top = sorted(rated, key=lambda name: -rated[name])[:3]
        answers = {
            "preference": ", ".join(top),
            "self_description": self.self_description,
            "age": self.age,
            "gender": self.gender,
            "education": self.education,
            "employment": self.employment_status,
            "marital": self.marital_status,
            "english_proficiency": self.english_proficiency,
        }
        return "; ".join(f"{name}: {answer}" for name, answer in answers.items() if not _is_empty(answer))


class _Utterance(Row):
    turn: int
    role: Literal["user", "model"]
    content: str
    if_chosen: bool | None = None


class _Conversation(Row):
    user_id: UserId
    conversation_history: tuple[_Utterance, ...]

    def votes(self, profile: str, left_out: Counter[str]) -> Iterator[Preference]:
        """One comparison for each reply that lost; ends at a turn without a question or a choice."""
        so_far: list[Message] = []
        for _, turn in groupby(self.conversation_history, key=lambda utterance: utterance.turn):
            utterances = list(turn)
            asked = [u.content for u in utterances if u.role == "user" and not _is_empty(u.content)]
            chosen = [u.content for u in utterances if u.if_chosen and not _is_empty(u.content)]
            if not asked or not chosen:
                left_out["turns without a choice, and what follows them"] += 1
                return
            so_far.append(Message(role="user", content=asked[0]))
            for rejected in (u.content for u in utterances if u.role == "model" and not u.if_chosen):
                if _is_empty(rejected):
                    left_out["empty replies"] += 1
                elif rejected == chosen[0]:
                    left_out["identical replies"] += 1
                else:
                    yield Preference(
                        user_id=self.user_id,
                        messages=tuple(so_far),
                        profile=profile or None,
                        chosen=chosen[0],
                        rejected=rejected,
                    )
            so_far.append(Message(role="assistant", content=chosen[0]))


def read(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """All comparisons, in file order. Raises BadPreference."""
    profiles = {row.user_id: row.profile() for row in read_rows(find(path, "survey.jsonl"), _Answers, bad_lines)}
    left_out: Counter[str] = Counter()

    def votes(line: bytes) -> list[Preference]:
        conversation = _Conversation.model_validate_json(line)
        profile = look_up(profiles, conversation.user_id, "user_id")
        return list(conversation.votes(profile, left_out))

    preferences = located(read_lines(find(path, "conversations.jsonl"), votes, bad_lines))
    log_account(path, preferences, left_out)
    return preferences


def _is_empty(text: str | None) -> bool:
    return text is None or text.strip() in ("", NO_TEXT)
