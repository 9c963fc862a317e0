"""An optional judge: a language model behind any OpenAI-compatible endpoint, asked whom a reply suits.

For each reply of a trained user and the generic reply to the same prompt, the judge sees some comparisons of that user
and says which of the two the user would prefer. Each question is asked in both orders, since judges favour a place:
what changes with the order is a tie. Judges are models with tastes of their own: no substitute for people.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openai import OpenAI, OpenAIError
from tqdm import tqdm

from idiolect_training.data.preferences import Preference
from idiolect_training.errors import JudgeUnavailable
from idiolect_training.evaluate.replies import GENERIC, Reply

N_EXAMPLES = 4
AT_ONCE = 8
TIMEOUT_S = 120.0


def read_replies(path: Path) -> list[Reply]:
    """Replies that an evaluation kept. Raises JudgeUnavailable when there are none."""
    if not path.is_file():
        raise JudgeUnavailable(f"{path}: no replies to judge", hint="set generate in the run file and evaluate again")
    return [Reply(**json.loads(line)) for line in path.read_text().splitlines()]


def judge(
    replies: Sequence[Reply], votes: Sequence[Preference], url: str, model: str, api_key: str
) -> dict[str, dict[str, float]]:
    """Wins, ties and losses of each user's own replies against the generic ones, and the win rate (a tie is half).

    `unreadable` counts answers that named neither reply; they count as if the order had decided.
    Raises JudgeUnavailable when the endpoint fails after retries.
    """
    generic = {reply.number: reply for reply in replies if reply.user_id == GENERIC}
    turns = [reply for reply in replies if reply.user_id != GENERIC]
    examples = _examples(votes)
    client = OpenAI(base_url=url, api_key=api_key, max_retries=4, timeout=TIMEOUT_S)

    def ask(item: tuple[Reply, bool]) -> str | None:
        reply, own_first = item
        other = generic[reply.number]
        pair = (reply.text, other.text) if own_first else (other.text, reply.text)
        prompt = other.chat[-1]["content"]
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question(examples[reply.user_id], prompt, *pair)}],
            temperature=0,
            max_tokens=8,
        )
        said = re.search(r"[12]", answer.choices[0].message.content or "")
        return None if said is None else "own" if (said[0] == "1") == own_first else "generic"

    asked = [(reply, own_first) for reply in turns for own_first in (True, False)]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = list(tqdm(pool.map(ask, asked), total=len(asked), desc="judge", disable=None))
    except OpenAIError as error:
        raise JudgeUnavailable(
            f"{url}: {error}", hint="is it an OpenAI-compatible endpoint, and the key right?"
        ) from error
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for reply, answers in zip(turns, zip(said[::2], said[1::2], strict=True), strict=True):
        outcome = "wins" if set(answers) == {"own"} else "losses" if set(answers) == {"generic"} else "ties"
        found[reply.user_id][outcome] += 1
        found[reply.user_id]["unreadable"] += answers.count(None)
    return {user_id: _rates(counts) for user_id, counts in sorted(found.items())}


def question(examples: Sequence[Preference], prompt: str, one: str, two: str) -> str:
    """What the judge is asked."""
    before = [
        f"Question: {vote.turns()[-1]['content']}\nPreferred: {vote.chosen}\nNot preferred: {vote.rejected}"
        for vote in examples
    ]
    parts = ["What one person preferred before:", *before, f"A new question: {prompt}"]
    parts += [f"Reply 1: {one}", f"Reply 2: {two}", "Which would this person prefer? Answer with 1 or 2 only."]
    return "\n\n".join(parts)


def _examples(votes: Sequence[Preference]) -> Mapping[str, list[Preference]]:
    """The first few votes of each user by which one of two replies was preferred."""
    found: dict[str, list[Preference]] = defaultdict(list)
    for vote in votes:
        if vote.kind in ("comparison", "edit") and len(found[vote.user_id]) < N_EXAMPLES:
            found[vote.user_id].append(vote)
    return found


def _rates(counts: Counter[str]) -> dict[str, Any]:
    n = counts["wins"] + counts["ties"] + counts["losses"]
    names = ("wins", "ties", "losses", "unreadable")
    return {name: counts[name] for name in names} | {"win_rate": round((counts["wins"] + counts["ties"] / 2) / n, 4)}
