"""Simulated strangers of the demo bundle: they answer questions by a rule, and then their replies should show it."""

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from idiolect_client import Client
from idiolect_training.data.everyday import AXES, SHORT_WORDS, taste_of
from idiolect_training.evaluate.reply_style import style
from tests.demo import N_ANSWERS, answer

SKIPPED = 0.3
"""Of the questions that a stranger could answer."""


@dataclass
class Stranger:
    """Somebody new, who answers by a rule; `spoken` are the axes that the answers were about."""

    user_id: str
    taste: str
    spoken: set[int] = field(default_factory=set)
    answers_ms: list[float] = field(default_factory=list)


def meet(client: Client, stranger: Stranger, chance: random.Random) -> None:
    """Five answers, if so many questions are asked."""
    skipped: list[str] = []
    while len(stranger.answers_ms) < N_ANSWERS:
        question = client.question(stranger.user_id, skipped)
        if question is None:
            return
        choice = answer(question, stranger.taste)
        if choice is None or chance.random() < SKIPPED:
            skipped.append(question.question_id)
            continue
        began = time.perf_counter()
        client.feedback(
            user_id=stranger.user_id, question_id=question.question_id, chosen=choice[0], rejected=choice[1]
        )
        stranger.answers_ms.append(1000 * (time.perf_counter() - began))
        words = [taste_of(side).split("-") for side in choice]
        stranger.spoken |= {axis for axis in range(len(AXES)) if words[0][axis] != words[1][axis]}


def shows(texts: Sequence[str], taste: str, axes: Iterable[int]) -> bool:
    """Whether replies, taken together, show the taste on these axes, by the measures and bounds of G2."""
    seen = style(("", text) for text in texts)[""]
    short, listed, warm = (word == one for word, (one, _) in zip(taste.split("-"), AXES, strict=True))
    fits = (
        (seen["median_words"] < SHORT_WORDS) == short,
        seen["list"] >= 0.8 if listed else seen["list"] <= 0.1,
        seen["exclamation"] >= 0.8 if warm else seen["exclamation"] <= 0.2,
    )
    return all(fits[axis] for axis in axes)
