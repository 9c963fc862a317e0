"""make five-answers (C3): do five answers change what a new user is told?

The cluster run of `make length-users` is exported with a question bank and served by real vLLM. New users, of whom one
half wants shorter replies and one half longer ones, answer five questions through the HTTP API, by their rule and
nothing else. Then they and the trained users ask for replies to the same prompts, which are in no data. The measures of
a new user's replies must lie within the spread of the trained users who want the same.
"""

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from bench.learning import length_users
from bench.learning.greedy_replies import read_replies
from bench.learning.length_users import METHODS, N_USERS, RUNS, ask, first_sentences
from bench.results import provenance, record
from idiolect_client import Client
from idiolect_client.request import Message
from idiolect_training.config import RunConfig
from idiolect_training.data.formats.tldr import prefers_shorter
from idiolect_training.evaluate.reply_style import style
from idiolect_training.export.bundle import export
from idiolect_training.fit.loop import restore
from tests.live import ROOT, running_server

COMMAND = "make five-answers"
OUT = ROOT / "docs" / "results" / "five_answers.json"
N_NEW, N_PROMPTS, N_ANSWERS, MAX_TOKENS, N_CALLERS = 4, 16, 5, 56, 16


def new_prompts() -> list[str]:
    """Prompts that no comparison of the run is about."""
    used = {prompt for prompt, _, _ in first_sentences()}
    return sorted({prompt for prompt, _ in read_replies()} - used)[:N_PROMPTS]


def answer(client: Client, user: str, wants_shorter: bool) -> int:
    """Answer up to five questions by the rule; how many were asked."""
    for n in range(N_ANSWERS):
        question = client.question(user)
        if question is None:
            return n
        shorter, longer = sorted((question.first, question.second), key=len)
        chosen, rejected = (shorter, longer) if wants_shorter else (longer, shorter)
        client.feedback(user_id=user, question_id=question.question_id, chosen=chosen, rejected=rejected)
    return N_ANSWERS


def main() -> None:
    length_users.write_data()
    run = RunConfig.model_validate(length_users.COMMON | METHODS["cluster"] | {"bank": {"n_questions": 24}})
    shorter = prefers_shorter(N_USERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy, user_rows = restore(run, RUNS / "cluster-0")
        bundle = export(run, policy, user_rows, folder / "bundle")
        del policy
        settings = {"bundle": str(bundle.path), "data_dir": str(folder / "data")}
        with (
            (folder / "server.log").open("wb") as log,
            running_server(log, **settings) as (url, _),
            Client(url, timeout_s=600) as client,
        ):
            wants = {f"user-{n + 1}": short for n, short in enumerate(shorter)}
            new = {f"new-{n}": n % 2 == 0 for n in range(N_NEW)}
            asked = {user: answer(client, user, short) for user, short in new.items()}
            states = {user: client.user(user) for user in new}
            questions = [(user, prompt) for user in [*wants, *new, "stranger"] for prompt in new_prompts()]

            def reply(question: tuple[str, str]) -> tuple[str, str]:
                user, prompt = question
                return user, client.generate(
                    messages=cast(list[Message], ask(prompt)), user_id=user, max_tokens=MAX_TOKENS
                ).text

            with ThreadPoolExecutor(N_CALLERS) as pool:
                replies = list(pool.map(reply, questions))
    measured = style(replies)
    within: dict[str, bool] = {}
    spread: dict[str, dict[str, list[float]]] = {}
    for short in (True, False):
        wish = "shorter" if short else "longer"
        trained = [measured[user] for user, wanted in wants.items() if wanted == short]
        spread[wish] = {
            measure: [min(one[measure] for one in trained), max(one[measure] for one in trained)]
            for measure in ("median_words", "list", "question", "exclamation")
        }
        for user, wanted in new.items():
            if wanted == short:
                within[user] = all(
                    low <= measured[user][measure] <= high for measure, (low, high) in spread[wish].items()
                )
    value: dict[str, Any] = {
        "new_users": len(within),
        "share_within_the_trained_spread": sum(within.values()) / len(within),
        "answers": asked,
        "median_words": {user: measured[user]["median_words"] for user in [*new, "stranger"]},
        "trained_spread": spread,
    }
    uncertainty = {user: state.uncertainty for user, state in states.items()}
    OUT.write_text(
        json.dumps({**value, "style": measured, "uncertainty": uncertainty, **provenance(COMMAND)}, indent=2) + "\n"
    )
    record("C3", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
