"""make demo: serve the demo bundle on real vLLM and ask it three things for opposed users and for a stranger.

Uses the Python client as an application would.
"""

import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from idiolect_client import Client, Generation

from tests.live import running_server

PROMPTS = ("What is a compiler?", "How do I change a light bulb?", "Why do balloons float?")
"""Held out from training: the first of three kinds in test.jsonl, taken by the alphabet and not by their replies."""
USERS = ("concise-1", "detailed-1", "lists-1", "somebody-new")
MAX_TOKENS = 80
WIDTH = 100


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    began = time.monotonic()
    say("Starting Redis and vLLM on the CPU (about half a minute) ...")
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "server.log").open("w+b") as log:
        try:
            with running_server(log, data_dir=f"{folder}/data") as (url, _), Client(url) as client:
                say(f"Ready after {time.monotonic() - began:.0f} s. One engine, one adapter, {len(USERS)} users:\n")
                show(client)
        except RuntimeError:
            log.seek(0)
            say(log.read().decode(errors="replace")[-3000:])
            raise


def show(client: Client) -> None:
    """Ask everything at once, as users would: vLLM batches it."""
    questions = [(prompt, user) for prompt in PROMPTS for user in USERS]
    with ThreadPoolExecutor(len(questions)) as pool:
        replies = list(
            pool.map(lambda asked: client.generate(asked[0], user_id=asked[1], max_tokens=MAX_TOKENS), questions)
        )
    for (prompt, user), reply in zip(questions, replies, strict=True):
        if user == USERS[0]:
            say(f"\n=== {prompt}")
        show_reply(user, reply)
    vote = client.feedback(user_id="somebody-new", prompt=PROMPTS[0], chosen=replies[0].text, rejected=replies[1].text)
    say(f"\nA vote by somebody-new is stored ({vote.vote_id}); the demo ends here.")


def show_reply(user: str, reply: Generation) -> None:
    n_words = len(reply.text.split())
    tail = "" if reply.finish_reason == "stop" else " ..."
    say(f"\n--- {user}  [{reply.personalization.state}]  {n_words} words, {reply.usage.completion_tokens} tokens")
    for line in (reply.text + tail).splitlines():
        say(textwrap.fill(line, WIDTH, initial_indent="    ", subsequent_indent="    "))


if __name__ == "__main__":
    main()
