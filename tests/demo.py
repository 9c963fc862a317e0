"""make demo: two strangers become somebody, on real vLLM and real Redis, seen through the Python client.

Both ask the same thing, answer five questions by opposed rules, and ask again; then they are forgotten.
`python -m tests.demo --keep` also puts what was printed, and a picture of it, into the README.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bench.load.metrics import metric
from idiolect_client import Client, Generation, Question
from idiolect_training.data.everyday import AXES, shared, taste_of
from tests import readme
from tests.demo_picture import Panel, picture
from tests.live import ROOT, running_server

PROMPT = "What is a compiler?"
"""In no data: neither of training nor of the question bank."""
STRANGERS = {"ann": "short-list-warm", "ben": "thorough-prose-plain"}
KNOWN = ("thorough-list-warm-1", "short-prose-plain-1")
N_ANSWERS = 5
MAX_TOKENS = 96
WIDTH = 100
PICTURE = ROOT / "docs" / "images" / "stranger.svg"
COLORS = {"short": "cyan", "list": "green", "warm": "magenta"}


def answer(question: Question, taste: str) -> tuple[str, str] | None:
    """(chosen, rejected) by the rule: the reply that shares more words with the taste; None if both share as many."""
    sides = sorted((question.first, question.second), key=lambda reply: shared(taste_of(reply), taste), reverse=True)
    better, worse = (shared(taste_of(reply), taste) for reply in sides)
    return (sides[0], sides[1]) if better > worse else None


def believed(weights: dict[str, float]) -> dict[str, float]:
    """P of the first word of each axis, summed over the named clusters."""
    return {words[0]: sum(p for name, p in weights.items() if words[0] in name.split(", ")) for words in AXES}


class Demo:
    """One telling of the story. It leaves the strangers forgotten."""

    def __init__(self, url: str, console: Console) -> None:
        self.http = httpx.Client(base_url=url)
        self.client = Client(url, timeout_s=600)
        self.console = console
        self.panels: list[Panel] = []

    def tell(self) -> None:
        for user in STRANGERS:
            self.client.erase(user)
        status = self.client.status()
        self.say(
            f"{status.base_model}, bundle {status.bundle}: {status.trained_users} trained users, "
            f"{status.questions} questions. One engine and one adapter for everybody."
        )
        self.head(f'1. Two strangers ask: "{PROMPT}"')
        before = {user: self.ask(user) for user in STRANGERS}
        self.reply(" and ".join(STRANGERS), before["ann"])
        self.head("2. Each answers five questions, by a rule")
        for user, taste in STRANGERS.items():
            self.answer_five(user, taste)
        self.head("3. They ask the same again")
        self.panels = [Panel("ann or ben, as strangers", "nothing is known", before["ann"].text, known=False)]
        for user, taste in STRANGERS.items():
            after = self.ask(user)
            self.reply(user, after)
            note = f"chose what is {taste.replace('-', ', ')}"
            self.panels.append(Panel(f"{user}, after five answers", note, after.text, known=True))
        self.head("4. Users whom training knew, and the same engine")
        for user in KNOWN:
            self.reply(user, self.ask(user))
        self.head("5. Forget me")
        for user in STRANGERS:
            erased = self.client.erase(user)
            same = "the first reply is back" if self.ask(user).text == before[user].text else "ANOTHER REPLY"
            self.say(f"{user}: erased {erased.votes} votes and {erased.codes} code; asked again, {same}.")

    def ask(self, user: str) -> Generation:
        return self.client.generate(PROMPT, user_id=user, max_tokens=MAX_TOKENS)

    def answer_five(self, user: str, taste: str) -> None:
        self.say()
        self.console.print(Text(f"{user} prefers what is {taste.replace('-', ', ')}", "bold"))
        skipped: list[str] = []
        n_calls = metric(self.http, 'idiolect_engine_requests_total{purpose="score"}')
        n_answers, slowest_ms = 0, 0.0
        while n_answers < N_ANSWERS and (question := self.client.question(user, skipped)) is not None:
            choice = answer(question, taste)
            if choice is None:
                skipped.append(question.question_id)
                continue
            n_answers += 1
            began = time.perf_counter()
            self.client.feedback(user_id=user, question_id=question.question_id, chosen=choice[0], rejected=choice[1])
            taken_ms = 1000 * (time.perf_counter() - began)
            slowest_ms = max(slowest_ms, taken_ms)
            self.say(f"  {question.messages[-1]['content']}")
            self.console.print(_choice("takes", choice[0], "bold"), _choice("   not", choice[1], "dim"), sep="\n")
            known = self.client.user(user)
            self.console.print(_bars(believed(known.belief or {})), Text(f"{taken_ms:.0f} ms", "dim"))
        n_calls = metric(self.http, 'idiolect_engine_requests_total{purpose="score"}') - n_calls
        n_bytes = 4 * len(known.belief or {})
        self.say(f"  {n_answers} answers: {n_calls:.0f} model calls, {n_bytes} bytes of user code")

    def head(self, text: str) -> None:
        self.say()
        self.console.print(Text(text, "bold yellow"))

    def reply(self, user: str, reply: Generation) -> None:
        self.say()
        words = len(reply.text.split())
        self.console.print(Text(user, "bold"), Text(f"[{reply.personalization.state}] {words} words", "dim"))
        tail = "" if reply.finish_reason == "stop" else " ..."
        self.console.print(Padding(Text(reply.text + tail), (0, 4)))

    def say(self, text: str = "") -> None:
        self.console.print(Text(text))


def _choice(verb: str, reply: str, look: str) -> Text:
    line = " / ".join(reply.splitlines())
    return Text(f"    {verb}: {line if len(line) < WIDTH - 16 else line[: WIDTH - 20] + ' ...'}", look)


def _bars(belief: dict[str, float]) -> Text:
    """Each axis as a bar of ten, and in percent."""
    text = Text("    believed:")
    for word, p in belief.items():
        filled = round(10 * p)
        text.append(f"  {word} ").append("█" * filled + "░" * (10 - filled), COLORS[word]).append(f" {p:4.0%}")
    return text


def without_times(text: str) -> str:
    """A telling without what differs from run to run."""
    return "".join(re.sub(r"\d+ ms$", "N ms", line.rstrip()) + "\n" for line in text.splitlines())


def main(keep: bool) -> None:
    """Tell the story; `keep` puts it, and its picture, into the README."""
    began = time.monotonic()
    console = Console(width=WIDTH, highlight=False, record=keep)
    sys.stdout.write("Starting Redis and vLLM on the CPU (about half a minute) ...\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "server.log").open("w+b") as log:
        try:
            with running_server(log, data_dir=f"{folder}/data") as (url, _):
                sys.stdout.write(f"Ready after {time.monotonic() - began:.0f} s.\n")
                demo = Demo(url, console)
                demo.tell()
        except RuntimeError:
            log.seek(0)
            sys.stdout.write(log.read().decode(errors="replace")[-3000:])
            raise
    if keep:
        readme.put("demo", without_times(console.export_text()))
        readme.put("run", readme.RUN_FILE.read_text(), "yaml")
        PICTURE.write_text(picture(PROMPT, demo.panels))


if __name__ == "__main__":
    main(keep="--keep" in sys.argv)
