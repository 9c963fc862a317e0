"""How replies look: length and habits that can be counted, for each user."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import mean, median
from typing import Any

HABITS: dict[str, Callable[[str], bool]] = {
    "list": lambda text: bool(re.search(r"^\s*([-*•]|\d+[.)])\s", text, re.MULTILINE)),
    "question": lambda text: text.rstrip().endswith("?"),
    "exclamation": lambda text: "!" in text,
}


def style(replies: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """Measures of each user's replies, from (user_id, text): median words, and the share that shows each habit.

    >>> style([("ada", "- one\\n- two"), ("ada", "Three words here!")])
    {'ada': {'n': 2, 'median_words': 3.5, 'list': 0.5, 'question': 0.0, 'exclamation': 0.5}}
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for user_id, text in replies:
        texts[user_id].append(text)
    return {
        user_id: {"n": len(own), "median_words": float(median(len(text.split()) for text in own))}
        | {habit: round(mean(float(shows(text)) for text in own), 4) for habit, shows in HABITS.items()}
        for user_id, own in sorted(texts.items())
    }
