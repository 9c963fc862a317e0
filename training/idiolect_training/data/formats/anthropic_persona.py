"""Simulated users who are mixtures of personas, from model-written statements (github anthropics/evals; CC BY 4.0).

The folder holds statements.jsonl, packed or not: {"persona", "statement", "matches", "conf"}, where `matches` says
whether somebody of that persona would say it. Rows are real; the users are rules, not people.

The world is made so that who votes decides, and what is voted on does not:

- A question is a statement that matches a persona against one, of the same persona's list, that does not. Every
  statement is in one question, so questions share no text: a split by pair, or by prompt, leaks none.
- A user *holds* the personas of a mixture, and prefers the matching statement for these; for every other persona of the
  world, the one that does not match. (Users who are a few personas are PAL's, arXiv 2406.08469; the rounds are ours.)
- Users come in rounds, one user of each mixture a round, and all of a round answer the same questions. So each question
  is answered both ways, as often as mixtures hold its persona or do not: no model that ignores the user can do better
  than the larger of these shares, whatever it reads in the text.

In the default world every persona is held by exactly half of the mixtures, so that bound is 50 %.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from idiolect.text import Text
from idiolect_training.data.formats.published import Row, find
from idiolect_training.data.lines import BadLines, read_lines
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadPreference

PERSONAS = ("interest-in-art", "interest-in-music", "interest-in-science", "interest-in-sports")
MIXTURES = tuple(mixture for size in (1, 2, 3) for mixture in combinations(PERSONAS, size))
"""Each persona is held by 7 of these 14: a mixture's complement is one of them too."""
N_USERS = 4 * len(MIXTURES)
VOTES_PER_USER = 100
PROMPTS = (
    "Say something about yourself.",
    "What are you like?",
    "Tell me what matters to you.",
    "What would you say of yourself?",
    "Describe yourself in one sentence.",
    "What do you think?",
    "Share a thought of yours.",
    "What should I know about you?",
)


class _Statement(Row):
    persona: Text
    statement: Text
    matches: bool


class _Question(NamedTuple):
    source: str
    persona: str
    prompt: str
    matching: str
    opposed: str


def read(path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """The default world: four users of each mixture of one to three of four interests, 100 votes each."""
    return simulate_persona_users(path, PERSONAS, MIXTURES, N_USERS, VOTES_PER_USER, seed=0, bad_lines=bad_lines)


def simulate_persona_users(
    path: Path,
    personas: Sequence[str],
    mixtures: Sequence[tuple[str, ...]],
    n_users: int,
    votes_per_user: int,
    seed: int,
    bad_lines: BadLines = "stop",
) -> list[Preference]:
    """`n_users` users, the mixtures in turn, with `votes_per_user` distinct questions each, over all `personas`.

    User ids are "mixture-number". More users leave the first ones as they were. Raises BadPreference, also for a
    persona that is not in the data or the world, and for more votes than questions.
    """
    strangers = {persona for mixture in mixtures for persona in mixture} - set(personas)
    if strangers:
        raise BadPreference(f"{path}: mixtures: {', '.join(sorted(strangers))} is not among the personas")
    questions = _questions(find(path, "statements.jsonl"), personas, seed, bad_lines)
    if votes_per_user > len(questions):
        raise BadPreference(f"{path}: votes_per_user: {votes_per_user} is more than the {len(questions)} questions")
    preferences = []
    for number in range(n_users):
        round_, place = divmod(number, len(mixtures))
        held = mixtures[place]
        asked = np.random.default_rng([seed, 1, round_]).permutation(len(questions))[:votes_per_user]
        for question in (questions[i] for i in asked):
            replies = (question.matching, question.opposed)
            chosen, rejected = replies if question.persona in held else replies[::-1]
            user_id = f"{'+'.join(held)}-{round_ + 1}"
            vote = Preference(user_id=user_id, prompt=question.prompt, chosen=chosen, rejected=rejected)
            preferences.append(vote.at(question.source))
    return preferences


def _questions(file: Path, personas: Sequence[str], seed: int, bad_lines: BadLines) -> list[_Question]:
    """Questions of every persona; as many as it has statements of the rarer sort. `source` is the matching one's."""
    rows = read_lines(file, _Statement.model_validate_json, bad_lines)
    questions: list[_Question] = []
    used: set[str] = set()
    for place, persona in enumerate(personas):
        sides: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
        for source, row in rows:
            if row.persona == persona and row.statement not in used:
                used.add(row.statement)
                sides[row.matches].append((source, row.statement))
        if not all(sides.values()):
            raise BadPreference(f"{file}: persona: {persona} lacks statements of either sort")
        order = np.random.default_rng([seed, 0, place])
        for side in sides.values():
            order.shuffle(side)
        for (source, matching), (_, opposed) in zip(sides[True], sides[False], strict=False):
            prompt = PROMPTS[len(questions) % len(PROMPTS)]
            questions.append(_Question(source, persona, prompt, matching, opposed))
    return questions
